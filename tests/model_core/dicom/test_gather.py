"""Folders, archives, files: what is DICOM comes out, what attacks is refused, nothing is left."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from model_core.dicom.gather import ArchiveLimits, gathered
from model_core.dicom.series import list_series
from model_core.dicom.volume import read_series
from model_core.errors import ImageError
from tests.dicom_series import geometry_affine, uid_of, write_series

SHAPE = (8, 9, 5)
IMAGE = np.random.default_rng(0).integers(0, 2000, SHAPE)


@pytest.fixture
def slices(tmp_path: Path) -> tuple[Path, ...]:
    return write_series(tmp_path / "series", IMAGE, geometry_affine(shape=SHAPE))


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    """A folder for what is unpacked; it must be empty again in the end."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    yield folder
    assert not list(folder.iterdir())


def write_directory(path: Path) -> Path:
    index = Dataset()
    index.file_meta = FileMetaDataset()
    index.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    index.file_meta.MediaStorageSOPInstanceUID = uid_of("directory")
    index.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    index.FileSetID = "TEST"
    index.save_as(path, enforce_file_format=True)
    return path


def pack(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def assert_refused(source: Path, words: str, workspace: Path, **limits: float) -> None:
    with (
        pytest.raises(ImageError, match=words) as caught,
        gathered(source, ArchiveLimits(**limits), workspace=workspace),  # type: ignore[arg-type]
    ):
        pass
    assert caught.value.argument == "dicom"
    assert str(source.parent) not in str(caught.value)


def test_a_folder_gives_its_dicom_files_at_any_depth_and_counts_the_rest(
    tmp_path: Path, slices: tuple[Path, ...]
) -> None:
    deep = tmp_path / "series" / "a" / "b"
    deep.mkdir(parents=True)
    slices[0].rename(deep / "no ending")
    (tmp_path / "series" / "readme.txt").write_text("hello")
    (tmp_path / "series" / "empty.dcm").touch()
    write_directory(tmp_path / "series" / "DICOMDIR")
    with gathered(tmp_path / "series") as files:
        assert set(files) == {deep / "no ending", *slices[1:]}
        assert files.left_out == 3


def test_links_and_pipes_in_a_folder_are_not_followed(
    tmp_path: Path, slices: tuple[Path, ...]
) -> None:
    folder = tmp_path / "handed over"
    folder.mkdir()
    slices[0].rename(folder / "own")
    (folder / "link to a file").symlink_to(slices[1])
    (folder / "link to a folder").symlink_to(slices[1].parent)
    (folder / "link to itself").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    with gathered(folder) as files:
        assert tuple(files) == (folder / "own",)
        assert files.left_out == 2  # a linked folder is no file


def test_files_one_by_one_are_taken_in_their_order(
    tmp_path: Path, slices: tuple[Path, ...]
) -> None:
    note = tmp_path / "note"
    note.write_text("no image")
    with gathered([*slices[::-1], note]) as files:
        assert tuple(files) == slices[::-1]
        assert files.left_out == 1
    with gathered(slices[0]) as files:
        assert tuple(files) == (slices[0],)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_gives_the_same_volume_and_is_gone_afterwards(
    tmp_path: Path, slices: tuple[Path, ...], workspace: Path, method: int
) -> None:
    members = {f"PATIENT NAME/{n}.dcm": path.read_bytes() for n, path in enumerate(slices)}
    members |= {"PATIENT NAME/": b"", "viewer.exe": b"MZ" + bytes(500), "DICOMDIR": b""}
    index = write_directory(tmp_path / "index").read_bytes()
    source = pack(tmp_path / "study.zip", {**members, "DICOMDIR": index}, method)
    with gathered(source, workspace=workspace) as files:
        assert [path.name for path in files] == [f"{n:06d}" for n in range(SHAPE[2])]
        assert files.left_out == 2
        private = files[0].parent
        assert private.stat().st_mode & 0o077 == 0
        (series,) = list_series(files)
        np.testing.assert_array_equal(read_series(series).array, IMAGE)
    assert not private.exists()


def test_an_archive_is_removed_when_the_work_on_it_fails(
    tmp_path: Path, slices: tuple[Path, ...], workspace: Path
) -> None:
    source = pack(tmp_path / "study.zip", {"a": slices[0].read_bytes()})
    with pytest.raises(ZeroDivisionError), gathered(source, workspace=workspace):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../up", "a/../../up", "..\\up", "C:\\windows", "\\\\host\\share"]
)
def test_a_name_that_leads_out_of_the_archive_is_refused(
    tmp_path: Path, slices: tuple[Path, ...], workspace: Path, name: str
) -> None:
    source = pack(tmp_path / "study.zip", {name: slices[0].read_bytes()})
    assert_refused(source, "leads out of the archive", workspace)


def link(content: bytes) -> tuple[zipfile.ZipInfo, bytes]:
    member = zipfile.ZipInfo("link")
    member.create_system, member.external_attr = 3, 0o120777 << 16
    return member, content


def test_a_link_in_an_archive_is_refused(tmp_path: Path, workspace: Path) -> None:
    source = tmp_path / "study.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr(*link(b"/etc/passwd"))
    assert_refused(source, "a link or a device", workspace)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_of_packing_are_refused(
    tmp_path: Path, slices: tuple[Path, ...], workspace: Path, method: int
) -> None:
    source = pack(tmp_path / "study.zip", {"a": slices[0].read_bytes()}, method)
    assert_refused(source, "stored or deflated", workspace)


def test_an_archive_in_an_archive_is_refused(
    tmp_path: Path, slices: tuple[Path, ...], workspace: Path
) -> None:
    inner = pack(tmp_path / "inner.zip", {"a": slices[0].read_bytes()}).read_bytes()
    source = pack(tmp_path / "outer.zip", {"one": slices[1].read_bytes(), "two.dcm": inner})
    assert_refused(source, "an archive in an archive", workspace)


def test_an_encrypted_member_is_refused(
    tmp_path: Path, slices: tuple[Path, ...], workspace: Path
) -> None:
    source = pack(tmp_path / "study.zip", {"a": slices[0].read_bytes()})
    data = bytearray(source.read_bytes())
    data[6] |= 1  # the flags of the member
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # and of its entry in the directory
    source.write_bytes(data)
    assert_refused(source, "encrypted", workspace)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"files": 4}, "too many"),
        ({"total_bytes": 3000}, "at most 3000 bytes"),
        ({"ratio": 1.0, "unsuspicious_bytes": 100}, "unpacks to at most"),
    ],
)
def test_each_limit_of_an_archive_holds(
    tmp_path: Path,
    slices: tuple[Path, ...],
    workspace: Path,
    limits: dict[str, float],
    words: str,
) -> None:
    members = {str(n): path.read_bytes() for n, path in enumerate(slices)}
    source = pack(tmp_path / "study.zip", members)
    assert_refused(source, words, workspace, **limits)


def test_a_bomb_is_refused_before_a_byte_of_it_is_written(tmp_path: Path, workspace: Path) -> None:
    bomb = bytes(128) + b"DICM" + bytes(100 * 2**20)
    source = pack(tmp_path / "bomb.zip", {"a": bomb})
    assert source.stat().st_size < 2**20
    assert_refused(source, "unpacks to at most", workspace)


def test_a_directory_that_claims_less_than_comes_out_is_refused(
    tmp_path: Path, slices: tuple[Path, ...], workspace: Path
) -> None:
    source = pack(tmp_path / "study.zip", {"a": slices[0].read_bytes()})
    data = bytearray(source.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 200)
    source.write_bytes(data)
    assert_refused(source, "damaged", workspace)


def test_members_that_share_their_bytes_are_refused(
    tmp_path: Path, slices: tuple[Path, ...], workspace: Path
) -> None:
    """The way of a bomb that is small because each of its members is the same one."""
    source = pack(tmp_path / "study.zip", {"a": slices[0].read_bytes()})
    data = source.read_bytes()
    entry, end = data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    directory = data[entry:end] * 50
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 50, 50, len(directory), entry, 0)
    source.write_bytes(data[:entry] + directory + tail)
    with zipfile.ZipFile(source) as archive:
        assert len(archive.infolist()) == 50
    assert_refused(source, "unpacks to at most", workspace)


def test_a_directory_longer_than_that_of_all_files_is_not_even_read(
    tmp_path: Path, slices: tuple[Path, ...], workspace: Path
) -> None:
    members = {f"{n:0200d}": b"" for n in range(6000)}
    source = pack(tmp_path / "study.zip", members)
    assert_refused(source, "too many", workspace, files=10)


@pytest.mark.parametrize("cut", [5, 100, 700, -1, -23])
def test_a_cut_archive_is_refused(
    tmp_path: Path, slices: tuple[Path, ...], workspace: Path, cut: int
) -> None:
    whole = pack(tmp_path / "study.zip", {"a": slices[0].read_bytes()}).read_bytes()
    source = tmp_path / "cut.zip"
    source.write_bytes(whole[:cut])
    assert_refused(source, "damaged|not there", workspace)


def test_a_flipped_byte_in_a_member_is_refused(
    tmp_path: Path, slices: tuple[Path, ...], workspace: Path
) -> None:
    source = pack(tmp_path / "study.zip", {"a": slices[0].read_bytes()})
    data = source.read_bytes()
    middle = len(data) // 2
    source.write_bytes(data[:middle] + bytes([data[middle] ^ 0x55]) + data[middle + 1 :])
    assert_refused(source, "damaged", workspace)


@pytest.mark.parametrize("kind", ["missing", "empty folder", "a note", "empty archive", "no files"])
def test_nothing_of_use_is_said_so(tmp_path: Path, workspace: Path, kind: str) -> None:
    source = tmp_path / "source"
    if kind == "empty folder":
        source.mkdir()
    elif kind == "a note":
        source.write_text("hello")
    elif kind == "empty archive":
        pack(source, {})
    words = "not there" if kind == "missing" else "DICOM files"
    handed_over = [] if kind == "no files" else source
    with pytest.raises(ImageError, match=words), gathered(handed_over, workspace=workspace):
        pass


def test_too_many_files_in_a_folder_are_refused(slices: tuple[Path, ...], workspace: Path) -> None:
    assert_refused(slices[0].parent, "at most 4 files", workspace, files=4)
    with (
        pytest.raises(ImageError, match="at most 4 files"),
        gathered(slices, ArchiveLimits(files=4)),
    ):
        pass
