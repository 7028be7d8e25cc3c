"""Jobs: made, listed, followed, cancelled, and their results fetched."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from model_core.pipeline.files import OBJECT_NAMES
from service.answers import RESULT_TYPES, file_answer, files_answer, job_answer, result_answer
from service.auth.guard import require
from service.auth.principal import Principal
from service.errors import UnknownResourceError
from service.jobs.engine import Submitted
from service.jobs.records import OPEN_STATES, Job, State
from service.negotiation import choose_media_type
from service.observability import name_job
from service.openapi import (
    FILE_RESPONSE,
    LOCATION,
    OF_A_RUN,
    OF_A_STUDY,
    SEGMENT_RESPONSES,
    problems,
)
from service.openapi_forms import SEGMENT_REQUEST
from service.routes.accept import accept_study, note
from service.schemas import BatchAnswer, FileList, JobAnswer, JobList
from service.state import Service, service_of
from service.study_options import BATCH

router = APIRouter(tags=["jobs"])

MaySubmit = Annotated[Principal, Depends(require("segment"))]
MayRead = Annotated[Principal, Depends(require("read"))]
_RETRY_MILLISECONDS: Final = 2000
_JOB: Final = re.compile("[0-9a-f]{32}")
_LARGEST_NUMBER: Final = 2**63 - 1
"""Of a job, as the databases count."""


async def found_job(request: Request, job_id: str, caller: MayRead) -> Job:
    """The caller's job of that id, before the answer begins."""
    service = service_of(request)
    if not _JOB.fullmatch(job_id):  # not every database takes every text
        raise _unknown()
    job = await to_thread.run_sync(service.engine.get, job_id, caller.visible_owner)
    if job is None:
        raise _unknown()
    name_job(job.id)
    return job


async def batch_token(batch: str) -> str:
    """The name of a batch, if it can be one."""
    if not BATCH.fullmatch(batch):
        raise _unknown()
    return batch


async def file_name(name: str) -> str:
    """The name of a file that runs leave."""
    if name not in OBJECT_NAMES:
        raise UnknownResourceError(f"A run leaves {', '.join(OBJECT_NAMES)}, and nothing else.")
    return name


FileName = Annotated[str, Depends(file_name)]
Found = Annotated[Job, Depends(found_job)]
Batch = Annotated[str, Depends(batch_token)]


@router.post(
    "/jobs",
    summary="Submit one study",
    status_code=202,
    response_model=JobAnswer,
    responses={
        200: {"model": JobAnswer, "description": "An earlier request has made it already."},
        202: {"headers": LOCATION},
        **problems(*OF_A_STUDY),
    },
    openapi_extra=SEGMENT_REQUEST,
)
async def submit(request: Request, caller: MaySubmit) -> Response:
    """Take the form of `POST /segment`, and answer as soon as the study is safe."""
    service = service_of(request)
    return await answer_accepted(service, await accept_study(request, service, caller))


async def answer_accepted(service: Service, submitted: Submitted) -> Response:
    """202 with the job and its address; 200 where an earlier request has made it already."""
    answer = await to_thread.run_sync(job_answer, service, submitted.job)
    return JSONResponse(
        answer.model_dump(mode="json"),
        status_code=202 if submitted.is_new else 200,
        headers={"Location": answer.links["self"], "Cache-Control": "no-store"},
    )


@router.get("/jobs", summary="Jobs of the caller")
def list_jobs(
    request: Request,
    caller: MayRead,
    state: State | None = None,
    batch: Annotated[str | None, Query(pattern=BATCH.pattern)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    before: Annotated[int | None, Query(ge=1, le=_LARGEST_NUMBER)] = None,
) -> JobList:
    """The newest first; `next` is the address of the following page."""
    service = service_of(request)
    found = service.engine.list(
        caller.visible_owner, state=state, batch=batch, before=before, limit=limit
    )
    more = None
    if len(found) == limit:
        asked: dict[str, Any] = {"state": state, "batch": batch, "limit": limit}
        asked["before"] = found[-1].number
        more = "/jobs?" + "&".join(f"{name}={value}" for name, value in asked.items() if value)
    return JobList(jobs=[job_answer(service, job) for job in found], next=more)


@router.get("/jobs/{job_id}", summary="One job", responses=problems("not-found"))
def show_job(request: Request, job: Found) -> JobAnswer:
    """Its state, place in the queue, progress and estimate."""
    return job_answer(service_of(request), job)


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow one job",
    response_class=EventSourceResponse,
    responses=problems("not-found"),
)
async def follow_job(request: Request, job: Found) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: the job now and after every change, until it has ended.

    Each event's `id` is the job's revision; `Last-Event-ID` leaves out what is known already.
    """
    service = service_of(request)
    last = request.headers.get("last-event-id", "")
    known = int(last) if last.isdecimal() and len(last) < 10 else -1
    async for changed in _until_drained(service, job):
        if changed.revision > known or (changed.revision == known and not changed.open):
            answer = await to_thread.run_sync(job_answer, service, changed)
            yield ServerSentEvent(
                data=answer.model_dump(mode="json"),
                event="job",
                id=str(changed.revision),
                retry=_RETRY_MILLISECONDS,
            )


@router.get(
    "/jobs/{job_id}/result",
    summary="The result of one job",
    response_class=Response,
    responses={
        200: SEGMENT_RESPONSES[200],
        **problems("not-found", "not-finished", "gone", "not-acceptable", "storage", *OF_A_RUN),
    },
)
def fetch_result(request: Request, job: Found, caller: MayRead) -> Response:
    """The label map or the report, as `POST /segment` answers it; the problem if it failed."""
    service = service_of(request)
    media_type = choose_media_type(request.headers.get("accept"), RESULT_TYPES)
    answer = result_answer(service, job, media_type)
    note(request, "read-result", caller, job)
    return answer


@router.get(
    "/jobs/{job_id}/files",
    summary="The files of the result",
    response_model=FileList,
    responses=problems("not-found", "not-finished", "gone", "storage", *OF_A_RUN),
)
def list_files(request: Request, job: Found) -> Response:
    """What the run left: label map, report, figures, manifest, and objects of DICOM."""
    return files_answer(service_of(request), job)


@router.get(
    "/jobs/{job_id}/files/{name}",
    summary="One file of the result",
    response_class=Response,
    responses={
        200: FILE_RESPONSE,
        **problems("not-found", "not-finished", "gone", "storage", *OF_A_RUN),
    },
)
def fetch_file(request: Request, job: Found, caller: MayRead, name: FileName) -> Response:
    """The label map, a DICOM object, the report, the table of figures, or the run's manifest."""
    answer = file_answer(service_of(request), job, name)
    note(request, "read-result", caller, job)
    return answer


@router.post("/jobs/{job_id}/cancel", summary="Cancel one job", responses=problems("not-found"))
def cancel_job(request: Request, job: Found, caller: MaySubmit) -> JobAnswer:
    """Cancel a job that waits or runs, within one window; one that has ended stays as it is."""
    service = service_of(request)
    if service.cancel(job):
        note(request, "cancel", caller, job)
    return job_answer(service, service.engine.get(job.id) or job)


@router.delete(
    "/jobs/{job_id}",
    summary="Cancel or forget one job",
    status_code=202,
    response_model=JobAnswer,
    responses={
        204: {"description": "It had ended; it is gone, and its result unless others share it."},
        **problems("not-found"),
    },
)
def delete_job(request: Request, job: Found, caller: MaySubmit) -> Response:
    """Cancel a job that waits or runs, within one window; delete one that has ended."""
    service = service_of(request)
    open_still = service.cancel(job)
    note(request, "cancel" if open_still else "delete", caller, job)
    if not open_still:
        service.forget(job)
        return Response(status_code=204)
    cancelled = service.engine.get(job.id) or job
    answer = job_answer(service, cancelled)
    return JSONResponse(answer.model_dump(mode="json"), status_code=202)


@router.get("/batches/{batch}", summary="A batch of jobs", responses=problems("not-found"))
def show_batch(request: Request, batch: Batch, caller: MayRead) -> BatchAnswer:
    """How many of its jobs are in which state."""
    counts = service_of(request).engine.batch(batch, caller.visible_owner)
    if not counts:
        raise _unknown()
    done = not any(counts.get(state) for state in OPEN_STATES)
    return BatchAnswer(batch=batch, counts=dict(counts.items()), done=done)


@router.delete("/batches/{batch}", summary="Cancel a batch", responses=problems("not-found"))
def cancel_batch(request: Request, batch: Batch, caller: MaySubmit) -> BatchAnswer:
    """Cancel all its jobs that wait or run."""
    service = service_of(request)
    for job in service.engine.open_in(batch, caller.visible_owner):
        if service.cancel(job):
            note(request, "cancel", caller, job)
    return show_batch(request, batch, caller)


async def _until_drained(service: Service, job: Job) -> AsyncIterator[Job]:
    """Changes of a job until it ends, or until this process is asked to leave."""
    changes = service.watch.changes(job)
    following = asyncio.ensure_future(anext(changes))
    try:
        while not service.draining:
            done, _ = await asyncio.wait((following,), timeout=0.2)
            if done:
                yield following.result()
                following = asyncio.ensure_future(anext(changes))
    except StopAsyncIteration:
        pass
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await changes.aclose()


def _unknown() -> UnknownResourceError:
    return UnknownResourceError("No job or batch of yours has this name; GET /jobs lists them.")
