"""The account of one run, ``run.json``: what went in, what ran, how, and what came out.

Its fields are the schema, which `schema_text` writes as JSON Schema. A manifest holds checksums,
versions, options and measurements; no path, no name and nothing from an image's header.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from model_core.errors import InputError
from model_core.precision import Precision
from model_core.types import Contrast, LabelScheme, Tta, WindowChoice

SCHEMA_NAME: Final = "segmamba-run"
SCHEMA_VERSION: Final = 1
"""Raised when a field changes its meaning or goes; new fields do not raise it."""
LARGEST_BYTES: Final = 16 * 2**20
"""A study of thousands of DICOM files has a manifest of half a megabyte."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Utc = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


class _Record(BaseModel):
    # what a later release adds is passed over; what this one needs has to be there
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class FileRecord(_Record):
    """One file."""

    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class InputRecord(_Record):
    """One contrast."""

    files: tuple[FileRecord, ...]
    """Of one NIfTI file, or of every file of a DICOM series, sorted by checksum."""
    decoded_sha256: Sha256
    """Of the voxels and affine as they were read, before any preparation."""


class ModelRecord(_Record):
    """The network."""

    name: str
    version: str
    weights_sha256: Sha256
    card_sha256: Sha256


class CodeRecord(_Record):
    """This program."""

    version: str
    commit: str | None = None
    """Of the checkout, where it ran from one."""


class PreparationRecord(_Record):
    """What was asked for before the model's own preprocessing, and what was done."""

    mode: str
    onto: Contrast
    """The contrast on whose grid the result lies."""
    n4: bool
    skull_strip: str
    account: dict[str, JsonValue] | None = None
    """Steps, transforms, tools; None: nothing had to be done."""


class OptionsRecord(_Record):
    """What the caller asked for; None left the choice to the model's card."""

    tta: Tta | None = None
    label_scheme: LabelScheme | None = None
    postprocess: bool | None = None
    window: WindowChoice | None = None
    allow_fewer_passes: bool | None = None


class EngineRecord(_Record):
    """What really ran, and on what."""

    device: str
    backend: str
    precision: Precision
    threads: Annotated[int, Field(ge=1)]
    memory_limit_mb: int | None = None
    machine: str
    """Kind of processor and its instructions for vectors: other instructions, other rounding."""
    tta: dict[str, str | int]
    window_choice: WindowChoice
    window: tuple[int, ...]
    memory_steps: tuple[str, ...] = ()


class ResultRecord(_Record):
    """The label map."""

    file: FileRecord
    """The ``.nii.gz`` as it was encoded."""
    voxels_sha256: Sha256
    """Of the internal labels, whatever the file's numbering and compression."""
    label_scheme: LabelScheme
    volumes_ml: dict[str, float]


class RunManifest(_Record):
    """One run."""

    schema_name: Literal["segmamba-run"] = SCHEMA_NAME
    schema_version: Literal[1] = SCHEMA_VERSION
    started: Utc
    stage_seconds: dict[str, float]
    source: Literal["nifti", "dicom"]
    inputs: dict[Contrast, InputRecord]
    preparation: PreparationRecord
    model: ModelRecord
    code: CodeRecord
    packages: dict[str, str]
    options: OptionsRecord
    engine: EngineRecord
    result: ResultRecord
    statistics: dict[str, JsonValue] | None = None
    flags: tuple[dict[str, JsonValue], ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The text of ``run.json``."""
        return self.model_dump_json(indent=2) + "\n"


def read_manifest(source: Path | bytes) -> RunManifest:
    """Read a ``run.json``.

    Raises:
        InputError: it is not one, or of a version that this release does not know. The message
            repeats nothing of the file.
        OSError: the file cannot be read.
    """
    data = source if isinstance(source, bytes) else _bytes_of(source)
    if len(data) > LARGEST_BYTES:
        _refuse(f"a file of at most {LARGEST_BYTES} bytes", f"{len(data)}")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        _refuse("a JSON file", "something else")
    if not isinstance(content, dict) or content.get("schema_name") != SCHEMA_NAME:
        _refuse(f"a manifest with schema_name {SCHEMA_NAME}", "another JSON file")
    if content.get("schema_version") != SCHEMA_VERSION:
        _refuse(f"schema_version {SCHEMA_VERSION}", "another version", "Use the release it is of.")
    try:
        return RunManifest.model_validate_json(data)
    except ValidationError as error:
        _refuse("a complete manifest", f"faults in {_fields_at_fault(error)}")


def schema_text() -> str:
    """The JSON Schema of ``run.json``."""
    schema: dict[str, Any] = RunManifest.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2) + "\n"


def _bytes_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LARGEST_BYTES + 1)


def _fields_at_fault(error: ValidationError) -> str:
    """Names of top-level fields only: what lies deeper may be text of the file."""
    known = RunManifest.model_fields
    return ", ".join(sorted({str(one["loc"][0]) for one in error.errors()} & set(known))) or "it"


def _refuse(
    expected: str, got: str, way_out: str = "Hand over the run.json that a run wrote, unchanged."
) -> NoReturn:
    raise InputError("run.json", expected=expected, got=got, way_out=way_out)
