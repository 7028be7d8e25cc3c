"""Response bodies of the HTTP interface; their examples are checked against them by tests."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from model_core.types import LabelScheme


class Problem(BaseModel):
    """An error, as RFC 9457 shapes it, with the members that name the input at fault."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:segmamba:problem:image",
                    "title": "An image cannot be used",
                    "status": 422,
                    "detail": "t1ce: expected a NIfTI file, got an empty file. Send the image.",
                    "field": "t1ce",
                    "expected": "a NIfTI file",
                    "got": "an empty file",
                    "way_out": "Send the image.",
                    "request_id": "0f8fad5bd9cb469fa165708928ac1bff",
                }
            ]
        }
    )

    type: str = Field(description="Stable identifier of the kind of problem, a URN.")
    title: str = Field(description="The kind of problem in a few words.")
    status: int = Field(description="The HTTP status of this answer.")
    detail: str = Field(description="What happened this time, for a person to read.")
    field: str | None = Field(default=None, description="The form field or option at fault.")
    expected: str | None = Field(default=None, description="What would have been accepted.")
    got: str | None = Field(default=None, description="What came instead.")
    way_out: str | None = Field(default=None, description="What the caller can do about it.")
    request_id: str | None = Field(default=None, description="Ties the answer to the log.")


class Health(BaseModel):
    """The state of the process (live) or of the model (ready)."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "live"}]})

    status: Literal["live", "ready"]


class Pointer(BaseModel):
    """What answers here and where to read on."""

    name: str
    version: str
    openapi: str
    links: dict[str, str]


class ModelEntry(BaseModel):
    """One installed model: whether it is the default, whether it is in memory, and its card."""

    name: str = Field(description="What the form option `model` takes.")
    default: bool = Field(description="Used when the form names no model.")
    loaded: bool = Field(description="In memory now; another one is loaded on first use.")
    card: dict[str, Any] = Field(description="The model card, as stored in the bundle.")


class ModelList(BaseModel):
    """Every model that this service can run."""

    default: str
    models: list[ModelEntry]


class LabelMapPart(BaseModel):
    """The label map inside a JSON answer: a gzipped NIfTI-1 file in base64."""

    filename: str
    media_type: Literal["application/gzip"] = "application/gzip"
    encoding: Literal["base64"] = "base64"
    data: str = Field(description="RFC 4648 base64 of the .nii.gz file.")


class LabelRow(BaseModel):
    """One label as the file writes it."""

    value: int
    name: str
    meaning: str


class WindowSpread(BaseModel):
    """How long the sliding windows took, in seconds."""

    count: int
    mean_seconds: float
    min_seconds: float
    max_seconds: float


class WindowRecord(BaseModel):
    """The window that the network saw."""

    choice: Literal["card", "whole"] = Field(description="The card's, or one over the brain.")
    shape: list[int] = Field(description="Voxels along the axes of the model's orientation.")


class TtaRecord(BaseModel):
    """Test-time augmentation as it was done."""

    mode: str
    passes: int
    averaged: str


class SegmentationAnswer(BaseModel):
    """The run's report, the same one as the command line's ``--report``, with the label map."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())

    schema_version: int = Field(description="Raised when a member changes its meaning or goes.")
    model: str
    model_version: str
    weights_sha256: str
    backend: str = Field(description="The scan backend that really ran.")
    device: str
    precision: str = Field(description="Arithmetic of the convolutions: float32 or bfloat16.")
    window: WindowRecord
    tta: TtaRecord
    label_scheme: LabelScheme
    labels: list[LabelRow]
    volumes_ml: dict[str, float] = Field(description="Millilitres of NCR, ED, ET, WT and TC.")
    stage_seconds: dict[str, float] = Field(
        description="Seconds per stage, the service's own (read, queue, encode) among them."
    )
    windows: WindowSpread
    postprocess: list[dict[str, Any]] = Field(description="What each correction step changed.")
    warnings: list[str]
    software: dict[str, str] = Field(description="Versions of what computed the result.")
    label_map: LabelMapPart
