"""The forms of requests in the OpenAPI document, which FastAPI cannot derive, as data."""

from __future__ import annotations

from typing import Any, Final

from model_core.types import CONTRASTS, LABEL_SCHEMES, TTA_MODES, WINDOW_CHOICES
from service.jobs.records import PRIORITIES
from service.study_options import PREPROCESS, SEG_TYPES, SERIES_UID

_STUDY_FIELDS: Final[dict[str, Any]] = {
    **{
        contrast: {
            "type": "string",
            "format": "binary",
            "description": f"The {contrast} image, .nii or .nii.gz.",
        }
        for contrast in CONTRASTS
    },
    "dicom": {
        "type": "string",
        "format": "binary",
        "description": "DICOM files of one study: one zip archive, or the field repeated.",
    },
    "dicomweb": {
        "type": "string",
        "description": "A configured archive that the study is fetched from.",
    },
    "study_uid": {
        "type": "string",
        "pattern": "^[0-9.]{1,64}$",
        "description": "StudyInstanceUID there.",
    },
    **{
        f"series_{contrast}": {
            "type": "string",
            "pattern": SERIES_UID.pattern,
            "description": f"The DICOM series to take as {contrast}, a uid from POST /inspect.",
        }
        for contrast in CONTRASTS
    },
}
INSPECT_REQUEST: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": _STUDY_FIELDS,
                }
            }
        },
    }
}
SEGMENT_REQUEST: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "oneOf": [
                        {"required": list(CONTRASTS)},
                        {"required": ["dicom"]},
                        {"required": ["dicomweb", "study_uid"]},
                    ],
                    "additionalProperties": False,
                    "properties": {
                        **_STUDY_FIELDS,
                        "preprocess": {
                            "type": "string",
                            "enum": list(PREPROCESS),
                            "description": "auto: register, resample and strip the skull where the "
                            "images need it (the default for DICOM); none: take them as they are "
                            "(the default for NIfTI); full: every step.",
                        },
                        "grid": {
                            "type": "string",
                            "enum": list(CONTRASTS),
                            "description": "The contrast on whose own grid the label map is "
                            "wanted: t1 for NIfTI and t1ce for DICOM, if not said.",
                        },
                        "n4": {
                            "type": "string",
                            "enum": ["true", "false"],
                            "description": "true: correct bias fields first.",
                        },
                        "seg_type": {
                            "type": "string",
                            "enum": list(SEG_TYPES),
                            "description": "How a DICOM SEG stores its voxels.",
                        },
                        "images": {
                            "type": "string",
                            "enum": ["true", "false"],
                            "description": "true: keep the four contrasts on the grid of the label "
                            "map among the job's files, and where mirrored passes ran, the share "
                            "of them that disagrees.",
                        },
                        "push": {
                            "type": "string",
                            "description": "A configured archive that SEG and SR are pushed to.",
                        },
                        "model": {"type": "string", "description": "A name from GET /models."},
                        "tta": {"type": "string", "enum": list(TTA_MODES)},
                        "label_scheme": {"type": "string", "enum": list(LABEL_SCHEMES)},
                        "postprocess": {"type": "string", "enum": ["true", "false"]},
                        "window": {"type": "string", "enum": list(WINDOW_CHOICES)},
                        "allow_fewer_passes": {
                            "type": "string",
                            "enum": ["true", "false"],
                            "description": "true: where memory runs out, mirrored passes may be "
                            "left out, which gives another result.",
                        },
                        "priority": {"type": "string", "enum": list(PRIORITIES)},
                        "batch": {
                            "type": "string",
                            "pattern": "^[A-Za-z0-9_-]{1,64}$",
                            "description": "A token that joins jobs into a batch.",
                        },
                        "cache": {
                            "type": "string",
                            "enum": ["true", "false"],
                            "description": "false: compute anew what has been computed before.",
                        },
                    },
                },
            }
        },
    },
    "parameters": [
        {
            "name": "Accept",
            "in": "header",
            "required": False,
            "schema": {
                "type": "string",
                "examples": [
                    "application/gzip",
                    "application/json",
                    "application/zip",
                    "application/dicom",
                ],
            },
            "description": "application/gzip (the default), application/json, application/zip "
            "(all files of the run) or application/dicom (a SEG, where the study came as DICOM).",
        },
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
            "description": "The same key again is the same job again.",
        },
    ],
}
