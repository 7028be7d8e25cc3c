import dataclasses
from pathlib import Path

import numpy as np
import pytest

from model_core.errors import OptionError
from training.config import TrainConfig
from training.recipes import lightm_unet_2d, small_segmamba
from training.synthesis import cases
from training.synthesis.studies import draw_study, find_material
from training.task import Task


def config(count: int) -> TrainConfig:
    return dataclasses.replace(small_segmamba(), synthetic=count, synthetic_weight=0.25)


def test_studies_become_cases_like_real_ones(material_folder: Path, tmp_path: Path):
    material = find_material(material_folder)

    made = cases.synthetic_cases(config(2), tmp_path, material)

    assert [case.weight for case in made] == [0.25, 0.25]
    for seed, case in enumerate(made, start=1):
        labels = np.asarray(case.labels()[:])
        assert np.count_nonzero(labels) == np.count_nonzero(draw_study(material, seed).labels)
        image = np.asarray(case.image()[:], np.float32)
        inside = image[0] != 0
        # z-scored over the brain, kept in float16
        assert abs(float(image[0][inside].mean())) < 0.01
        assert float(image[0][inside].std()) == pytest.approx(1, abs=0.01)


def test_a_study_is_made_once(
    material_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    material = find_material(material_folder)
    first = cases.synthetic_cases(config(1), tmp_path, material)
    monkeypatch.setattr(cases, "draw_study", None)

    assert cases.synthetic_cases(config(1), tmp_path, material) == first


def test_nothing_is_left_of_a_study_that_failed(
    material_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr(cases, "write_arrays", broken)
    with pytest.raises(RuntimeError, match="disk full"):
        cases.synthetic_cases(config(1), tmp_path, find_material(material_folder))

    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not list(tmp_path.rglob(".partial-*"))


def test_other_tasks_have_no_synthetic_studies(material_folder: Path, tmp_path: Path):
    task = Task(channels=("xray",), labels=("lung",), dims=2)
    pictures = dataclasses.replace(lightm_unet_2d(), task=task, synthetic=1)

    with pytest.raises(OptionError, match="synthetic"):
        cases.synthetic_cases(pictures, tmp_path, find_material(material_folder))
