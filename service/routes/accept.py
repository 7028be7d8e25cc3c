"""From a request to a job: the way that ``POST /segment`` and ``POST /jobs`` share."""

from __future__ import annotations

import re
from typing import Final

from anyio import to_thread
from fastapi import Request

from model_core.errors import OptionError
from service.auth.audit import Act
from service.auth.guard import address_of, guard_of
from service.auth.principal import Principal
from service.dicomweb.servers import choose_server
from service.form import UploadLimits
from service.jobs.engine import Submitted
from service.jobs.records import Job
from service.observability import name_job
from service.routes.fetch import fetched
from service.state import Service
from service.study_jobs import new_job
from service.study_options import parse_options, parse_reading
from service.uploads import announced_bytes, polite_refusal, read_segment_form
from service.version import release

_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,128}")


async def accept_study(request: Request, service: Service, caller: Principal) -> Submitted:
    """Read a study from a request's form and make a job of it; durable before this returns."""
    limits = limits_of(service)
    async with polite_refusal(request, limits):
        key = _idempotency_key(request)
        await to_thread.run_sync(service.admit, caller, key)
        async with (
            service.room.held(announced_bytes(request, limits)),
            read_segment_form(request, limits, service.blobs.spooled) as sent,
            fetched(service, sent) as form,
        ):
            options = parse_options(form.options)
            reading = parse_reading(form.options, dicom=form.dicom is not None)
            push = _push_target(service, form.options.get("push"))
            model = await to_thread.run_sync(service.resolve, form.options.get("model") or None)
            new = new_job(
                form,
                owner=caller.id,
                model=model,
                options=options,
                reading=reading,
                software=release(),
                push=push,
                idempotency_key=key,
            )
            service.metrics.upload_bytes.observe(form.size)
            submitted = await to_thread.run_sync(service.submit, form, new, caller)
    name_job(submitted.job.id)
    if submitted.is_new:
        service.metrics.count_submitted(
            looked_up=new.cache_key is not None, found=submitted.job.cached
        )
    note(request, "submit", caller, submitted.job)
    return submitted


def note(request: Request, act: Act, caller: Principal, job: Job) -> None:
    """Write into the audit log what a caller did to a job."""
    guard_of(request).audit.note(act, caller, job=job.id, address=address_of(request))


def limits_of(service: Service) -> UploadLimits:
    """The caps on one upload."""
    settings = service.settings
    return UploadLimits(
        body_bytes=settings.max_upload_bytes,
        file_bytes=settings.max_file_bytes,
        seconds=settings.upload_seconds,
    )


def _push_target(service: Service, name: str | None) -> str | None:
    """The configured archive that a result is to go to."""
    return choose_server(service.archives, name).name if name else None


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise OptionError(
            "Idempotency-Key",
            expected="1 to 128 printable ASCII characters without spaces",
            got="something else",
            way_out="Use a random UUID, a new one for each new request.",
        )
    return key
