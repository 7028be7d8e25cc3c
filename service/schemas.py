"""Response bodies of the HTTP interface; their examples are checked against them by tests."""

from __future__ import annotations

from datetime import datetime
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
    job: str | None = Field(default=None, description="The job that failed with it, if one did.")


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


ModelState = Literal["ready", "available", "broken"]


class ModelVersion(BaseModel):
    """One installed version of a model."""

    version: str = Field(description="`NAME@VERSION` in the form option `model` takes just this.")
    state: ModelState = Field(
        description="ready: in memory; available: loaded when asked for; broken: cannot be loaded."
    )
    loaded: bool = Field(description="In the memory of a worker now.")
    memory_bytes: int | None = Field(description="Of its weights once loaded; null if unknown.")


class ModelEntry(BaseModel):
    """One installed model: its versions, and the card of the one that a request means."""

    name: str = Field(description="What the form option `model` takes.")
    default: bool = Field(description="Used when the form names no model.")
    loaded: bool = Field(description="In memory now; another one is loaded on first use.")
    version: str = Field(description="The newest that is not broken: what the name alone means.")
    state: ModelState = Field(description="Of this version.")
    memory_bytes: int | None = Field(description="Likewise.")
    versions: list[ModelVersion] = Field(description="All of them, the newest first.")
    card: dict[str, Any] = Field(description="The model card, as stored in the bundle.")


class ModelList(BaseModel):
    """Every model that this service can run."""

    default: str
    models: list[ModelEntry]


class JobProgress(BaseModel):
    """How far a job is: windows of the network, done and in all."""

    stage: str | None = Field(description="read, load, prepare, infer, restore, encode …")
    done: int
    total: int


class JobAnswer(BaseModel):
    """One job as it stands."""

    id: str = Field(description="Names the job in all addresses; says nothing about the study.")
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    position: int | None = Field(description="Place in the queue, the next one 1; else null.")
    eta_s: float | None = Field(
        description="Seconds until it ends, by the running times of the last jobs; null if it has."
    )
    progress: JobProgress
    attempts: int = Field(description="How often a worker has begun.")
    error: dict[str, Any] | None = Field(description="The problem that it failed with.")
    model: str
    model_version: str | None = Field(
        description="The version that computed the result; before that, the one that is meant to."
    )
    options: dict[str, Any] = Field(description="As asked for; null is the model card's default.")
    priority: Literal["high", "normal", "low"]
    batch: str | None
    cached: bool = Field(description="Answered from the result of an earlier, equal job.")
    created: datetime
    started: datetime | None
    ended: datetime | None
    links: dict[str, str]


class ResultFile(BaseModel):
    """One file of a result."""

    name: str
    media_type: str
    href: str = Field(description="Its address.")


class FileList(BaseModel):
    """The files of a result."""

    files: list[ResultFile]


class JobList(BaseModel):
    """A page of jobs, the newest first."""

    jobs: list[JobAnswer]
    next: str | None = Field(description="Address of the next page; null on the last one.")


class BatchAnswer(BaseModel):
    """The jobs of a batch, counted."""

    batch: str
    counts: dict[str, int] = Field(description="Jobs by state; states without any are left out.")
    done: bool = Field(description="None of them waits or runs.")


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
    memory_steps: list[str] = Field(
        [],
        description="What was done because memory ran out: smaller-batch, host-sums, card-window, "
        "fewer-passes, cpu.",
    )
    warnings: list[str]
    software: dict[str, str] = Field(description="Versions of what computed the result.")
    label_map: LabelMapPart
