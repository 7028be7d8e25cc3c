"""Four images in, one label map out, while the caller waits.

The work is a job like any other; this route only waits for it. A caller who goes away cancels the
job, unless an idempotency key says that he may come back for it.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import Final

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from service.answers import RESULT_TYPES, result_answer
from service.errors import ShuttingDownError
from service.jobs.records import Job
from service.negotiation import choose_media_type
from service.openapi import SEGMENT_RESPONSES
from service.openapi_forms import SEGMENT_REQUEST
from service.routes.accept import accept_study, note
from service.routes.jobs import MaySubmit, answer_accepted
from service.state import Service, service_of

router = APIRouter(tags=["segmentation"])

_ASYNCHRONOUS: Final = re.compile(r"(^|[,;\s])respond-async([,;\s]|$)", re.IGNORECASE)
_DRAIN_LOOK_SECONDS: Final = 0.2


@router.post(
    "/segment",
    summary="Segment one study",
    response_class=Response,
    responses=SEGMENT_RESPONSES,
    openapi_extra=SEGMENT_REQUEST,
)
async def segment(request: Request, caller: MaySubmit) -> Response:
    """Segment a study: four NIfTI images, DICOM files, or a study in a configured archive.

    The label map lies on the own grid of the contrast that `grid` names: of `t1` for NIfTI images,
    which are taken as they are, and of `t1ce` for DICOM, which is prepared as far as it needs it.

    The answer is a gzipped NIfTI file with the run's figures in `X-Segmamba-*` headers, or, by
    `Accept`, the run's report with the file in base64 (`application/json`), all files of the run
    (`application/zip`) or a DICOM Segmentation (`application/dicom`). With `Prefer: respond-async`
    it is the job, as `POST /jobs` answers it.
    """
    service = service_of(request)
    media_type = choose_media_type(request.headers.get("accept"), RESULT_TYPES)
    submitted = await accept_study(request, service, caller)
    if _ASYNCHRONOUS.search(request.headers.get("prefer", "")):
        return await answer_accepted(service, submitted)
    job = await _ended(request, service, submitted.job, leave=submitted.is_new)
    answer = await to_thread.run_sync(result_answer, service, job, media_type)
    if answer.status_code == HTTPStatus.OK:
        note(request, "read-result", caller, job)
    return answer


async def _ended(request: Request, service: Service, job: Job, *, leave: bool) -> Job:
    """The job, once it has ended.

    Raises:
        ClientDisconnect: the caller went away; the job is cancelled if `leave` says so.
        ShuttingDownError: this process ends first; the job goes on.
    """
    latest = _Latest(job)
    waiting = asyncio.ensure_future(latest.follow(service))
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        while not waiting.done():
            await asyncio.wait(
                (waiting, gone), timeout=_DRAIN_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if gone.done() and not waiting.done():
                if leave and "idempotency-key" not in request.headers:
                    await to_thread.run_sync(service.cancel, job)
                raise ClientDisconnect
            # workers drain as well: what runs may end in time, what waits will not be begun
            if not waiting.done() and service.gives_up(latest.job):
                raise ShuttingDownError(
                    f"This process is shutting down; the study is safe as /jobs/{job.id}.",
                    retry_after=5,
                )
        await waiting
        return latest.job
    finally:
        waiting.cancel()
        gone.cancel()


class _Latest:
    """A job as it was last heard of."""

    def __init__(self, job: Job) -> None:
        self.job = job

    async def follow(self, service: Service) -> None:
        """Until the job has ended."""
        async for changed in service.watch.changes(self.job):
            self.job = changed


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
