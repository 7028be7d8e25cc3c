"""Which studies a folder or a prefix holds, and what a listing tells of them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from model_core.errors import OptionError, StudyError
from model_core.types import CONTRASTS
from service.client.find import Found, find
from service.client.places import Folder, Place, Storage, open_place
from service.client.source import digests
from tests.service.client.conftest import write_study

DICOM = bytes(128) + b"DICM" + b"the rest"


@pytest.fixture(params=["folder", "storage"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Place, Path]]:
    """A place, and the folder whose content it gets by `filled`."""
    folder = tmp_path / "studies"
    folder.mkdir()
    if request.param == "folder":
        yield Folder(folder), folder
        return
    yield Storage("memory://bucket/studies"), folder
    fsspec.filesystem("memory").store.clear()


def filled(place: tuple[Place, Path]) -> Place:
    """The place with what lies in the folder beside it."""
    there, folder = place
    if isinstance(there, Storage):
        for path in folder.parent.rglob("*"):
            if path.is_file():
                relative = path.relative_to(folder.parent).as_posix()
                fsspec.filesystem("memory").pipe_file(f"/bucket/{relative}", path.read_bytes())
    return there


def looked(place: tuple[Place, Path]) -> Found:
    return find(filled(place), called="whole")


def write_scans(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(DICOM + name.encode())


def test_nifti_studies_are_found_as_the_local_command_finds_them(
    place: tuple[Place, Path],
) -> None:
    _, folder = place
    write_study(folder / "A", "A")
    write_study(folder, "B")
    found = looked(place)
    assert (sorted(found.studies), found.broken) == (["A", "B"], {})
    with found.studies["A"].opened() as files:
        content = {field: path.read_bytes().split(b" ")[:2] for field, path in files.items()}
    assert content == {contrast: [b"A", contrast.encode()] for contrast in CONTRASTS}


def test_the_order_of_nnunets_channels_is_that_of_its_file_above_the_images(
    tmp_path: Path, place: tuple[Place, Path]
) -> None:
    _, folder = place
    for number in range(4):
        (folder / f"A_000{number}.nii.gz").write_bytes(b"%d" % number)
    order = {"0": "FLAIR", "1": "T1w", "2": "T1gd", "3": "T2w"}
    (folder.parent / "dataset.json").write_text(json.dumps({"channel_names": order}))
    with looked(place).studies["A"].opened() as files:
        content = {field: path.read_bytes() for field, path in files.items()}
    assert content == {"flair": b"0", "t1": b"1", "t1ce": b"2", "t2": b"3"}


def test_dicom_studies_are_folders_and_archives_beside_the_others(
    place: tuple[Place, Path],
) -> None:
    _, folder = place
    write_study(folder / "A", "A")
    write_scans(folder / "DOE", "s1/b", "s1/a", "s2/c")
    (folder / "DOE" / "README").write_text("no image")
    (folder / "zipped.zip").write_bytes(b"PK\x03\x04")
    (folder / "notes").mkdir()
    (folder / "notes" / "x.txt").write_text("no study")
    found = looked(place)
    assert sorted(found.studies) == ["A", "DOE", "zipped"]
    with found.studies["zipped"].opened() as files:
        assert files["dicom"].read_bytes() == b"PK\x03\x04"
    with found.studies["DOE"].opened() as files, zipfile.ZipFile(files["dicom"]) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
        first = digests(files)
    assert members == {
        "000001": DICOM + b"s1/a", "000002": DICOM + b"s1/b", "000003": DICOM + b"s2/c",
    }  # fmt: skip
    with found.studies["DOE"].opened() as files:
        assert digests(files) == first, "equal studies make equal archives"


def test_a_place_of_dicom_files_is_one_study(place: tuple[Place, Path]) -> None:
    write_scans(place[1], "a", "b")
    assert list(looked(place).studies) == ["whole"]


def test_a_broken_study_is_named_and_harms_no_other(place: tuple[Place, Path]) -> None:
    _, folder = place
    for name in "ABC":
        write_study(folder / name, name)
    (folder / "B" / "B_t2.nii.gz").unlink()
    write_scans(folder / "D", "x")
    found = looked(place)
    assert sorted(found.studies) == ["A", "C", "D"]
    assert list(found.broken) == ["B"]
    assert found.broken["B"].startswith("t2: expected all of t1, t1ce, t2, flair")


def test_two_studies_of_one_name_are_neither_taken(place: tuple[Place, Path]) -> None:
    _, folder = place
    write_study(folder / "A", "A")
    write_study(folder / "B", "B")
    (folder / "A.zip").write_bytes(b"PK")
    found = looked(place)
    assert (list(found.studies), list(found.broken)) == (["B"], ["A"])


def test_nothing_there_is_told(place: tuple[Place, Path]) -> None:
    (place[1] / "x.txt").write_text("x")
    with pytest.raises(StudyError, match="got none"):
        looked(place)


def test_an_unchanged_file_keeps_its_mark_and_a_changed_one_does_not(
    place: tuple[Place, Path],
) -> None:
    study = write_study(place[1] / "A", "A")
    write_study(place[1] / "B", "B")
    before = looked(place)
    same = find(place[0], called="whole")
    assert [same.studies[n].mark for n in "AB"] == [before.studies[n].mark for n in "AB"]
    study["t2"].write_bytes(b"another image altogether")
    after = looked(place)
    assert after.studies["A"].mark != before.studies["A"].mark


def test_keys_that_lead_out_of_a_folder_are_passed_over(tmp_path: Path) -> None:
    storage = fsspec.filesystem("memory")
    try:
        storage.store.clear()
        write_study(tmp_path / "A", "A")
        for path in (tmp_path / "A").iterdir():
            storage.pipe_file(f"/bucket/studies/A/{path.name}", path.read_bytes())
            storage.pipe_file(f"/bucket/studies/.hidden/{path.name}", b"x")
        storage.store["/bucket/studies/../../evil_t1.nii.gz"] = storage.store[
            f"/bucket/studies/A/{path.name}"
        ]
        names = set(Storage("memory://bucket/studies").files())
        assert names == {f"A/A_{contrast}.nii.gz" for contrast in CONTRASTS}
    finally:
        storage.store.clear()


def test_results_in_a_folder_appear_together_or_not_at_all(tmp_path: Path) -> None:
    place = Folder(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(OSError, match="b"):
        place.put({"b": b"in the way", "a": b"x"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]
    place.put({"a": b"x", "c/d": b"y"})
    assert (place.read("a"), place.read("c/d"), place.start("c/d", 0)) == (b"x", b"y", b"")


def test_storage_of_an_unknown_kind_is_refused_without_its_address() -> None:
    with pytest.raises(OptionError, match="segmamba-service") as caught:
        open_place("unheard-of://key:secret@bucket")
    assert "secret" not in str(caught.value)
