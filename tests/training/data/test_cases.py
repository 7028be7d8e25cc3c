"""A prepared case is the study in the model's frame, made once."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_core.errors import InputError, StudyError
from model_core.imaging import Volume, find_studies, load_study, prepare, write_nifti
from model_core.types import CONTRASTS
from tests.training.tiny import write_brats_dataset, write_nifti_dataset, write_png_dataset
from training.data.cases import cache_name, prepare_case, prepare_cases, weighted
from training.data.dataset import CaseFiles, Dataset
from training.data.find import load_dataset
from training.data.images import preprocessing
from training.recipes import small_segmamba

CONFIG = small_segmamba()
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
BRAIN = (slice(3, 19), slice(4, 20), slice(2, 18))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """One case of 24 × 22 × 20 voxels with a brain of 16³ and one labelled box per label."""
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
    return load_dataset(tmp_path / "data")


@pytest.fixture
def case(dataset: Dataset) -> CaseFiles:
    return dataset.training[0]


def test_only_a_case_that_lacks_a_label_is_weighed_down(
    case: CaseFiles, dataset: Dataset, tmp_path: Path
) -> None:
    config = replace(CONFIG, lacking_weight=0.25)
    full = prepare_case(case, dataset, config, tmp_path / "cache")
    assert weighted(full, config).weight == 1
    assert weighted(replace(full, present=(1, 2)), config).weight == 0.25


def test_a_case_is_the_brain_box_in_the_models_frame(
    case: CaseFiles, dataset: Dataset, tmp_path: Path
) -> None:
    cached = prepare_case(case, dataset, CONFIG, tmp_path / "cache")
    assert cached.shape == (16, 16, 16)
    assert cached.present == (1, 2, 3)
    assert cached.spacing_mm == (1.0, 1.0, 1.0)
    image = cached.image().astype(np.float32)
    assert image.mean(axis=(1, 2, 3)) == pytest.approx(np.zeros(4), abs=2e-3)
    assert image.std(axis=(1, 2, 3)) == pytest.approx(np.ones(4), abs=2e-3)
    # LPS (x, y, z) in the box becomes SPL: (z, y, x)
    labels = np.asarray(cached.labels())
    assert labels[5 - 2, 7 - 4, 6 - 3] == 1
    assert labels[7 - 2, 9 - 4, 8 - 3] == 3
    assert labels[13 - 2, 15 - 4, 14 - 3] == 2
    assert [(labels == label).sum() for label in (1, 2, 3)] == [1, 1000 - 27, 26]


def test_the_arrays_are_bit_for_bit_what_a_bundle_would_see(tmp_path: Path) -> None:
    data = write_brats_dataset(tmp_path / "data", cases=1)
    dataset = load_dataset(data)
    cached = prepare_case(dataset.training[0], dataset, CONFIG, tmp_path / "cache")
    (study,) = find_studies(data)
    expected = prepare(load_study(study.paths), preprocessing(CONFIG))
    np.testing.assert_array_equal(np.asarray(cached.image()), expected.image.astype(np.float16))


def test_the_channels_follow_the_config_not_the_files(
    case: CaseFiles, dataset: Dataset, tmp_path: Path
) -> None:
    other = replace(CONFIG, task=replace(CONFIG.task, channels=("flair", "t1")))
    plain, chosen = (prepare_case(case, dataset, c, tmp_path / "cache") for c in (CONFIG, other))
    np.testing.assert_array_equal(chosen.image()[0:1], plain.image()[3:4])
    np.testing.assert_array_equal(chosen.image()[1:2], plain.image()[0:1])


def test_the_sampling_voxels_belong_to_their_label(
    case: CaseFiles, dataset: Dataset, tmp_path: Path
) -> None:
    cached = prepare_case(case, dataset, CONFIG, tmp_path / "cache")
    labels = np.asarray(cached.labels())
    for label in cached.present:
        voxels = np.asarray(cached.voxels(label)).T
        assert (labels[tuple(voxels)] == label).all()
        assert voxels.shape[1] == (labels == label).sum()


def test_a_case_is_prepared_once(case: CaseFiles, dataset: Dataset, tmp_path: Path) -> None:
    first = prepare_case(case, dataset, CONFIG, tmp_path / "cache")
    made = (first.folder / "image.b2nd").stat().st_mtime_ns
    assert prepare_cases([case], dataset, CONFIG, tmp_path / "cache") == (first,)
    for path in (*case.images, case.label):
        assert path is not None
        path.unlink()
    assert prepare_cases([case], dataset, CONFIG, tmp_path / "cache") == (first,)
    assert (first.folder / "image.b2nd").stat().st_mtime_ns == made


def test_files_that_have_changed_are_prepared_anew(
    case: CaseFiles, dataset: Dataset, tmp_path: Path
) -> None:
    first = prepare_case(case, dataset, CONFIG, tmp_path / "cache")
    assert case.label is not None
    truth = np.zeros((24, 22, 20), np.uint8)
    truth[8, 8, 8] = 4
    write_nifti(case.label, Volume(truth, LPS))
    os.utime(case.label, (1, 1))
    second = prepare_case(case, dataset, CONFIG, tmp_path / "cache")
    assert second.folder == first.folder
    assert second.present == (3,)


def test_another_preprocessing_has_another_cache(
    case: CaseFiles, dataset: Dataset, tmp_path: Path
) -> None:
    other = replace(CONFIG, normalisation="zscore-box")
    assert cache_name(other) != cache_name(CONFIG)
    assert cache_name(replace(CONFIG, steps=7, patch=(96, 96, 96))) == cache_name(CONFIG)
    first, second = (prepare_case(case, dataset, c, tmp_path / "cache") for c in (CONFIG, other))
    assert first.folder != second.folder


def test_two_data_sets_with_equal_case_names_share_a_cache_in_peace(
    case: CaseFiles, dataset: Dataset, tmp_path: Path
) -> None:
    twin = replace(dataset, name="another")
    first, second = (prepare_case(case, d, CONFIG, tmp_path / "cache") for d in (dataset, twin))
    assert first.folder != second.folder


def test_a_failed_preparation_leaves_nothing_behind(
    case: CaseFiles, dataset: Dataset, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(StudyError, match="ground truth"):
        prepare_case(replace(case, label=None), dataset, CONFIG, cache)
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert list((cache / cache_name(CONFIG) / "data").iterdir()) == []


def test_a_half_written_case_is_not_taken_for_one(
    case: CaseFiles, dataset: Dataset, tmp_path: Path
) -> None:
    whole = prepare_case(case, dataset, CONFIG, tmp_path / "cache")
    (whole.folder / "case.json").write_text('{"shape": [1')
    (whole.folder / "image.b2nd").unlink()
    again = prepare_case(case, dataset, CONFIG, tmp_path / "cache")
    assert again == whole
    assert again.image().shape == (4, 16, 16, 16)


def test_a_preparation_that_another_process_overtook_keeps_the_others(
    case: CaseFiles, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.data import cases

    write, calls = cases._write_case, []

    def overtaken(*args: object) -> None:
        write(*args)  # type: ignore[arg-type]
        if not calls:
            calls.append(1)
            other = prepare_case(case, dataset, CONFIG, tmp_path / "cache")
            (other.folder / "mine").touch()

    monkeypatch.setattr(cases, "_write_case", overtaken)
    cached = prepare_case(case, dataset, CONFIG, tmp_path / "cache")
    assert (cached.folder / "mine").exists()
    assert [path.name for path in cached.folder.parent.iterdir()] == [case.name]


@pytest.mark.parametrize("workers", [1, 3])
def test_cases_come_in_order_whatever_the_workers(tmp_path: Path, workers: int) -> None:
    dataset = load_dataset(write_nifti_dataset(tmp_path, cases=4))
    config = replace(CONFIG, task=dataset.task, normalisation="zscore-box", spacing_mm=None)
    told: list[tuple[str, int, int]] = []
    cached = prepare_cases(
        dataset.training,
        dataset,
        config,
        tmp_path / "cache",
        progress=lambda *step: told.append(step),
        workers=workers,
    )
    assert [one.name for one in cached] == [case.name for case in dataset.training]
    assert told == [("prepare", done, 4) for done in (1, 2, 3, 4)]
    assert {one.present for one in cached} == {(1, 2)}
    assert all(one.spacing_mm == pytest.approx((2.5, 1.0, 1.0)) for one in cached)


def test_a_broken_case_is_called_by_its_place_and_nothing_more_is_begun(tmp_path: Path) -> None:
    dataset = load_dataset(write_nifti_dataset(tmp_path, cases=3))
    dataset.training[1].images[0].write_bytes(b"no image")
    config = replace(CONFIG, task=dataset.task, normalisation="zscore-box")
    with pytest.raises(InputError, match="case 2, MRI: expected a NIfTI image") as caught:
        prepare_cases(dataset.training, dataset, config, tmp_path / "cache")
    assert "vol_001" not in str(caught.value)
    assert "data verify" in caught.value.way_out


def test_pictures_keep_their_values_in_full_where_nothing_is_normalised(tmp_path: Path) -> None:
    dataset = load_dataset(write_png_dataset(tmp_path, cases=1))
    config = replace(
        CONFIG, task=dataset.task, normalisation="none", spacing_mm=None, orientation="RAS"
    )
    cached = prepare_case(dataset.training[0], dataset, config, tmp_path / "cache")
    assert cached.image().dtype == np.float32
    assert cached.shape == (1, 64, 64)
    facts = json.loads((cached.folder / "case.json").read_text())
    assert facts["background"] == [0.0]
