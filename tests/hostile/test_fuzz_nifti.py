"""Bytes of good images, changed at random: an `InputError` or a valid volume, and nothing else."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.one_input import read_one
from tests.model_core.imaging.builders import nifti_bytes, oblique_affine, random_image

SHAPE = (8, 9, 10)
DTYPES = ("u1", "i2", "f4", "f8", "i8")
RAW = {
    (dtype, version, order): nifti_bytes(
        random_image(SHAPE).astype(dtype), oblique_affine(), version=version, endianness=order,
        compress=False,
    )
    for dtype in DTYPES for version in (1, 2) for order in "<>"
}  # fmt: skip
PACKED = [gzip.compress(raw, level, mtime=0) for raw in RAW.values() for level in (0, 6)]
NUMBERS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, 3.4e38, 1e300, np.inf, -np.inf, np.nan)
WHOLE = (0, 1, -1, 2, 7, 127, 255, 256, 348, 352, 540, 1024, 32767, -32768, 2**31 - 1, -(2**31))

some = st.integers(0, 2**31)
byte_changes = st.lists(st.tuples(some, st.integers(0, 255)), min_size=1, max_size=8)
telling_values = st.one_of(
    st.tuples(st.sampled_from("fd"), st.sampled_from(NUMBERS)),
    st.tuples(st.sampled_from("hiq"), st.sampled_from(WHOLE)),
)
field_changes = st.lists(st.tuples(some, telling_values), max_size=4)
spans = st.lists(st.tuples(some, some, st.sampled_from("drz")), max_size=3)


def packed_value(order: str, kind: str, value: float) -> bytes:
    try:
        return struct.pack(order + kind, value)
    except (OverflowError, struct.error):  # too large for this width
        return b"\xff" * struct.calcsize(kind)


def spoil_header(key: Any, bytes_at: Any, fields_at: Any, cut: int) -> bytes:
    data = bytearray(RAW[key])
    header = 348 if key[1] == 1 else 540
    for place, (kind, value) in fields_at:
        piece = packed_value(key[2], kind, value)
        place = place % (header // 2) * 2
        data[place : place + len(piece)] = piece
    for place, value in bytes_at:
        data[place % (header + 8)] = value
    return bytes(data[: len(data) - cut])


def spoil_stream(data: bytes, bytes_at: Any, cuts: Any) -> bytes:
    """Change bytes, then delete, repeat or blank a few spans."""
    changed = bytearray(data)
    for place, value in bytes_at:
        changed[place % len(changed)] = value
    for start, length, what in cuts:
        start %= len(changed) + 1
        span = changed[start : start + length % 200]
        new = {"d": b"", "r": span * 3, "z": bytes(len(span))}[what]
        changed[start : start + len(span)] = new
    return bytes(changed)


def rounds(count: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


headers = given(
    st.sampled_from(sorted(RAW)), byte_changes | st.just([]), field_changes,
    st.sampled_from([0] * 5 + [1, 100, 5000]), st.booleans(),
)  # fmt: skip
streams = given(st.sampled_from(PACKED), byte_changes | st.just([]), spans)


def check_header(key: Any, bytes_at: Any, fields_at: Any, cut: int, compress: bool) -> None:
    data = spoil_header(key, bytes_at, fields_at, cut)
    read_one(gzip.compress(data, 1) if compress else data)


def check_stream(data: bytes, bytes_at: Any, cuts: Any) -> None:
    read_one(spoil_stream(data, bytes_at, cuts))


def test_the_unspoilt_images_are_accepted() -> None:
    assert all(read_one(data) for data in (*RAW.values(), *PACKED))


test_spoilt_headers = rounds(200)(headers(check_header))
test_spoilt_streams = rounds(200)(streams(check_stream))
test_many_spoilt_headers = pytest.mark.slow(rounds(5_000)(headers(check_header)))
test_many_spoilt_streams = pytest.mark.slow(rounds(5_000)(streams(check_stream)))


@pytest.mark.slow
def test_a_fuzzer_that_watches_the_code_finds_nothing_in_some_seconds(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="needs the fuzzer: pip install segmamba-service[fuzz]")
    for number, data in enumerate((*RAW.values(), *PACKED)):
        (tmp_path / f"seed-{number}").write_bytes(data)
    script, root = Path(__file__).with_name("fuzz_nifti.py"), Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(script), "-max_total_time=10", "-timeout=10", "-rss_limit_mb=4096",
         "-print_final_stats=1", f"-artifact_prefix={tmp_path}/found-", str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(root), *sys.path))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.glob("found-*"))
    assert "stat::number_of_executed_units" in done.stderr
