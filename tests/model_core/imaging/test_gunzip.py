from __future__ import annotations

import gzip
import tracemalloc

import pytest

from model_core.imaging.gunzip import MAX_MEMBERS, BrokenGzipError, GzipSource, open_bytes

TEXT = bytes(range(256)) * 1000


@pytest.mark.parametrize("piece", [1, 7, 348, 70_000, 1_000_000])
def test_pieces_of_any_size_add_up_to_the_whole(piece: int) -> None:
    for data in (gzip.compress(TEXT), TEXT):
        source = open_bytes(data)
        taken = bytearray()
        limit = max(piece, len(TEXT) // 300)
        while part := source.take(limit):
            assert len(part) <= limit
            taken += part
        assert taken == TEXT
        assert source.at_end()


def test_members_and_zero_padding_read_as_one_stream() -> None:
    data = gzip.compress(TEXT[:1000]) + gzip.compress(b"") + b"\0" * 100_000
    data += gzip.compress(TEXT[1000:]) + b"\0" * 512
    source = open_bytes(data)
    assert source.take(len(TEXT)) == TEXT
    assert source.at_end()


def test_more_data_than_taken_is_not_the_end() -> None:
    for data in (gzip.compress(TEXT), gzip.compress(TEXT[:10]) + gzip.compress(TEXT[10:]), TEXT):
        source = open_bytes(data)
        source.take(10)
        assert not source.at_end()


def test_every_cut_is_noticed() -> None:
    data = gzip.compress(TEXT[:300])
    for length in range(2, len(data)):
        with pytest.raises(BrokenGzipError):
            _read_all(data[:length], 300)


def test_a_changed_byte_is_noticed_or_harmless() -> None:
    data = gzip.compress(TEXT[:300])
    for position in range(10, len(data)):  # the ten bytes before are not covered by the checksum
        changed = bytearray(data)
        changed[position] ^= 0x41
        with pytest.raises(BrokenGzipError):
            _read_all(bytes(changed), 300)


def test_other_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(BrokenGzipError, match="followed"):
        _read_all(gzip.compress(TEXT) + b"more", len(TEXT))


def test_endless_empty_members_are_refused() -> None:
    with pytest.raises(BrokenGzipError, match="too many parts"):
        _read_all(gzip.compress(b"") * (MAX_MEMBERS + 10), 1)


def test_a_bomb_costs_no_more_memory_than_was_asked_for() -> None:
    bomb = gzip.compress(bytes(20_000_000))
    tracemalloc.start()
    source = GzipSource(bomb)
    source.take(1000)
    assert not source.at_end()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_what_deflate_cannot_pack_could_not_be_held() -> None:
    bomb = gzip.compress(bytes(1_000_000), 9)
    assert open_bytes(bomb).could_hold(1_000_000)
    assert not open_bytes(bomb).could_hold(2_000_000)
    assert open_bytes(b"abc").could_hold(3)
    assert not open_bytes(b"abc").could_hold(4)


def _read_all(data: bytes, count: int) -> None:
    source = GzipSource(data)
    if len(source.take(count)) < count or not source.at_end():
        raise BrokenGzipError("not what was packed")
