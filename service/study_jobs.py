"""From a form to a job: options checked, inputs kept, and the key under which a result is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from service.catalogue import WantedModel
from service.form import SegmentForm
from service.jobs.blobs import BlobStore, input_key
from service.jobs.records import NewJob
from service.study_options import (
    ReadingOptions,
    parse_batch,
    parse_priority,
    wants_known_result,
)
from service.tracing import carried

SPEC_VERSION: Final = 2
"""Raised when a worker of an older release could not do a newer job."""


def new_job(
    form: SegmentForm,
    *,
    owner: str,
    model: WantedModel,
    options: Mapping[str, Any],
    reading: ReadingOptions,
    software: str,
    push: str | None = None,
    idempotency_key: str | None = None,
) -> NewJob:
    """The job that a form asks for; its inputs are not kept yet.

    Args:
        form: the images in the spool.
        owner: the caller.
        model: an installed one; a worker may run another version, unless this one is exact.
        options: from `parse_options`.
        reading: from `parse_reading`.
        software: this release; another one may compute something else.
        push: the configured archive that the result goes to. Such a job is never answered by an
            earlier one: that would push nothing.
        idempotency_key: the caller's own.
    """
    upload = uuid4().hex
    study = {
        "version": SPEC_VERSION,
        "images": {name: image.sha256 for name, image in form.inputs.items()},
        "options": dict(options),
        "reading": reading.to_dict(),
    }
    spec = {
        "version": SPEC_VERSION,
        "model": model.name,
        "model_version": model.version,
        "exact": model.exact,
        "study": _digest(study),
        "options": dict(options),
        "reading": reading.to_dict(),
        "push": push,
        "upload": upload,
        "inputs": {name: input_key(upload, name) for name in form.inputs},
        "sent": {
            name: {"sha256": image.sha256, "bytes": image.size}
            for name, image in form.inputs.items()
        },
        **carried(),
    }
    known = wants_known_result(form.options) and push is None
    looked_up = known and model.digest is not None
    return NewJob(
        owner=owner,
        spec=spec,
        priority=parse_priority(form.options),
        batch=parse_batch(form.options),
        cache_key=known_as(spec, model.digest, software) if looked_up else None,
        idempotency_key=idempotency_key,
        fingerprint=_digest({**study, "model": model.asked, "push": push}),
        input_bytes=form.size,
    )


def known_as(spec: Mapping[str, Any], card: str | None, software: str) -> str:
    """The key under which a result is known: all that it depends on.

    Args:
        spec: of the job.
        card: digest of the card of the version that is meant, or that ran.
        software: the release, likewise.
    """
    return _digest({"study": spec["study"], "card": card, "software": software})


def keep_inputs(blobs: BlobStore, form: SegmentForm, new: NewJob) -> None:
    """Make the images durable, before a job speaks of them."""
    for name, image in form.inputs.items():
        blobs.keep(image.path, new.spec["inputs"][name])


def forget_inputs(blobs: BlobStore, spec: Mapping[str, Any]) -> None:
    """Delete the images of a job."""
    if upload := spec.get("upload"):
        blobs.delete(f"inputs/{upload}")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
