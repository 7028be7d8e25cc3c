"""How jobs and results look over HTTP."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from fastapi.responses import JSONResponse, Response

from model_core.pipeline.files import MEDIA_TYPES, SEG, file_of
from service.errors import GoneError, NotFinishedError, UnknownResourceError
from service.jobs.records import Job
from service.problems import answer_failed
from service.schemas import (
    FileList,
    JobAnswer,
    JobProgress,
    LabelMapPart,
    ResultFile,
    SegmentationAnswer,
)
from service.state import LONGEST_RETRY, Service

GZIP: Final = "application/gzip"
JSON: Final = "application/json"
ZIP: Final = "application/zip"
DICOM: Final = "application/dicom"
RESULT_TYPES: Final = (GZIP, JSON, ZIP, DICOM)
"""What a result can be asked for as, the default first."""
WARNINGS_HEADER_BYTES: Final = 2048


def job_answer(service: Service, job: Job) -> JobAnswer:
    """A job as the caller sees it, with its place in the queue and an estimate."""
    here = f"/jobs/{job.id}"
    eta = service.engine.eta_seconds(job, int(1000 * time.time()))
    return JobAnswer(
        id=job.id,
        state=job.state,
        position=service.engine.position(job),
        eta_s=None if eta is None else round(eta, 1),
        progress=JobProgress(stage=job.stage, done=job.done, total=job.total),
        attempts=job.attempts,
        error=dict(job.error) if job.error else None,
        model=job.spec.get("model", ""),
        model_version=_model_version(job),
        options={**job.spec.get("options", {}), "images": False, **job.spec.get("reading", {})},
        priority=job.priority,
        batch=job.batch,
        cached=job.cached,
        created=_time(job.created),
        started=None if job.started is None else _time(job.started),
        ended=None if job.ended is None else _time(job.ended),
        links={
            "self": here,
            "events": f"{here}/events",
            "result": f"{here}/result",
            "files": f"{here}/files",
        },
    )


def result_answer(service: Service, job: Job, media_type: str) -> Response:
    """The result of a job that has ended well, or the problem that it ended with.

    Raises:
        NotFinishedError: it waits or runs.
        GoneError: it was cancelled, or its files have been deleted.
    """
    if job.open:
        eta = service.engine.eta_seconds(job, int(1000 * time.time())) or 1.0
        raise NotFinishedError(
            f"The job is {job.state}. Ask again later, or follow its events.",
            retry_after=max(1, min(LONGEST_RETRY, round(eta))),
        )
    if job.state == "failed":
        return answer_failed(job.error or {}, job.id)
    if job.state == "cancelled" or job.result is None:
        raise GoneError("The job was cancelled; there is no result.")
    report = job.result["report"]
    headers = {**_run_headers(report), "Cache-Control": "no-store", "Vary": "Accept"}
    if media_type == ZIP:
        headers["Content-Disposition"] = 'attachment; filename="segmentation.zip"'
        return Response(_kept(service, job, "archive"), headers=headers, media_type=ZIP)
    if media_type == DICOM:
        return _file(service, job, SEG, headers)
    return _segmentation(report, _kept(service, job, "key"), media_type, headers)


def files_answer(service: Service, job: Job) -> Response:
    """The names and addresses of the files of a job that has ended well.

    Raises:
        NotFinishedError, GoneError: as `result_answer`.
    """
    ended = result_answer(service, job, GZIP)
    if ended.status_code != HTTPStatus.OK:
        return ended
    assert job.result is not None
    files = [
        ResultFile(name=name, media_type=MEDIA_TYPES[name], href=f"/jobs/{job.id}/files/{name}")
        for name in job.result["report"].get("files", ())
    ]
    return JSONResponse(FileList(files=files).model_dump(), headers={"Cache-Control": "no-store"})


def file_answer(service: Service, job: Job, name: str) -> Response:
    """One of the files of a job that has ended well.

    Raises:
        NotFinishedError, GoneError: as `result_answer`.
        UnknownResourceError: the run left no such file.
    """
    ended = result_answer(service, job, GZIP)
    if ended.status_code != HTTPStatus.OK:
        return ended
    return _file(service, job, name, {"Cache-Control": "no-store"})


def _file(service: Service, job: Job, name: str, headers: Mapping[str, str]) -> Response:
    found = file_of(_kept(service, job, "archive"), name)
    if found is None:
        left = ", ".join((job.result or {}).get("report", {}).get("files", ()))
        raise UnknownResourceError(
            f"This run left no such file. It left {left}; DICOM objects are written where the "
            "study came as DICOM, images where the option images asked for them."
        )
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(found, headers={**headers, **disposition}, media_type=MEDIA_TYPES[name])


def _kept(service: Service, job: Job, what: str) -> bytes:
    """The bytes of a result's file."""
    assert job.result is not None
    try:
        return service.blobs.read(job.result[what])
    except (FileNotFoundError, KeyError):
        raise GoneError("The result has been deleted. Submit the study again.") from None


def _segmentation(
    report: Mapping[str, Any], label_map: bytes, media_type: str, headers: dict[str, str]
) -> Response:
    filename = f"segmentation_{report['label_scheme']}.nii.gz"
    if media_type == GZIP:
        headers["Content-Disposition"] = f'attachment; filename="{filename}"'
        return Response(label_map, headers=headers, media_type=GZIP)
    part = LabelMapPart(filename=filename, data=base64.b64encode(label_map).decode("ascii"))
    answer = SegmentationAnswer.model_validate({**report, "label_map": part})
    return JSONResponse(answer.model_dump(mode="json"), headers=headers)


def _run_headers(report: Mapping[str, Any]) -> dict[str, str]:
    headers = {
        "X-Segmamba-Model": report["model"],
        "X-Segmamba-Model-Version": _one_line(report["model_version"]),
        "X-Segmamba-Weights-SHA256": report["weights_sha256"],
        "X-Segmamba-Backend": report["backend"],
        "X-Segmamba-Device": report["device"],
        "X-Segmamba-Precision": report["precision"],
        "X-Segmamba-Window": _compact(report["window"]),
        "X-Segmamba-Label-Scheme": report["label_scheme"],
        "X-Segmamba-Volumes-ML": _compact(report["volumes_ml"]),
        "X-Segmamba-Timings": _compact(report["stage_seconds"]),
        "X-Segmamba-TTA": _compact(report["tta"]),
    }
    if flags := report.get("quality"):
        kinds = {f"{flag['severity']}:{flag['code']}" for flag in flags}
        headers["X-Segmamba-Quality"] = _compact(sorted(kinds))
    if receipt := report.get("push"):
        headers["X-Segmamba-Push"] = _compact(
            {name: receipt[name] for name in ("archive", "stored", "refused") if name in receipt}
        )
    if warnings := report["warnings"]:
        told = _compact(warnings)
        fits = len(told) <= WARNINGS_HEADER_BYTES
        headers["X-Segmamba-Warnings"] = (
            told if fits else _compact([f"{len(warnings)} warnings; ask for JSON"])
        )
    return headers


def _model_version(job: Job) -> str | None:
    """The one that ran; before that, the one that is wanted."""
    if job.result is not None:
        ran: str | None = job.result.get("report", {}).get("model_version")
        return ran
    wanted: str | None = job.spec.get("model_version")
    return wanted


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _one_line(text: str) -> str:
    """Free text of a model card as a header may carry it."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in text)
