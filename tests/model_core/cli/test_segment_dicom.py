"""`segmamba segment` with scans: DICOM in, every file out, the run done again from its run.json."""

from __future__ import annotations

import csv
import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from typer.testing import Result

from model_core.imaging.nifti import read_label_map
from model_core.provenance.manifest import read_manifest
from model_core.types import CONTRASTS
from tests.dicom_studies import affine_of, uid_of_series, write_study, zipped

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans") / "study"
    write_study(folder, geometry="coronal")
    return folder


def test_a_folder_of_dicom_gives_every_file_and_can_be_replayed(
    segmamba: Run, study: Path, tmp_path: Path
) -> None:
    done = segmamba(
        "segment", "--dicom", study, "-m", "tiny", "-o", tmp_path / "s.nii.gz",
        "--archive", tmp_path / "all.zip", "--run", tmp_path / "run.json",
        "--table", tmp_path / "figures.csv", "--preview", tmp_path / "p.png",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    labels, volume = read_label_map(tmp_path / "s.nii.gz", argument="label map")
    assert volume.grid.distance_mm(affine_of("coronal")) < 0.01
    assert len(np.unique(labels)) > 1
    with zipfile.ZipFile(tmp_path / "all.zip") as packed:
        seg = dcmread(io.BytesIO(packed.read("segmentation.dcm")))
        assert packed.read("segmentation.nii.gz") == (tmp_path / "s.nii.gz").read_bytes()
        assert packed.read("run.json") == (tmp_path / "run.json").read_bytes()
        assert "measurements.dcm" in packed.namelist()
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == uid_of_series("t1ce")
    rows = list(csv.DictReader((tmp_path / "figures.csv").read_text().splitlines()))
    assert [row["structure"] for row in rows] == ["WT", "TC", "ET", "NCR", "ED"]
    voxels = {row["structure"]: int(row["voxels"]) for row in rows}
    assert voxels["WT"] == np.count_nonzero(labels)
    again = segmamba("replay", tmp_path / "run.json", "--input", study)
    assert again.exit_code == 0, again.output


def test_an_archive_is_the_same_study_and_series_can_be_chosen(
    segmamba: Run, study: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "study.zip"
    archive.write_bytes(zipped(sorted(study.rglob("*.dcm"))))
    names = ("folder", "archive", "chosen")
    chosen = [part for c in CONTRASTS for part in ("--series", f"{c}={uid_of_series(c)}")]
    for name, source, more in zip(names, (study, archive, archive), ([], [], chosen), strict=True):
        done = segmamba(
            "segment", "--dicom", source, "-m", "tiny", "-o", tmp_path / f"{name}.nii.gz", *more,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
    first, *others = ((tmp_path / f"{name}.nii.gz").read_bytes() for name in names)
    assert others == [first, first]


def test_what_cannot_be_is_refused_before_any_work(
    segmamba: Run, study: Path, study_folder: Path, tmp_path: Path
) -> None:
    out = ("-m", "no-such-model", "-o", tmp_path / "s.nii.gz")
    for arguments, told in (
        (("--dicom", study, study_folder), "--dicom: expected a DICOM study alone"),
        (("--dicom", study, "--series", "t1"), "--series: expected CONTRAST=UID"),
        (("--dicom", study, "--n4", "--preprocess", "none"), "n4: expected another mode than none"),
    ):
        done = segmamba("segment", *arguments, *out)
        assert done.exit_code == 2, done.output
        assert told in done.stderr.replace("\n", " ")
    assert list(tmp_path.iterdir()) == []


def test_a_study_without_a_contrast_is_refused_by_name(
    segmamba: Run, study: Path, tmp_path: Path
) -> None:
    part = tmp_path / "part"
    shutil.copytree(study, part, ignore=shutil.ignore_patterns("t2"))
    done = segmamba("segment", "--dicom", part, "-m", "tiny", "-o", tmp_path / "s.nii.gz")
    assert done.exit_code == 2
    assert "t2: expected one series of every contrast" in done.stderr.replace("\n", " ")
    assert not (tmp_path / "s.nii.gz").exists()


def test_the_map_lies_on_the_grid_that_was_asked_for(
    segmamba: Run, study_folder: Path, tmp_path: Path
) -> None:
    done = segmamba(
        "segment", study_folder, "-m", "tiny", "-o", tmp_path / "s.nii.gz", "--grid", "t2",
        "--run", tmp_path / "run.json", "--archive", tmp_path / "all.zip",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    manifest = read_manifest(tmp_path / "run.json")
    assert manifest.preparation.onto == "t2"
    assert manifest.source == "nifti"
    assert segmamba("replay", tmp_path / "run.json", "--input", study_folder).exit_code == 0
    with zipfile.ZipFile(tmp_path / "all.zip") as packed:
        assert "segmentation.dcm" not in packed.namelist()
