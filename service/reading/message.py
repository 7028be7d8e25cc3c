"""What a reading process says: lines of JSON, by one set of strict models for both ends.

The account is a file of lines. A line with a ``stage`` says what is worked on from now on; the last
line is the answer: a study, a refusal, or a failure. The parent believes nothing of it that these
models do not allow, and builds volumes through `model_core`'s own constructors afterwards.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Final, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from model_core import errors
from model_core.imaging.study import Study
from model_core.imaging.volume import NiftiFrame, Volume
from model_core.pipeline.images import Images
from model_core.provenance.digests import decoded_sha256, sha256_of
from model_core.types import CONTRASTS, Contrast

__all__ = [
    "ACCOUNT_BYTES",
    "Account",
    "Answer",
    "Failed",
    "Read",
    "Refused",
    "Stage",
    "StageNote",
    "VolumeSaid",
    "Written",
    "hear",
]

ACCOUNT_BYTES: Final = 2**20
"""A longer account is nonsense."""
Stage = Literal["start", "dicom", "t1", "t1ce", "t2", "flair", "study", "objects"]
"""What a reading process is at: the files of DICOM, one of the images, all of them together, or the
objects that are written for a result."""
Words = Annotated[str, Field(max_length=1000)]
Count = Annotated[int, Field(gt=0)]
Code = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Uid = Annotated[str, Field(pattern=r"^[0-9.]{1,64}(#[0-9]{1,6})?$")]
Kind = Literal["InputError", "ImageError", "StudyError", "OptionError", "MemoryLimitError"]
_KINDS: Final = get_args(Kind)


class _Said(BaseModel):
    """Strict, closed, and free to say NaN, as a header's unused numbers may be."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, ser_json_inf_nan="constants"
    )

    def line(self) -> bytes:
        """One line of an account."""
        return self.model_dump_json().encode() + b"\n"


class StageNote(_Said):
    """What the process works on from now on."""

    stage: Stage


class FrameSaid(_Said):
    """A `NiftiFrame`, with the length of everything in it."""

    version: Literal[1, 2]
    sform_code: Code
    qform_code: Code
    xyzt_units: Annotated[int, Field(ge=0, le=255)]
    srow: Annotated[tuple[float, ...], Field(min_length=12, max_length=12)] | None
    quaternion: tuple[float, float, float] | None
    qoffset: tuple[float, float, float] | None
    pixdim: tuple[float, float, float, float] | None


class VolumeSaid(_Said):
    """Everything about a volume but its voxels."""

    shape: tuple[Count, Count, Count]
    dtype: Literal["float32"]
    affine: Annotated[tuple[float, ...], Field(min_length=16, max_length=16)]
    header: FrameSaid | None
    warnings: Annotated[tuple[Words, ...], Field(max_length=20)]

    @classmethod
    def of(cls, volume: Volume) -> VolumeSaid:
        """Describe a volume."""
        assert volume.array.dtype == np.float32  # as every volume that comes from a file
        return cls(
            shape=volume.shape,
            dtype="float32",
            affine=tuple(float(number) for number in volume.affine.flat),
            header=None if volume.header is None else FrameSaid(**asdict(volume.header)),
            warnings=volume.warnings,
        )

    @property
    def voxels(self) -> int:
        """How many voxels there are."""
        return math.prod(self.shape)

    def frame(self) -> NiftiFrame | None:
        """The header, as a volume carries it."""
        return None if self.header is None else NiftiFrame(**self.header.model_dump())


class FileSaid(_Said):
    """One file that was read."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class Read(_Said):
    """The study was read; its voxels lie in the files beside the account."""

    outcome: Literal["read"] = "read"
    volumes: dict[Contrast, VolumeSaid]
    reference: Contrast | None
    """Of one grid for all; None where every volume is on its own."""
    series: dict[Contrast, Uid]
    """The DICOM series that was taken for each contrast; empty for NIfTI."""
    files: dict[Contrast, Annotated[tuple[FileSaid, ...], Field(max_length=20_000)]]
    """The files of these series."""
    decoded: dict[Contrast, Sha256]
    """Checksum of each image as it was read (`model_core.provenance.digests`)."""
    warnings: Annotated[tuple[Words, ...], Field(max_length=100)]
    peak_mb: int

    @model_validator(mode="after")
    def _complete(self) -> Read:
        if set(self.volumes) != set(CONTRASTS):
            raise ValueError("not the four contrasts")
        return self

    @classmethod
    def of(cls, study: Study, images: Images | None = None, *, peak_mb: int) -> Read:
        """Describe a study, and the images it was made of where they know more.

        Its own volume is one of the four, as everywhere.
        """
        assert study.native is study.volumes[study.reference]
        return cls(
            volumes={contrast: VolumeSaid.of(study.volumes[contrast]) for contrast in CONTRASTS},
            reference=study.reference,
            series={} if images is None else _uids(images),
            files={} if images is None else _files(images),
            decoded={} if images is None else _decoded(images),
            warnings=study.warnings if images is None else (*images.warnings, *study.warnings),
            peak_mb=peak_mb,
        )

    @classmethod
    def apart(cls, images: Images, *, peak_mb: int) -> Read:
        """Describe images that are to be brought together elsewhere."""
        return cls(
            volumes={contrast: VolumeSaid.of(images.volumes[contrast]) for contrast in CONTRASTS},
            reference=None,
            series=_uids(images),
            files=_files(images),
            decoded=_decoded(images),
            warnings=images.warnings,
            peak_mb=peak_mb,
        )


def _uids(images: Images) -> dict[Contrast, str]:
    return {contrast: series.uid for contrast, series in images.series.items()}


def _files(images: Images) -> dict[Contrast, tuple[FileSaid, ...]]:
    return {
        contrast: tuple(
            FileSaid(sha256=sha256_of(path), bytes=path.stat().st_size) for path in series.files
        )
        for contrast, series in images.series.items()
    }


def _decoded(images: Images) -> dict[Contrast, str]:
    return {contrast: decoded_sha256(volume) for contrast, volume in images.volumes.items()}


class Written(_Said):
    """Documents were written, into the files beside the account, in their order."""

    outcome: Literal["written"] = "written"
    sizes: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=len(CONTRASTS))]
    peak_mb: int


class Refused(_Said):
    """The images were refused, in the four parts of every `InputError`."""

    outcome: Literal["refused"] = "refused"
    kind: Kind
    argument: Words
    expected: Words
    got: Words
    way_out: Words
    peak_mb: int

    @classmethod
    def of(cls, error: errors.InputError, *, peak_mb: int) -> Refused:
        """Take an error down; a class that is not in the tree becomes its nearest parent there."""
        kind = next(base.__name__ for base in type(error).mro() if base.__name__ in _KINDS)
        return cls.model_validate(
            {
                "kind": kind,
                "argument": error.argument,
                "expected": error.expected,
                "got": error.got,
                "way_out": error.way_out,
                "peak_mb": peak_mb,
            }
        )

    def error(self) -> errors.InputError:
        """The same error, of the same class."""
        kind: type[errors.InputError] = getattr(errors, self.kind)
        return kind(self.argument, expected=self.expected, got=self.got, way_out=self.way_out)


class Failed(_Said):
    """The process could not go on, and could still say so."""

    outcome: Literal["failed"] = "failed"
    cause: Literal["memory", "crash"]
    exception: Annotated[str, Field(max_length=100, pattern="^[A-Za-z_][A-Za-z0-9_]*$")]


Answer = Read | Written | Refused | Failed
"""The last word of a process."""


class _Line(_Said):
    """Any line."""

    said: Annotated[Answer, Field(discriminator="outcome")] | StageNote


@dataclass(frozen=True)
class Account:
    """What the parent understood.

    Args:
        stage: what the process was at last.
        answer: its last word; None where there is none, or none that makes sense.
    """

    stage: Stage
    answer: Answer | None


def hear(account: bytes) -> Account:
    """Understand an account, whatever its bytes are."""
    stage: Stage = "start"
    answer: Answer | None = None
    if len(account) > ACCOUNT_BYTES:
        return Account(stage, None)
    for line in account.splitlines():
        try:
            said = _Line.model_validate_json(b'{"said":' + line + b"}").said
        except (ValidationError, ValueError):
            return Account(stage, None)
        if answer is not None:  # nothing comes after an answer
            return Account(stage, None)
        if isinstance(said, StageNote):
            stage = said.stage
        else:
            answer = said
    return Account(stage, answer)
