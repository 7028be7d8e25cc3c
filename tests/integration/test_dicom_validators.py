"""The objects that leave the house, before judges of other houses: dciodvfy, dcmtk, dcmqi."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from model_core.dicom.seg import encode_seg
from model_core.dicom.sr import RegionMeasurement, encode_sr
from tests.dicom_series import PLANTED, SeriesRecipe
from tests.model_core.dicom.label_maps import ALGORITHM, OUTPUT, SR_OUTPUT, Case, case_of, dcmqi

CASES = ("plain", "planted patient", "enhanced source", "empty map")


def tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if not found:
        pytest.skip(f"needs {name} (Debian package {package})")
    return found


def made(name: str, folder: Path) -> Case:
    recipe = SeriesRecipe(patient=PLANTED if name == "planted patient" else {})
    enhanced = name == "enhanced source"
    case = case_of(folder, "sagittal", oblique=True, recipe=recipe, enhanced=enhanced)
    return replace(case, labels=case.labels * 0) if name == "empty map" else case


def objects(case: Case) -> tuple[bytes, bytes]:
    seg = encode_seg(case.labels, case.affine, case.sources, algorithm=ALGORITHM, output=OUTPUT)
    measured = [
        RegionMeasurement(
            name="ET", volume_ml=12.0, longest_mm=31.0, major_mm=28.25, perpendicular_mm=17.5
        ),
        RegionMeasurement(name="WT", volume_ml=53.7, longest_mm=61.0),
    ]
    return seg, encode_sr(measured, seg, case.sources, algorithm=ALGORITHM, output=SR_OUTPUT)


def errors_of(program: str, path: Path) -> list[str]:
    done = subprocess.run(
        [program, str(path)], check=False, capture_output=True, text=True, timeout=60
    )
    lines = (done.stdout + done.stderr).splitlines()
    assert lines, "the validator said nothing at all"
    return [line for line in lines if line.startswith("Error")]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("number", [0, 1], ids=["SEG", "SR"])
def test_dciodvfy_finds_no_error(name: str, number: int, tmp_path: Path) -> None:
    program = tool("dciodvfy", "dicom3tools")
    path = tmp_path / "object.dcm"
    path.write_bytes(objects(made(name, tmp_path))[number])
    assert not errors_of(program, path)


def test_dciodvfy_does_find_an_error_where_one_is(tmp_path: Path) -> None:
    from pydicom import dcmread

    program = tool("dciodvfy", "dicom3tools")
    path = tmp_path / "object.dcm"
    path.write_bytes(objects(made("plain", tmp_path))[0])
    broken = dcmread(path)
    del broken.SegmentSequence[0].SegmentLabel
    broken.save_as(path)
    assert errors_of(program, path)


def test_dcmtk_reads_the_report_and_prints_its_numbers(tmp_path: Path) -> None:
    program = tool("dsrdump", "dcmtk")
    path = tmp_path / "report.dcm"
    path.write_bytes(objects(made("plain", tmp_path))[1])
    done = subprocess.run(
        [program, "--print-all-codes", str(path)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in ('"12.0"', '"28.25"', '"494.38"', "Volume", "Enhancing Lesion", "Lesion of Brain"):
        assert words in done.stdout


def test_dcmqi_reads_the_report_and_puts_each_label_on_its_segment(tmp_path: Path) -> None:
    program = dcmqi("tid1500reader")
    path, found = tmp_path / "report.dcm", tmp_path / "found.json"
    path.write_bytes(objects(made("plain", tmp_path))[1])
    command = [program, "--inputDICOM", str(path), "--outputMetadata", str(found)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    groups = {
        group["TrackingIdentifier"]: (
            group.get("ReferencedSegment"),
            [float(item["value"]) for item in group["measurementItems"]],
        )
        for group in json.loads(found.read_text())["Measurements"]
    }
    assert groups == {
        "ET": (3, [12.0, 31.0, 28.25, 17.5, 494.38]),
        "WT": (None, [53.7, 61.0]),
    }
