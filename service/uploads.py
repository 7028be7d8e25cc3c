"""Reading the multipart form of a segmentation request, defensively.

The body is parsed as it arrives and held in memory: a patient's image never touches the disk and
is gone when the request is. Every cap is checked before the bytes are kept, an unknown or repeated
field is refused at its header, and a file name is never looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from model_core.errors import InputError, OptionError
from model_core.types import CONTRASTS, Contrast
from service.errors import (
    MalformedUploadError,
    UnsupportedMediaError,
    UploadTimeoutError,
    UploadTooLargeError,
)

OPTION_FIELDS: Final = ("model", "tta", "label_scheme", "postprocess", "window")
OPTION_BYTES: Final = 256
FRAMING_BYTES: Final = 64 * 1024
"""Allowance for boundaries, part headers and options on top of the images."""
MEBIBYTE: Final = 1024 * 1024
_DRAIN_SECONDS: Final = 10.0


@dataclass(frozen=True, kw_only=True)
class UploadLimits:
    """Caps on one request: bytes of the whole body, bytes of one image, seconds to arrive."""

    body_bytes: int
    file_bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SegmentForm:
    """The form as sent: four images in compressed form and the options as text."""

    images: Mapping[Contrast, bytes]
    options: Mapping[str, str]


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


async def read_segment_form(request: Request, limits: UploadLimits) -> SegmentForm:
    """Parse the body of a segmentation request.

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
    reader = _FormReader(limits)
    try:
        async with asyncio.timeout(limits.seconds):
            await _feed(request, reader, boundary)
    except TimeoutError:
        raise UploadTimeoutError(
            f"The body did not arrive within {limits.seconds:g} seconds. Send it faster, "
            "or compress the images (.nii.gz)."
        ) from None
    return reader.result()


async def _feed(request: Request, reader: _FormReader, boundary: bytes) -> None:
    received = 0
    try:
        parser = reader.parser(boundary)
        async for chunk in request.stream():
            received += len(chunk)
            if received > reader.limits.body_bytes + FRAMING_BYTES:
                raise _body_too_large(reader.limits)
            parser.write(chunk)
        parser.finalize()
    except FormParserError:
        raise _malformed("a form that does not follow RFC 7578") from None


def _boundary(request: Request) -> bytes:
    media_type, parameters = parse_options_header(request.headers.get("content-type", ""))
    if media_type != b"multipart/form-data":
        raise UnsupportedMediaError(
            "The body must be multipart/form-data with the fields t1, t1ce, t2 and flair."
        )
    if not parameters.get(b"boundary"):
        raise _malformed("a Content-Type header without a boundary")
    return parameters[b"boundary"]


def _check_declared_length(request: Request, limits: UploadLimits) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.body_bytes + FRAMING_BYTES:
        raise _body_too_large(limits)


def _body_too_large(limits: UploadLimits) -> UploadTooLargeError:
    return UploadTooLargeError(
        "body",
        expected=f"at most {limits.body_bytes // MEBIBYTE} MiB in all",
        got="more",
        way_out="Compress the images (.nii.gz) or ask the operator for a higher limit.",
    )


def _malformed(got: str) -> MalformedUploadError:
    return MalformedUploadError(
        "body",
        expected="a complete multipart/form-data body",
        got=got,
        way_out="Let an HTTP client library build the form.",
    )


@dataclass
class _FormReader:
    """Callbacks of the streaming parser; keeps the state of the part being read."""

    limits: UploadLimits
    parts: dict[str, bytearray] = field(default_factory=dict)
    current: str = ""
    header_name: bytes = b""
    header_value: bytes = b""
    disposition: bytes = b""
    complete: bool = False

    def parser(self, boundary: bytes) -> MultipartParser:
        """A parser that reports to this reader."""
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self.on_part_begin,
                "on_header_field": self.on_header_field,
                "on_header_value": self.on_header_value,
                "on_header_end": self.on_header_end,
                "on_headers_finished": self.on_headers_finished,
                "on_part_data": self.on_part_data,
                "on_end": self.on_end,
            },
        )

    def on_part_begin(self) -> None:
        self.current, self.disposition = "", b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.header_value += data[start:end]

    def on_header_end(self) -> None:
        if self.header_name.lower() == b"content-disposition":
            self.disposition = self.header_value
        self.header_name = self.header_value = b""

    def on_headers_finished(self) -> None:
        _, parameters = parse_options_header(self.disposition)
        name = parameters.get(b"name", b"").decode("latin-1")
        if name not in CONTRASTS and name not in OPTION_FIELDS:
            raise _unknown_field()
        if name in self.parts:
            raise _repeated_field(name)
        self.current = name
        self.parts[name] = bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self.parts[self.current]
        cap = self.limits.file_bytes if self.current in CONTRASTS else OPTION_BYTES
        if len(part) + end - start > cap:
            raise _part_too_large(self.current, cap)
        part += data[start:end]

    def on_end(self) -> None:
        self.complete = True

    def result(self) -> SegmentForm:
        """The form, once the whole body has been read."""
        if not self.complete:
            raise _malformed("a body that ends before its last boundary")
        for contrast in CONTRASTS:
            if not self.parts.get(contrast):
                raise _missing_image(contrast, sent=contrast in self.parts)
        return SegmentForm(
            images={contrast: bytes(self.parts.pop(contrast)) for contrast in CONTRASTS},
            options={
                name: value.decode("utf-8", "replace").strip() for name, value in self.parts.items()
            },
        )


def _unknown_field() -> OptionError:
    # The name itself is not repeated: a client that mixes up field and file name would leak it.
    return OptionError(
        "body",
        expected=f"only the fields {', '.join((*CONTRASTS, *OPTION_FIELDS))}",
        got="another field",
        way_out="Leave the other field out.",
    )


def _repeated_field(name: str) -> OptionError:
    return OptionError(
        name, expected="the field once", got="the field twice", way_out="Send it once."
    )


def _part_too_large(name: str, cap: int) -> UploadTooLargeError:
    size = f"{cap // MEBIBYTE} MiB" if cap >= MEBIBYTE else f"{cap} bytes"
    return UploadTooLargeError(
        name,
        expected=f"at most {size}",
        got="more",
        way_out="Compress the image (.nii.gz) or ask the operator for a higher limit.",
    )


def _missing_image(contrast: Contrast, *, sent: bool) -> InputError:
    return InputError(
        contrast,
        expected="a NIfTI image (.nii or .nii.gz)",
        got="an empty file" if sent else "no such field",
        way_out=f"Send the {contrast} image in the form field {contrast}.",
    )


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
