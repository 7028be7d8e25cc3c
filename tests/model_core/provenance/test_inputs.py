"""Inputs are found by what is in them, and what is missing is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model_core.errors import StudyError
from model_core.imaging.study import find_studies
from model_core.provenance.inputs import find_files
from tests.model_core.provenance.runs import FirstRun


def test_renamed_and_scattered_files_are_found_among_others(run: FirstRun, tmp_path: Path) -> None:
    (files,) = find_studies(run.study)
    (tmp_path / "a" / "b").mkdir(parents=True)
    for number, path in enumerate(files.paths.values()):
        place = tmp_path / "a" / ("b" if number % 2 else "") / f"x{number}.bin"
        shutil.copy(path, place)
        twin = bytearray(path.read_bytes())
        twin[-20] ^= 1
        place.with_name(f"twin{number}").write_bytes(twin)  # the same size, other content
    found = find_files(run.manifest, [tmp_path])
    assert found.label_map is None
    for contrast, path in files.paths.items():
        (there,) = found.inputs[contrast]
        assert there.read_bytes() == path.read_bytes()


def test_the_result_is_found_beside(run: FirstRun) -> None:
    assert find_files(run.manifest, [run.study], beside=[run.label_map]).label_map == run.label_map
    assert find_files(run.manifest, [run.folder]).label_map == run.label_map


def test_a_missing_image_is_named_by_its_contrast(run: FirstRun) -> None:
    (files,) = find_studies(run.study)
    given = [path for contrast, path in files.paths.items() if contrast != "flair"]
    with pytest.raises(StudyError, match=r"flair: .* 1 of its 1"):
        find_files(run.manifest, given)
