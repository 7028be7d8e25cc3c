from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_core.errors import InputError
from service.dicom_parts import DicomSink

FILES = [b"first" * 100, b"", b"ab", b"second" * 50]


def sent(path: Path, parts: list[bytes], *, most: int = 10, step: int = 7) -> tuple[str, DicomSink]:
    sink = DicomSink(path, most=most)
    try:
        for part in parts:
            sink.begin()
            for at in range(0, len(part), step):
                sink.write(part[at : at + step])
        return sink.done(), sink
    except InputError:
        sink.discard()
        assert not path.exists()
        raise


def archive(*members: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        for number, member in enumerate(members):
            made.writestr(f"{number}.dcm", member)
    return packed.getvalue()


def test_files_become_members_in_their_order_with_numbers_for_names(tmp_path: Path) -> None:
    sent(tmp_path / "a", FILES)
    with zipfile.ZipFile(tmp_path / "a") as made:
        assert made.testzip() is None
        names = made.namelist()
        assert [made.read(name) for name in names] == [part for part in FILES if part]
        assert all(name.isdecimal() for name in names)
        assert {entry.compress_type for entry in made.infolist()} == {zipfile.ZIP_STORED}


def test_an_archive_is_kept_byte_by_byte(tmp_path: Path) -> None:
    whole = archive(b"one", b"two")
    digest, sink = sent(tmp_path / "a", [whole])
    assert (tmp_path / "a").read_bytes() == whole
    assert digest == hashlib.sha256(whole).hexdigest()
    assert sink.size == len(whole)


def test_the_order_of_files_changes_no_digest_and_their_bytes_do(tmp_path: Path) -> None:
    forth, _ = sent(tmp_path / "a", FILES)
    back, _ = sent(tmp_path / "b", FILES[::-1])
    other, _ = sent(tmp_path / "c", [*FILES[:-1], b"third"])
    assert forth == back != other


@given(
    parts=st.lists(st.binary(max_size=40).filter(lambda part: part[:2] != b"PK"), min_size=1),
    step=st.integers(1, 50),
)
def test_how_the_bytes_arrive_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], step: int
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    piecewise, _ = sent(folder / "a", parts, most=1000, step=step)
    at_once, _ = sent(folder / "b", parts, most=1000, step=1000)
    assert piecewise == at_once
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


@pytest.mark.parametrize("parts", [[archive(b"x"), b"file"], [b"file", archive(b"x")]])
def test_an_archive_beside_files_is_refused(tmp_path: Path, parts: list[bytes]) -> None:
    with pytest.raises(InputError, match="either one zip archive or DICOM files"):
        sent(tmp_path / "a", parts)


def test_more_files_than_allowed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at most 2 files"):
        sent(tmp_path / "a", [b"1", b"2", b"3"], most=2)


def test_what_is_discarded_after_its_end_is_gone_too(tmp_path: Path) -> None:
    _, sink = sent(tmp_path / "a", FILES)
    sink.discard()
    assert list(tmp_path.iterdir()) == []


def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    sink = DicomSink(tmp_path / "a", most=3)
    sink.begin()
    sink.write(b"some bytes")
    sink.discard()
    assert list(tmp_path.iterdir()) == []
