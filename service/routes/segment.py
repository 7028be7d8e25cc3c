"""Four images in, one label map out.

The route only moves things: admission, form, decoding on a helper thread, inference on the worker
thread, and the answer in the shape that the caller asked for. Options that the caller leaves out
take the model card's defaults, exactly as on the command line.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from model_core.errors import Cancelled, OptionError
from model_core.imaging.nifti import ReadLimits
from model_core.imaging.study import Study, load_study
from model_core.inference.adaptive import WINDOW_CHOICES, WindowChoice
from model_core.inference.segmentation import Segmentation, SegmentOptions
from model_core.types import CancelCheck, Contrast, LabelScheme, Tta
from service.errors import ShuttingDownError
from service.negotiation import choose_media_type
from service.observability import Stopwatch
from service.openapi import SEGMENT_REQUEST, SEGMENT_RESPONSES
from service.schemas import LabelMapPart, SegmentationAnswer
from service.state import Service, service_of
from service.uploads import UploadLimits, polite_refusal, read_segment_form
from service.worker import Job

router = APIRouter(tags=["segmentation"])

GZIP: Final = "application/gzip"
JSON: Final = "application/json"
WARNINGS_HEADER_BYTES: Final = 2048
_BOOLEANS: Final[Mapping[str, bool]] = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished segmentation with its encoded label map and every stage's seconds."""

    segmentation: Segmentation
    label_map: bytes
    stage_seconds: dict[str, float]


@router.post(
    "/segment",
    summary="Segment one study",
    response_class=Response,
    responses=SEGMENT_RESPONSES,
    openapi_extra=SEGMENT_REQUEST,
)
async def segment(request: Request) -> Response:
    """Segment four co-registered contrasts; the label map lies on the T1 image's own grid.

    The answer is a gzipped NIfTI file with the run's figures in `X-Segmamba-*` headers, or, with
    `Accept: application/json`, the run's report with the file in base64.
    """
    service = service_of(request)
    limits = _limits(service)
    async with polite_refusal(request, limits):
        media_type = choose_media_type(request.headers.get("accept"), (GZIP, JSON))
        ticket = service.worker.admit()
        with ticket:
            form = await read_segment_form(request, limits)
            options = parse_options(form.options)
            model = await to_thread.run_sync(
                service.registry.resolve, form.options.get("model") or None
            )
            service.metrics.upload_bytes.observe(sum(map(len, form.images.values())))
            watch = Stopwatch()
            study = await to_thread.run_sync(
                _decode, form.images, service.settings.max_voxels, limiter=service.parsers
            )
            read_seconds = watch.seconds()
            del form
            job = ticket.submit(_work(service, model, study, options))
            del study
    outcome = await _await_job(job, request, service)
    stages = {"read": read_seconds, "queue": job.waited_seconds, **outcome.stage_seconds}
    service.metrics.observe_run(stages, outcome.segmentation.window_seconds)
    return _answer(outcome, stages, media_type)


def parse_options(fields: Mapping[str, str]) -> SegmentOptions:
    """The options of a run from form fields; one that is missing or blank takes the card's default.

    Raises:
        OptionError: a value is outside the allowed ones.
    """
    return SegmentOptions(
        tta=cast("Tta | None", _choice(fields, "tta", get_args(Tta))),
        label_scheme=cast(
            "LabelScheme | None", _choice(fields, "label_scheme", get_args(LabelScheme))
        ),
        postprocess=_boolean(fields, "postprocess"),
        window=cast("WindowChoice | None", _choice(fields, "window", WINDOW_CHOICES)),
    )


def _choice(fields: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str | None:
    value = fields.get(name) or None
    if value is None or value in allowed:
        return value
    raise OptionError(
        name,
        expected=f"one of {', '.join(allowed)}",
        got="another value",
        way_out="Leave the option out to take the model card's default.",
    )


def _boolean(fields: Mapping[str, str], name: str) -> bool | None:
    choice = _choice({name: fields.get(name, "").lower()}, name, tuple(_BOOLEANS))
    return None if choice is None else _BOOLEANS[choice]


def _limits(service: Service) -> UploadLimits:
    settings = service.settings
    return UploadLimits(
        body_bytes=settings.max_upload_bytes,
        file_bytes=settings.max_file_bytes,
        seconds=settings.upload_seconds,
    )


def _decode(images: Mapping[Contrast, bytes], max_voxels: int) -> Study:
    return load_study(images, limits=ReadLimits(voxels=max_voxels))


def _work(
    service: Service, model: str, study: Study, options: SegmentOptions
) -> Callable[[CancelCheck], Outcome]:
    held = [study]

    def work(cancelled: CancelCheck) -> Outcome:
        segmenter = service.acquire(model)
        segmentation = segmenter.segment(held.pop(), options, cancelled=cancelled)
        watch = Stopwatch()
        label_map = segmentation.encode()
        stages = {**segmentation.stage_seconds, "encode": watch.seconds()}
        return Outcome(segmentation=segmentation, label_map=label_map, stage_seconds=stages)

    return work


async def _await_job(job: Job[Outcome], request: Request, service: Service) -> Outcome:
    """The job's outcome; if the caller goes away first, the job is told to stop."""
    done = asyncio.wrap_future(job.future)
    done.add_done_callback(_retrieve)
    gone = asyncio.ensure_future(_disconnected(request))
    waited: set[asyncio.Future[Any]] = {done, gone}
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise ClientDisconnect
        return done.result()
    except Cancelled:
        if service.worker.draining:
            raise ShuttingDownError("The service is shutting down.", retry_after=5) from None
        raise
    finally:
        job.cancel()  # without effect on a finished job
        gone.cancel()


def _retrieve(future: asyncio.Future[Outcome]) -> None:
    """Look at the exception of a job that no one awaits any more, so that no one warns of it."""
    if not future.cancelled():
        future.exception()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer(outcome: Outcome, stages: dict[str, float], media_type: str) -> Response:
    segmentation = outcome.segmentation
    filename = f"segmentation_{segmentation.label_scheme}.nii.gz"
    rounded = {stage: round(seconds, 4) for stage, seconds in stages.items()}
    headers = {**_run_headers(segmentation, rounded), "Cache-Control": "no-store", "Vary": "Accept"}
    if media_type == GZIP:
        headers["Content-Disposition"] = f'attachment; filename="{filename}"'
        return Response(outcome.label_map, headers=headers, media_type=GZIP)
    part = LabelMapPart(filename=filename, data=base64.b64encode(outcome.label_map).decode("ascii"))
    report = {**segmentation.report(), "stage_seconds": rounded, "label_map": part}
    answer = SegmentationAnswer.model_validate(report)
    return JSONResponse(answer.model_dump(mode="json"), headers=headers)


def _run_headers(segmentation: Segmentation, stages: Mapping[str, float]) -> dict[str, str]:
    headers = {
        "X-Segmamba-Model": segmentation.model,
        "X-Segmamba-Model-Version": _one_line(segmentation.model_version),
        "X-Segmamba-Weights-SHA256": segmentation.weights_sha256,
        "X-Segmamba-Backend": segmentation.backend,
        "X-Segmamba-Device": segmentation.device,
        "X-Segmamba-Precision": segmentation.precision,
        "X-Segmamba-Window": _compact(
            {"choice": segmentation.window_choice, "shape": segmentation.window}
        ),
        "X-Segmamba-Label-Scheme": segmentation.label_scheme,
        "X-Segmamba-Volumes-ML": _compact(segmentation.volumes_ml),
        "X-Segmamba-Timings": _compact(stages),
        "X-Segmamba-TTA": _compact(segmentation.tta),
    }
    if segmentation.warnings:
        warnings = _compact(list(segmentation.warnings))
        fits = len(warnings) <= WARNINGS_HEADER_BYTES
        headers["X-Segmamba-Warnings"] = (
            warnings if fits else _compact([f"{len(segmentation.warnings)} warnings; ask for JSON"])
        )
    return headers


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), default=dict)


def _one_line(text: str) -> str:
    """Free text of a model card as a header may carry it."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)
