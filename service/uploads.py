"""Reading the multipart form of a segmentation request, defensively.

The body is parsed as it arrives (`service.form_reader`). Whatever goes wrong, no file is left
behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

from service.errors import UnsupportedMediaError, UploadTimeoutError
from service.form import FRAMING_BYTES, SegmentForm, UploadLimits
from service.form_reader import FormReader, body_too_large, malformed

_DRAIN_SECONDS: Final = 10.0


@asynccontextmanager
async def polite_refusal(request: Request, limits: UploadLimits) -> AsyncIterator[None]:
    """Read on to the end of a refused body, within limits, so that the caller sees the answer.

    Closing a connection with unread data makes the kernel send a reset, which throws the answer
    away on the caller's side before it is read.
    """
    try:
        yield
    except ClientDisconnect:
        raise
    except Exception:
        await _drain(request, limits)
        raise


@asynccontextmanager
async def read_segment_form(
    request: Request, limits: UploadLimits, spooled: Callable[[], Path], *, whole: bool = True
) -> AsyncIterator[SegmentForm]:
    """The form of a request; files of it that are still in the spool at the end are deleted.

    Args:
        request: whose body has not been read.
        limits: caps on the body.
        spooled: a path for a new file, on each call another one.
        whole: whether it has to be a study: four images, DICOM files, or a study to fetch.

    Raises:
        UnsupportedMediaError: the body is not multipart/form-data.
        MalformedUploadError: the multipart framing is broken or ends early.
        UploadTooLargeError: the body, an image or an option exceeds its cap.
        OptionError: a field is unknown or comes twice.
        InputError: an image is missing or empty.
        UploadTimeoutError: the body did not arrive in time.
    """
    boundary = _boundary(request)
    _check_declared_length(request, limits)
    reader = FormReader(limits, spooled)
    try:
        await _read(request, reader, boundary)
        yield reader.result(whole=whole)
    finally:
        reader.discard()


async def _read(request: Request, reader: FormReader, boundary: bytes) -> None:
    try:
        async with asyncio.timeout(reader.limits.seconds):
            await _feed(request, reader, boundary)
    except TimeoutError:
        raise UploadTimeoutError(
            f"The body did not arrive within {reader.limits.seconds:g} seconds. Send it faster, "
            "or compress the images (.nii.gz)."
        ) from None


async def _feed(request: Request, reader: FormReader, boundary: bytes) -> None:
    received = 0
    try:
        parser = reader.parser(boundary)
        async for chunk in request.stream():
            received += len(chunk)
            if received > reader.limits.body_bytes + FRAMING_BYTES:
                raise body_too_large(reader.limits)
            parser.write(chunk)
        parser.finalize()
    except FormParserError:
        raise malformed("a form that does not follow RFC 7578") from None


def _boundary(request: Request) -> bytes:
    media_type, parameters = parse_options_header(request.headers.get("content-type", ""))
    if media_type != b"multipart/form-data":
        raise UnsupportedMediaError(
            "The body must be multipart/form-data with the fields t1, t1ce, t2 and flair, or dicom."
        )
    if not parameters.get(b"boundary"):
        raise malformed("a Content-Type header without a boundary")
    return parameters[b"boundary"]


def announced_bytes(request: Request, limits: UploadLimits) -> int:
    """The bytes that a body may bring: as many as it says, or as are taken."""
    declared = request.headers.get("content-length", "")
    most = limits.body_bytes + FRAMING_BYTES
    return min(int(declared), most) if declared.isdecimal() else most


def _check_declared_length(request: Request, limits: UploadLimits) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.body_bytes + FRAMING_BYTES:
        raise body_too_large(limits)


async def _drain(request: Request, limits: UploadLimits) -> None:
    expects_go_ahead = request.headers.get("expect", "").lower() == "100-continue"
    if expects_go_ahead or getattr(request, "_stream_consumed", False):
        return
    remaining = limits.body_bytes + FRAMING_BYTES
    try:
        async with asyncio.timeout(min(_DRAIN_SECONDS, limits.seconds)):
            while remaining > 0:
                message = await request.receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                remaining -= len(message.get("body", b""))
    except TimeoutError:
        return
