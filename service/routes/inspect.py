"""What was sent, which series is which, and what is wrong with it: before anything is computed."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service.openapi import INSPECT_RESPONSES
from service.openapi_forms import INSPECT_REQUEST
from service.routes.accept import limits_of
from service.routes.fetch import fetched
from service.routes.jobs import MaySubmit
from service.state import service_of
from service.study_options import parse_series
from service.uploads import announced_bytes, polite_refusal, read_segment_form

router = APIRouter(tags=["segmentation"])


@router.post(
    "/inspect",
    summary="Inspect one study",
    response_class=JSONResponse,
    responses=INSPECT_RESPONSES,
    openapi_extra=INSPECT_REQUEST,
)
async def inspect(request: Request, caller: MaySubmit) -> Response:
    """Tell which series is which contrast and why, and what a segmentation would have to do first.

    Takes the images of `POST /segment`, here also fewer than four. Nothing is kept, no job is made
    and no model is asked.
    """
    service = service_of(request)
    limits = limits_of(service)
    async with polite_refusal(request, limits):
        await to_thread.run_sync(service.admit, caller)
        async with (
            service.room.held(announced_bytes(request, limits)),
            read_segment_form(request, limits, service.blobs.spooled, whole=False) as sent,
            fetched(service, sent) as form,
        ):
            series = parse_series(form.options)
            found = await to_thread.run_sync(service.inspector.inspect, form, series)
    return JSONResponse(found, headers={"Cache-Control": "no-store"})
