"""``segmamba dicom deidentify --deface`` as somebody types it, with a real program beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from model_core.dicom.series import list_series
from model_core.dicom.volume import read_series
from model_core.errors import StudyError
from model_core.imaging.grid import Grid
from model_core.preparation import skull_tools
from service.dicomweb.cli import dicom
from tests.dicom_series import PLANTED, SeriesRecipe, geometry_affine, write_series
from tests.face_heads import BRAIN, EYE, NOSE, VALUES, head_labels
from tests.model_core.preparation.builders import write_tool

SHAPE = (48, 52, 30)
GRID = Grid(SHAPE, geometry_affine("coronal", shape=SHAPE, spacing=(5.0, 4.6, 8.0), oblique=True))
TOOL = f"""
import nibabel, numpy
image = nibabel.load(args[args.index("-i") + 1])
mask = (numpy.asarray(image.dataobj) == {VALUES[BRAIN]}).astype(numpy.uint8)
nibabel.save(nibabel.Nifti1Image(mask, image.affine), args[args.index("-m") + 1])
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH; no tool is installed but what a test puts there."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(skull_tools, "_package_version", lambda _: None)
    return tmp_path / "bin"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A head, and a localiser of one slice."""
    values = VALUES[head_labels(GRID)]
    write_series(tmp_path / "in", values, GRID.affine, SeriesRecipe(patient=PLANTED))
    lone = SeriesRecipe(seed="localiser", left_out=tuple(range(1, 30)))
    write_series(tmp_path / "in", values, GRID.affine, lone)
    return tmp_path / "in"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(dicom, ["deidentify", *map(str, arguments), "--deface"])


def test_the_face_goes_and_a_localiser_is_listed(
    study: Path, programs: Path, tmp_path: Path
) -> None:
    write_tool(programs, "mri_synthstrip", TOOL)
    told = run(study, "-o", tmp_path / "out")
    assert told.exit_code == 1, told.exception
    assert "30 of 31 images" in " ".join(told.stdout.split())
    assert "one slice only" in " ".join(told.stderr.split())
    written = sorted((tmp_path / "out").rglob("*.dcm"))
    assert not any(b"Zyxplanted" in path.read_bytes() for path in written)
    (series,) = list_series(written)
    labels, found = head_labels(GRID), read_series(series).array
    assert not found[np.isin(labels, (EYE, NOSE))].any()
    assert np.unique(found[labels == BRAIN]).tolist() == [VALUES[BRAIN]]


def test_without_a_tool_it_is_refused_and_nothing_is_written(
    study: Path, programs: Path, tmp_path: Path
) -> None:
    result = run(study, "-o", tmp_path / "out")
    assert isinstance(result.exception, StudyError)
    assert "none installed" in str(result.exception)
    assert "skullstrip" in result.exception.way_out
    assert not (tmp_path / "out").exists()


def test_a_tool_that_fails_writes_nothing_and_says_so_for_every_file(
    study: Path, programs: Path, tmp_path: Path
) -> None:
    write_tool(programs, "mri_synthstrip", "sys.exit(3)")
    result = run(study, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 1
    answer = json.loads(result.stdout)
    assert answer["written"] == []
    assert sum(one["reason"] == "exit status 3" for one in answer["refused"]) == 30
    assert not (tmp_path / "out").exists()


def test_without_the_option_the_face_stays(study: Path, tmp_path: Path) -> None:
    arguments = ["deidentify", str(study), "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(dicom, arguments).exit_code == 0
    head = max(list_series(sorted((tmp_path / "out").rglob("*.dcm"))), key=lambda s: len(s.frames))
    values = read_series(head).array
    np.testing.assert_array_equal(values, VALUES[head_labels(GRID)])
