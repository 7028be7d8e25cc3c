"""Whole inputs inspected: what is listed, taken, doubted, missing, and what would be done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_core.errors import OptionError
from model_core.imaging.nifti import write_nifti
from model_core.imaging.volume import Volume
from model_core.recognition.inspection import inspect_dicom, inspect_nifti
from model_core.types import CONTRASTS, Contrast
from tests.dicom_series import SeriesRecipe, geometry_affine, write_series
from tests.model_core.recognition.studies import (
    FACTS,
    recipe,
    uid,
    write_enhanced_study,
    write_study,
)

Brain = Mapping[Contrast, Volume]


@pytest.fixture(scope="module")
def thin(brain: Brain) -> Brain:
    """Every second slice, so that a study has few files."""
    volumes = {}
    for contrast, volume in brain.items():
        affine = volume.affine.copy()
        affine[:3, 2] *= 2
        volumes[contrast] = Volume(volume.array[:, :, ::2], affine)
    return volumes


@pytest.fixture(scope="module")
def folder(thin: Brain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DICOM study with a localiser and a diffusion image beside the four."""
    folder = tmp_path_factory.mktemp("dicom")
    write_study(folder, thin)
    image = np.random.default_rng(0).integers(0, 900, (16, 16, 12))
    affine = geometry_affine(shape=(16, 16, 12), spacing=(12, 12, 12))
    others = {
        "localizer": replace(FACTS["t1"], description="localizer", number=1),
        "dwi": replace(
            FACTS["t2"], description="ep2d_diff_trace", scanning_sequence=("EP",), number=7
        ),
    }
    for seed, facts in others.items():
        write_series(folder, image, affine, SeriesRecipe(facts=facts, seed=seed))
    return folder


@pytest.fixture(scope="module")
def niftis(brain: Brain, tmp_path_factory: pytest.TempPathFactory) -> Mapping[Contrast, Path]:
    folder = tmp_path_factory.mktemp("nifti")
    for contrast, volume in brain.items():
        write_nifti(folder / f"{contrast}.nii.gz", volume)
    return {contrast: folder / f"{contrast}.nii.gz" for contrast in CONTRASTS}


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_a_dicom_study_is_listed_taken_and_ready(folder: Path, thin: Brain) -> None:
    inspection = inspect_dicom(files_in(folder))
    assert inspection.kind == "dicom"
    assert inspection.chosen == {contrast: uid(contrast) for contrast in CONTRASTS}
    assert [entry.contrast for entry in inspection.series] == [
        None, "t1", "t2", "flair", None, "t1ce",
    ]  # fmt: skip
    assert [entry.chosen for entry in inspection.series] == [False, True, True, True, False, True]
    native = inspection.series[1]
    assert native.shape == thin["t1"].shape
    assert native.images == thin["t1"].shape[2]
    assert native.spacing_mm == pytest.approx((4.0, 4.0, 8.0))
    study = inspection.study
    assert (study.skull, study.grids_equal, study.prepared, study.ready) == (
        "stripped", True, True, True,
    )  # fmt: skip
    assert study.missing == study.uncertain == study.suspicions == ()
    assert study.preparation == ("nothing: one grid and no skull",)


def test_the_order_of_the_files_changes_nothing(folder: Path) -> None:
    files = files_in(folder)
    assert inspect_dicom(files[::-1]) == inspect_dicom(files)


def test_the_report_is_json_and_holds_no_text_of_the_files(folder: Path) -> None:
    report = inspect_dicom(files_in(folder)).to_dict()
    text = json.dumps(report)
    assert json.loads(text) == report
    assert set(report) == {"kind", "series", "study"}
    assert set(report["series"][0]) == {
        "uid", "contrast", "confidence", "reason", "uncertain", "chosen", "shape", "spacing_mm",
        "orientation", "images", "problems", "warnings",
    }  # fmt: skip
    assert set(report["study"]) == {
        "missing", "uncertain", "studies", "grids_equal", "skull", "prepared", "suspicions",
        "warnings", "preparation", "ready",
    }  # fmt: skip
    for planted in ("mprage", "tirm", "GADOVIST", "Phantom", "SYNTHETIC", str(folder)):
        assert planted not in text


def test_series_that_are_called_by_each_others_names_are_not_ready(
    thin: Brain, tmp_path: Path
) -> None:
    files = write_enhanced_study(tmp_path, {**thin, "t2": thin["flair"], "flair": thin["t2"]})
    study = inspect_dicom(files).study
    assert study.suspicions == ("T2 and FLAIR look as if they were exchanged",)
    assert study.prepared
    assert not study.ready


def test_a_missing_contrast_is_named_and_nothing_would_be_done(thin: Brain, tmp_path: Path) -> None:
    files = write_enhanced_study(tmp_path, {c: thin[c] for c in ("t1", "t1ce", "t2")})
    study = inspect_dicom(files).study
    assert study.missing == ("flair",)
    assert not study.ready
    assert study.preparation == ("nothing: the study is not complete",)
    assert study.skull == "stripped"


def test_the_caller_may_name_the_series_of_a_contrast(folder: Path) -> None:
    asked = {"t2": uid("flair"), "flair": uid("t2")}
    inspection = inspect_dicom(files_in(folder), override=asked)  # type: ignore[arg-type]
    assert inspection.chosen["t2"] == uid("flair")
    named = next(entry for entry in inspection.series if entry.uid == uid("flair"))
    assert (named.contrast, named.reason) == ("t2", "named by the caller")
    assert inspection.study.suspicions == ("T2 and FLAIR look as if they were exchanged",)
    with pytest.raises(OptionError, match="a series that is not there"):
        inspect_dicom(files_in(folder), override={"t2": "1.2.3"})


def test_of_two_studies_the_complete_one_is_chosen_from_and_that_is_said(
    thin: Brain, tmp_path: Path
) -> None:
    files = write_enhanced_study(tmp_path / "a", {"t1": thin["t1"]}, "earlier")
    files += write_enhanced_study(tmp_path / "b", thin, "later")
    inspection = inspect_dicom(files)
    assert inspection.study.studies == 2
    assert inspection.chosen == {contrast: uid(contrast, "later") for contrast in CONTRASTS}
    assert "files of 2 studies: the choice is from one of them" in inspection.study.warnings


def test_a_series_that_makes_no_volume_is_listed_with_its_problem(
    thin: Brain, tmp_path: Path
) -> None:
    files = write_enhanced_study(tmp_path, {c: thin[c] for c in ("t1", "t1ce", "flair")})
    gap = replace(recipe("t2"), left_out=(5, 6, 7))
    files += write_series(tmp_path, thin["t2"].array, thin["t2"].affine, gap)
    inspection = inspect_dicom(files)
    entry = next(entry for entry in inspection.series if entry.uid == uid("t2"))
    assert entry.problems
    assert not entry.chosen
    assert inspection.study.missing == ("t2",)


def test_a_chosen_series_whose_pixels_cannot_be_read_is_not_ready(
    thin: Brain, tmp_path: Path
) -> None:
    files = write_enhanced_study(tmp_path, thin)
    path = tmp_path / "t2.dcm"
    path.write_bytes(path.read_bytes()[:-500])
    inspection = inspect_dicom(files)
    entry = next(entry for entry in inspection.series if entry.uid == uid("t2"))
    assert entry.problems
    assert not inspection.study.ready


def test_four_named_files_make_a_ready_study_without_their_names(
    niftis: Mapping[Contrast, Path],
) -> None:
    inspection = inspect_nifti(niftis)
    assert inspection.kind == "nifti"
    assert inspection.chosen == {"t1": "1", "t1ce": "2", "t2": "3", "flair": "4"}
    assert {entry.reason for entry in inspection.series} == {"named by the caller"}
    assert inspection.study.ready
    assert "nii" not in json.dumps(inspection.to_dict())


def test_files_without_a_contrast_are_known_by_the_words_of_their_names(
    niftis: Mapping[Contrast, Path],
) -> None:
    files = dict(enumerate(niftis.values()))
    names = {0: "003_t1_mprage", 1: "009_t1_mprage_km", 2: "004_t2_tse", 3: "005_t2_flair"}
    inspection = inspect_nifti(files, names=names)
    assert list(inspection.chosen) == list(CONTRASTS)
    assert inspection.study.ready
    unnamed = inspect_nifti(files)
    assert unnamed.study.missing == CONTRASTS
    assert all(entry.uncertain for entry in unnamed.series)


def test_a_file_that_cannot_be_read_is_listed_with_its_problem(
    niftis: Mapping[Contrast, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(niftis["t2"].read_bytes()[:1000])
    inspection = inspect_nifti({**niftis, "t2": broken})
    assert inspection.series[2].problems
    assert inspection.series[2].shape is None
    assert inspection.study.missing == ("t2",)


def test_other_grids_are_seen_and_would_be_brought_together(
    brain: Brain, niftis: Mapping[Contrast, Path], tmp_path: Path
) -> None:
    cropped = Volume(brain["t2"].array[:, :, :-4], brain["t2"].affine)
    write_nifti(tmp_path / "t2.nii.gz", cropped)
    study = inspect_nifti({**niftis, "t2": tmp_path / "t2.nii.gz"}).study
    assert study.grids_equal is False
    assert not study.prepared
    assert any("one grid" in step for step in study.preparation)
