"""The parts of the OpenAPI document that FastAPI cannot derive, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from model_core.pipeline.files import MEDIA_TYPES
from service.problems import (
    HTTP_KINDS,
    INTERNAL,
    PROBLEM_MEDIA_TYPE,
    PROBLEM_TABLE,
    WORKER_LOST,
    ProblemKind,
)
from service.schemas import JobAnswer, Problem, SegmentationAnswer

AT_EVERY_GUARDED_DOOR: Final = (
    "unauthenticated",
    "forbidden",
    "rate-limited",
    "auth-unavailable",
    "database",
)
OF_AN_UPLOAD: Final = (
    "malformed-upload",
    "upload-timeout",
    "upload-too-large",
    "unsupported-media-type",
    "option",
    "input",
    "queue-full",
    "too-many-jobs",
    "storage-full",
    "storage-quota",
    "shutting-down",
)
"""Causes why what was sent is not looked at."""
OF_AN_ARCHIVE: Final = ("archive", "archive-unreachable", "study-not-found", "study-too-large")
"""Causes why a study cannot be fetched."""
OF_A_STUDY: Final = (*OF_AN_UPLOAD, *OF_AN_ARCHIVE, "idempotency-key", "storage")
"""Causes why a study is not taken."""
OF_A_RUN: Final = (
    "image",
    "study",
    "shape",
    "numerical",
    "model",
    "backend",
    "internal",
    "worker-lost",
    "cancelled",
    "out-of-memory",
    "storage-full",
)
"""Causes why a job fails."""

_DETAILS: Final[dict[str, dict[str, str]]] = {
    "image": {
        "detail": "t1ce: expected a NIfTI image, got bytes that are none. Send a .nii.gz file.",
        "field": "t1ce",
        "expected": "a NIfTI image",
        "got": "bytes that are none",
        "way_out": "Send a .nii.gz file.",
    },
    "option": {
        "detail": "tta: expected one of none, fast, full, got another value. Leave it out.",
        "field": "tta",
        "expected": "one of none, fast, full",
        "got": "another value",
        "way_out": "Leave it out.",
    },
    "upload-too-large": {
        "detail": "flair: expected at most 128 MiB, got more. Compress the image (.nii.gz).",
        "field": "flair",
        "expected": "at most 128 MiB",
        "got": "more",
        "way_out": "Compress the image (.nii.gz).",
    },
}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, with our components and without its validation errors."""
    built = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
    )
    _, ours = models_json_schema(
        [(Problem, "serialization"), (SegmentationAnswer, "serialization")],
        ref_template="#/components/schemas/{model}",
    )
    schemas = built.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(ours["$defs"])
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for method, operation in _operations(built):
        _as_openapi_3_1(operation)
        _say_common_refusals(method, operation)
    return built


def _as_openapi_3_1(operation: dict[str, Any]) -> None:
    """FastAPI describes streams of events in the words of OpenAPI 3.2 under the name of 3.1."""
    for response in operation["responses"].values():
        stream = response.get("content", {}).get("text/event-stream")
        if stream is not None:
            stream["schema"] = stream.pop("itemSchema")


def _say_common_refusals(method: str, operation: dict[str, Any]) -> None:
    """Add what the doors of operations answer, in place of FastAPI's own validation error."""
    responses = operation["responses"]
    _merge(responses, problems("foreign-host", *([] if method == "get" else ["foreign-origin"])))
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    if any(parameter["in"] == "query" for parameter in operation.get("parameters", ())):
        _merge(responses, problems("option"))
    if "security" in operation:
        _merge(responses, problems(*AT_EVERY_GUARDED_DOOR))


def _merge(responses: dict[str, Any], more: Mapping[int | str, dict[str, Any]]) -> None:
    for status, response in more.items():
        known = responses.setdefault(str(status), response)
        examples = response["content"][PROBLEM_MEDIA_TYPE]["examples"]
        known["content"][PROBLEM_MEDIA_TYPE]["examples"] |= examples


def _operations(built: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for operations in built["paths"].values():
        yield from operations.items()


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def kinds_by_cause() -> dict[str, ProblemKind]:
    """Every kind of problem that the service answers with, by cause."""
    kinds = (*PROBLEM_TABLE.values(), *HTTP_KINDS.values(), WORKER_LOST, INTERNAL)
    return {kind.cause: kind for kind in kinds}


def problems(*causes: str) -> dict[int | str, dict[str, Any]]:
    """Response objects for some kinds of problems, each with its example, by status."""
    responses: dict[int | str, dict[str, Any]] = {}
    for cause in causes:
        kind = kinds_by_cause()[cause]
        response = responses.setdefault(
            kind.status,
            {
                "description": kind.title,
                "content": {PROBLEM_MEDIA_TYPE: {"schema": _reference(Problem), "examples": {}}},
            },
        )
        response["content"][PROBLEM_MEDIA_TYPE]["examples"][cause] = {"value": _example(kind)}
        if kind.status in (409, 429, 503, 507):
            response["headers"] = {
                "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."}
            }
    return responses


def _example(kind: ProblemKind) -> dict[str, Any]:
    return {
        "type": kind.type,
        "title": kind.title,
        "status": kind.status,
        "detail": kind.title + ".",
        "request_id": "0f8fad5bd9cb469fa165708928ac1bff",
        **_DETAILS.get(kind.cause, {}),
    }


SEGMENTATION_EXAMPLE: Final[dict[str, Any]] = {
    "schema_version": 1,
    "model": "segmamba-small",
    "model_version": "1.0.0",
    "weights_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "backend": "native",
    "device": "cpu",
    "precision": "bfloat16",
    "window": {"choice": "card", "shape": [128, 128, 128]},
    "label_scheme": "brats2021",
    "tta": {"mode": "none", "passes": 1, "averaged": "logits"},
    "labels": [
        {"value": 0, "name": "background", "meaning": "no tumour"},
        {"value": 1, "name": "NCR", "meaning": "necrotic and non-enhancing tumour core"},
        {"value": 2, "name": "ED", "meaning": "peritumoural oedema and infiltrated tissue"},
        {"value": 4, "name": "ET", "meaning": "enhancing tumour"},
    ],
    "volumes_ml": {"NCR": 4.1, "ED": 61.7, "ET": 18.2, "WT": 84.0, "TC": 22.3},
    "stage_seconds": {"read": 0.8, "queue": 0.0, "prepare": 0.6, "infer": 21.4, "encode": 0.2},
    "windows": {
        "count": 8,
        "mean_seconds": 2.6,
        "min_seconds": 2.5,
        "max_seconds": 2.9,
    },
    "postprocess": [],
    "memory_steps": [],
    "warnings": [],
    "software": {"segmamba-service": "1.0.0", "torch": "2.13.0", "numpy": "2.4.6"},
    "label_map": {
        "filename": "segmentation_brats2021.nii.gz",
        "media_type": "application/gzip",
        "encoding": "base64",
        "data": "H4sIAAAAAAAC/w==",
    },
}

_TEXT_HEADERS: Final = {
    "X-Segmamba-Model": "Name of the model that ran.",
    "X-Segmamba-Model-Version": "Its version.",
    "X-Segmamba-Weights-SHA256": "SHA-256 of its weights file.",
    "X-Segmamba-Backend": "The scan backend that really ran.",
    "X-Segmamba-Device": "The device that ran it.",
    "X-Segmamba-Precision": "Arithmetic of its convolutions: float32 or bfloat16.",
    "X-Segmamba-Window": "JSON object: whose window was taken (card or whole) and its voxels.",
    "X-Segmamba-Label-Scheme": "brats2021 (ET is 4) or brats2023 (ET is 3).",
    "X-Segmamba-Volumes-ML": "JSON object: millilitres of NCR, ED, ET, WT and TC.",
    "X-Segmamba-Timings": "JSON object: seconds per stage.",
    "X-Segmamba-TTA": "JSON object: mode, passes, and what was averaged.",
    "X-Segmamba-Quality": "JSON array of severity:code, present if quality checks raised flags.",
    "X-Segmamba-Push": "JSON object, present if results were pushed: the archive and the counts.",
    "X-Segmamba-Warnings": "JSON array, present if there are warnings about the images.",
    "Content-Disposition": "A file name that says the label scheme and nothing of the upload.",
}

LOCATION: Final = {"Location": {"schema": {"type": "string"}, "description": "Address of the job."}}

SEGMENT_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The label map on the chosen image's grid, with the run's figures.",
        "headers": {
            name: {"schema": {"type": "string"}, "description": text}
            for name, text in _TEXT_HEADERS.items()
        },
        "content": {
            "application/gzip": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {
                "schema": _reference(SegmentationAnswer),
                "example": SEGMENTATION_EXAMPLE,
            },
            "application/zip": {"schema": {"type": "string", "format": "binary"}},
            "application/dicom": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    202: {
        "description": "With `Prefer: respond-async`: the job.",
        "headers": LOCATION,
        "content": {"application/json": {"schema": _reference(JobAnswer)}},
    },
    **problems("not-acceptable", *OF_A_STUDY, *OF_A_RUN),
}

_BYTES: Final = {"type": "string", "format": "binary"}
FILE_RESPONSE: Final[dict[str, Any]] = {
    "description": "The file.",
    "content": {
        kind: {"schema": {"type": "object"} if kind == "application/json" else _BYTES}
        for kind in sorted(set(MEDIA_TYPES.values()))
    },
}
INSPECT_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Every series with its contrast, confidence and reason; the study's state.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    },
    **problems(*OF_AN_UPLOAD, *OF_AN_ARCHIVE, "image", "study"),
}
