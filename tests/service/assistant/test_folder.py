"""Which files an assistant may name: those below one folder, whatever links say."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_core.errors import OptionError, StudyError
from model_core.types import CONTRASTS
from service.assistant.folder import AllowedFolder
from tests.service.client.conftest import write_study

DICOM = bytes(128) + b"DICM"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_study(tmp_path / "allowed" / "A", "A")
    write_study(tmp_path / "outside", "B")
    (tmp_path / "outside.zip").write_bytes(b"PK\x03\x04")
    return tmp_path / "allowed"


def refused(root: Path, path: str) -> str:
    with pytest.raises(OptionError) as caught, AllowedFolder(root).study(path):
        pass
    return str(caught.value)


@pytest.mark.parametrize("path", ["A", "./A/", "A/../A"])
def test_a_study_below_the_folder_is_read(root: Path, path: str) -> None:
    with AllowedFolder(root).study(path) as images:
        assert isinstance(images, dict)
        assert set(images) == set(CONTRASTS)


@pytest.mark.parametrize("path", ["../outside", "A/../../outside", "../outside.zip", "/", "/etc"])
def test_what_lies_outside_is_refused_whether_or_not_it_is_there(root: Path, path: str) -> None:
    told = refused(root, path)
    assert "leads out of it" in told
    assert str(root.parent) not in told
    assert refused(root, "../nobody") == told


def test_an_absolute_path_is_held_to_the_same_folder(root: Path) -> None:
    assert "leads out of it" in refused(root, str(root.parent / "outside"))
    with AllowedFolder(root).study(str(root / "A")) as images:
        assert isinstance(images, dict)


def test_links_out_of_the_folder_are_refused_at_every_level(root: Path) -> None:
    outside = root.parent / "outside"
    (root / "link").symlink_to(outside)
    (root / "link.zip").symlink_to(root.parent / "outside.zip")
    assert "leads out of it" in refused(root, "link")
    assert "leads out of it" in refused(root, "link.zip")
    (root / "A" / "A_t2.nii.gz").unlink()
    (root / "A" / "A_t2.nii.gz").symlink_to(outside / "B_t2.nii.gz")
    assert "leads out of it" in refused(root, "A")
    (root / "D").mkdir()
    (root / "D" / "a").write_bytes(DICOM)
    (root / "D" / "b").symlink_to(outside / "B_t1.nii.gz")
    assert "leads out of it" in refused(root, "D")


def test_the_folder_may_itself_be_reached_by_a_link(root: Path) -> None:
    (root.parent / "way").symlink_to(root)
    with AllowedFolder(root.parent / "way").study("A") as images:
        assert isinstance(images, dict)


def test_all_series_of_a_dicom_folder_are_one_study(root: Path) -> None:
    for name in ("s1/a", "s2/b"):
        (root / "D" / name).parent.mkdir(parents=True)
        (root / "D" / name).write_bytes(DICOM)
    with AllowedFolder(root).study("D") as archive:
        assert isinstance(archive, Path)
        assert archive.name == "study.zip"


def test_what_is_no_study_is_told_without_a_path(root: Path) -> None:
    (root / "empty").mkdir()
    assert "nothing there" in refused(root, "gone")
    assert "leads out" in refused(root, "nul\x00")
    for path in ("empty", "."):
        if path == ".":
            write_study(root / "C", "C")
        with pytest.raises(StudyError) as caught, AllowedFolder(root).study(path):
            pass
        assert str(root) not in str(caught.value)
