"""A prepared case is the study in the model's frame, made once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_core.errors import StudyError
from model_core.imaging import StudyFiles, Volume, find_studies, write_nifti
from model_core.types import CONTRASTS
from training.cases import cache_name, prepare_case, prepare_cases
from training.recipes import small_segmamba

CONFIG = small_segmamba()
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
BRAIN = (slice(3, 19), slice(4, 20), slice(2, 18))


@pytest.fixture
def study(tmp_path: Path) -> StudyFiles:
    """A study of 24 × 22 × 20 voxels with a brain of 16³ and one labelled box per label."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "case_a"
    folder.mkdir(parents=True)
    for contrast in CONTRASTS:
        image = np.zeros((24, 22, 20), np.float32)
        image[BRAIN] = rng.uniform(100, 900, (16, 16, 16))
        write_nifti(folder / f"case_a_{contrast}.nii.gz", Volume(image, LPS))
    truth = np.zeros((24, 22, 20), np.uint8)
    truth[5:15, 6:16, 4:14] = 2
    truth[6:9, 7:10, 5:8] = 4
    truth[6, 7, 5] = 1
    write_nifti(folder / "case_a_seg.nii.gz", Volume(truth, LPS))
    (found,) = find_studies(tmp_path / "data")
    return found


def test_a_case_is_the_brain_box_in_the_models_frame(study: StudyFiles, tmp_path: Path) -> None:
    case = prepare_case(study, CONFIG, tmp_path / "cache")
    assert case.shape == (16, 16, 16)
    assert case.present == (1, 2, 3)
    image = case.image().astype(np.float32)
    assert image.mean(axis=(1, 2, 3)) == pytest.approx(np.zeros(4), abs=2e-3)
    assert image.std(axis=(1, 2, 3)) == pytest.approx(np.ones(4), abs=2e-3)
    # LPS (x, y, z) in the box becomes SPL: (z, y, x)
    labels = case.labels()
    assert labels[5 - 2, 7 - 4, 6 - 3] == 1
    assert labels[7 - 2, 9 - 4, 8 - 3] == 3
    assert labels[13 - 2, 15 - 4, 14 - 3] == 2
    assert [(labels == label).sum() for label in (1, 2, 3)] == [1, 1000 - 27, 26]


def test_the_sampling_voxels_belong_to_their_label(study: StudyFiles, tmp_path: Path) -> None:
    case = prepare_case(study, CONFIG, tmp_path / "cache")
    for label in case.present:
        voxels = np.asarray(case.voxels(label)).T
        assert (case.labels()[tuple(voxels)] == label).all()
        assert voxels.shape[1] == (case.labels() == label).sum()


def test_a_case_is_prepared_once(study: StudyFiles, tmp_path: Path) -> None:
    first = prepare_case(study, CONFIG, tmp_path / "cache")
    gone = replace(study, paths={}, truth=None)
    assert prepare_cases([gone], CONFIG, tmp_path / "cache") == (first,)


def test_another_preprocessing_has_another_cache(study: StudyFiles, tmp_path: Path) -> None:
    other = replace(CONFIG, normalisation="zscore-box")
    assert cache_name(other) != cache_name(CONFIG)
    assert cache_name(replace(CONFIG, steps=7, patch=(96, 96, 96))) == cache_name(CONFIG)
    first, second = (prepare_case(study, c, tmp_path / "cache") for c in (CONFIG, other))
    assert first.folder != second.folder


def test_a_failed_preparation_leaves_nothing_behind(study: StudyFiles, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(StudyError, match="ground-truth"):
        prepare_case(replace(study, truth=None), CONFIG, cache)
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert list((cache / cache_name(CONFIG)).iterdir()) == []
