"""Bytes of good DICOM files, changed at random: an `InputError` or a valid volume, nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.dicom_seeds import good_slices, seeds
from tests.hostile.one_dicom import read_files

KINDS = sorted(seeds())
NUMBERS = (b"0", b"-1", b"1e400", b"nan", b"1e39", b"-1e30", b"", b"\\", b"1\\2\\3", b"\xff\xff")
LENGTHS = (0, 1, 2, 7, 0xFE, 0xFFFE, 0xFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 2**31)
ITEM, END_OF_ITEM, END = (b"\xfe\xff" + code + b"\xe0" for code in (b"\0", b"\x0d", b"\xdd"))

some = st.integers(0, 2**31)
byte_changes = st.lists(st.tuples(some, st.integers(0, 255)), max_size=6)
span_changes = st.lists(
    st.tuples(
        some,
        some,
        st.sampled_from(NUMBERS)
        | st.sampled_from(LENGTHS).map(lambda length: length.to_bytes(4, "little"))
        | st.sampled_from((ITEM, END_OF_ITEM, END, b"SQ", b"UN", b"OB", b"DS", b"\0" * 8)),
        st.booleans(),
    ),
    max_size=4,
)


def spoilt(data: bytes, bytes_at: Any, spans: Any, cut: int) -> bytes:
    """Change bytes, put pieces over others or between them, cut the end off."""
    changed = bytearray(data)
    for place, value in bytes_at:
        changed[place % len(changed)] = value
    for place, length, piece, over in spans:
        place %= len(changed)
        gone = len(piece) if over else length % 12
        changed[place : place + gone] = piece
    return bytes(changed[: len(changed) - cut])


def rounds(count: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


files = given(
    st.sampled_from(KINDS), byte_changes, span_changes, st.sampled_from([0] * 6 + [1, 30, 150, 600])
)


def check_file(kind: str, bytes_at: Any, spans: Any, cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = spoilt(seeds()[kind], bytes_at, spans, cut)
        read_files([*good_slices()[:2], data], Path(folder))


def test_the_unspoilt_files_are_accepted(tmp_path: Path) -> None:
    for kind in KINDS:
        rest = () if kind == "enhanced" else good_slices()[:2]
        assert read_files([*rest, seeds()[kind]], tmp_path), kind


test_spoilt_files = rounds(150)(files(check_file))
test_many_spoilt_files = pytest.mark.slow(rounds(4_000)(files(check_file)))


@pytest.mark.slow
def test_a_fuzzer_that_watches_the_code_finds_nothing_in_some_seconds(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="needs the fuzzer: pip install segmamba-service[fuzz]")
    for number, data in enumerate(seeds().values()):
        (tmp_path / f"seed-{number}").write_bytes(data)
    script, root = Path(__file__).with_name("fuzz_dicom.py"), Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(script), "-max_total_time=10", "-timeout=10", "-rss_limit_mb=4096",
         "-print_final_stats=1", f"-artifact_prefix={tmp_path}/found-", str(tmp_path)],
        capture_output=True, text=True, timeout=180, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(root), *sys.path))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.glob("found-*"))
    assert "stat::number_of_executed_units" in done.stderr
