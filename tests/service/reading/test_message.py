from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_core import errors
from model_core.imaging.volume import NiftiFrame, Volume
from service.reading.message import (
    ACCOUNT_BYTES,
    Account,
    Failed,
    Read,
    Refused,
    StageNote,
    VolumeSaid,
    hear,
)
from tests.model_core.imaging.builders import BRATS_AFFINE, random_image, random_study

READ = Read.of(random_study(), peak_mb=50).line()
PARTS = {"expected": "this", "got": "that", "way_out": "Do something."}


def volume(header: NiftiFrame | None, affine: Any = BRATS_AFFINE) -> Volume:
    return Volume(random_image(), affine, header, ("one", "two"))


def changed(**changes: Any) -> bytes:
    """An account of a study whose T2 image is described otherwise."""
    said = json.loads(READ)
    said["volumes"]["t2"] |= changes
    return json.dumps(said).encode()


@pytest.mark.parametrize(
    "header",
    [
        None,
        NiftiFrame(),
        NiftiFrame(2, 4, -1, 10, (np.nan,) * 12, (-0.0, np.inf, 0.1), (1e38, -1, 0), (0, 1, 1, 1)),
    ],
)
def test_a_volume_is_said_to_the_last_digit(header: NiftiFrame | None) -> None:
    affine = BRATS_AFFINE + np.nextafter(0.1, 1)
    affine[3] = (0, 0, 0, 1)
    before = volume(header, affine)
    said = VolumeSaid.model_validate_json(VolumeSaid.of(before).line())
    assert repr(said.frame()) == repr(None if header is None else _floats(header))
    assert said.affine == tuple(affine.flat)
    assert said.shape == before.shape
    assert said.warnings == before.warnings


def _floats(header: NiftiFrame) -> NiftiFrame:
    names = ("srow", "quaternion", "qoffset", "pixdim")
    numbers = {name: getattr(header, name) for name in names}
    floats = {n: v and tuple(float(number) for number in v) for n, v in numbers.items()}
    return NiftiFrame(
        header.version, header.sform_code, header.qform_code, header.xyzt_units, **floats
    )


@pytest.mark.parametrize(
    "kind", ["InputError", "ImageError", "StudyError", "OptionError", "MemoryLimitError"]
)
def test_a_refusal_comes_back_as_it_was(kind: str) -> None:
    error = getattr(errors, kind)("t1ce", **PARTS)
    answer = hear(Refused.of(error, peak_mb=1).line()).answer
    assert isinstance(answer, Refused)
    assert type(answer.error()) is type(error)
    assert vars(answer.error()) == vars(error)


def test_a_refusal_of_another_class_comes_back_as_its_parent() -> None:
    class OddError(errors.ImageError):
        pass

    answer = hear(Refused.of(OddError("t2", **PARTS), peak_mb=1).line()).answer
    assert isinstance(answer, Refused)
    assert type(answer.error()) is errors.ImageError


def test_the_last_stage_and_the_answer_are_heard() -> None:
    stages = StageNote(stage="t1").line() + StageNote(stage="t2").line()
    failed = Failed(cause="memory", exception="MemoryError")
    assert hear(b"") == Account("start", None)
    assert hear(stages) == Account("t2", None)
    assert hear(stages + failed.line()) == Account("t2", failed)
    assert isinstance(hear(stages + READ).answer, Read)


@pytest.mark.parametrize(
    "account",
    [
        READ + READ,
        READ + StageNote(stage="t1").line(),
        READ[:-20],
        READ.ljust(ACCOUNT_BYTES + 1),
        b"null",
        b"[" * 60_000,
        b'{"stage": "dwi"}',
        b'{"outcome": "failed", "cause": "memory", "exception": "Jane Roe"}',
        Refused.of(errors.ImageError("t1", **PARTS), peak_mb=1).line().replace(b"ImageE", b"OSE"),
        changed(dtype="object"),
        changed(shape=[1, 2]),
        changed(shape=[9, 10, 0]),
        changed(shape=[9.0, 10, 11]),
        changed(shape=["9", 10, 11]),
        changed(affine=[1.0] * 15),
        changed(affine=[None] * 16),
        changed(header={}),
        changed(warnings=["long" * 300]),
        changed(warnings=["many"] * 100),
        changed(more=1),
        READ.replace(b'"flair":', b'"dwi":'),
    ],
)
def test_what_the_models_do_not_allow_is_no_answer(account: bytes) -> None:
    assert hear(account).answer is None


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(st.lists(st.tuples(st.integers(0, len(READ) - 1), st.binary(max_size=4)), max_size=6))
def test_whatever_the_bytes_are_hearing_them_raises_nothing(changes: Any) -> None:
    account = bytearray(READ)
    for position, piece in changes:
        account[position : position + 1] = piece
    hear(bytes(account))
