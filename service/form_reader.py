"""The parts of a form as they arrive: each into its own place, refused at the first thing wrong.

An image goes to a private file in the spool, byte by byte as it was sent, and is hashed on the way;
nothing in it is looked at here. Every cap is checked before the bytes are kept, an unknown or
repeated field is refused at its header, and a file name is never looked at.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from python_multipart.multipart import MultipartParser, parse_options_header

from model_core.errors import InputError, OptionError
from model_core.types import CONTRASTS
from service.dicom_parts import DicomSink
from service.errors import MalformedUploadError, UploadTooLargeError
from service.form import (
    DICOM,
    FIELDS,
    MEBIBYTE,
    OPTION_BYTES,
    SegmentForm,
    SpooledImage,
    UploadLimits,
)


class _Sink:
    """One image on its way to the disk."""

    def __init__(self, path: Path) -> None:
        self.path, self.size, self._hash = path, 0, hashlib.sha256()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(handle, "wb")

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def done(self) -> SpooledImage:
        self._file.close()
        return SpooledImage(path=self.path, sha256=self._hash.hexdigest(), size=self.size)

    def discard(self) -> None:
        with suppress(OSError):  # a full disk
            self._file.close()
        self.path.unlink(missing_ok=True)


@dataclass
class FormReader:
    """Callbacks of the streaming parser; keeps the state of the part being read."""

    limits: UploadLimits
    spooled: Callable[[], Path]
    images: dict[str, _Sink] = field(default_factory=dict)
    dicom: DicomSink | None = None
    options: dict[str, bytearray] = field(default_factory=dict)
    current: str = ""
    part_size: int = 0
    header_name: bytes = b""
    header_value: bytes = b""
    disposition: bytes = b""
    complete: bool = False

    def parser(self, boundary: bytes) -> MultipartParser:
        """A parser that reports to this reader."""
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_end": self._on_end,
            },
        )

    def _on_part_begin(self) -> None:
        self.current, self.disposition = "", b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self.header_name.lower() == b"content-disposition":
            self.disposition = self.header_value
        self.header_name = self.header_value = b""

    def _on_headers_finished(self) -> None:
        _, parameters = parse_options_header(self.disposition)
        name = parameters.get(b"name", b"").decode("latin-1")
        if name not in FIELDS:
            raise _unknown_field()
        if name in self.images or name in self.options:
            raise _repeated_field(name)
        self.current, self.part_size = name, 0
        if name == DICOM:
            self.dicom = self.dicom or DicomSink(self.spooled(), most=self.limits.files)
            self.dicom.begin()
        elif name in CONTRASTS:
            self.images[name] = _Sink(self.spooled())
        else:
            self.options[name] = bytearray()

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.part_size += end - start
        if self.part_size > (cap := self._cap()):
            raise _part_too_large(self.current, cap)
        if self.current == DICOM:
            assert self.dicom is not None
            self.dicom.write(data[start:end])
        elif sink := self.images.get(self.current):
            sink.write(data[start:end])
        else:
            self.options[self.current] += data[start:end]

    def _cap(self) -> int:
        """Bytes that the part being read may have; one archive may fill the whole body."""
        if self.current in self.options:
            return OPTION_BYTES
        return self.limits.body_bytes if self.current == DICOM else self.limits.file_bytes

    def _on_end(self) -> None:
        self.complete = True

    def result(self, *, whole: bool) -> SegmentForm:
        """The form, once the whole body has been read."""
        if not self.complete:
            raise malformed("a body that ends before its last boundary")
        options = {
            name: value.decode("utf-8", "replace").strip() for name, value in self.options.items()
        }
        self._check_kinds(fetched=bool(options.get("study_uid")))
        if not (self.dicom or options.get("study_uid")):
            self._check_images(whole=whole)
        return SegmentForm(
            images={c: self.images[c].done() for c in CONTRASTS if c in self.images},
            options=options,
            dicom=self._dicom_done(),
        )

    def _check_kinds(self, *, fetched: bool) -> None:
        if sum((bool(self.images), self.dicom is not None, fetched)) > 1:
            raise InputError(
                "body",
                expected="one of: four images, DICOM files, or a study to fetch",
                got="several of them",
                way_out="Send each study in a request of its own.",
            )

    def _check_images(self, *, whole: bool) -> None:
        for contrast in CONTRASTS if whole or not self.images else self.images:
            if contrast not in self.images or self.images[contrast].size == 0:
                raise _missing_image(contrast, sent=contrast in self.images)

    def _dicom_done(self) -> SpooledImage | None:
        if self.dicom is None:
            return None
        if self.dicom.size == 0:
            raise InputError(
                DICOM,
                expected="a zip archive of DICOM files, or the files",
                got="an empty part",
                way_out="Send the files of the study in the form field dicom.",
            )
        digest = self.dicom.done()
        size = self.dicom.path.stat().st_size
        return SpooledImage(path=self.dicom.path, sha256=digest, size=size)

    def discard(self) -> None:
        """Delete what is still in the spool."""
        for sink in self.images.values():
            sink.discard()
        if self.dicom is not None:
            self.dicom.discard()


def _unknown_field() -> OptionError:
    # The name itself is not repeated: a client that mixes up field and file name would leak it.
    return OptionError(
        "body",
        expected=f"only the fields {', '.join(FIELDS)}",
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


def _missing_image(contrast: str, *, sent: bool) -> InputError:
    return InputError(
        contrast,
        expected="a NIfTI image (.nii or .nii.gz)",
        got="an empty file" if sent else "no such field",
        way_out=f"Send the {contrast} image in the form field {contrast}.",
    )


def body_too_large(limits: UploadLimits) -> UploadTooLargeError:
    """The refusal of a body of more bytes than the service takes."""
    return UploadTooLargeError(
        "body",
        expected=f"at most {limits.body_bytes // MEBIBYTE} MiB in all",
        got="more",
        way_out="Compress the images (.nii.gz) or ask the operator for a higher limit.",
    )


def malformed(got: str) -> MalformedUploadError:
    """The refusal of a body that is no form; ``got`` says what it is."""
    return MalformedUploadError(
        "body",
        expected="a complete multipart/form-data body",
        got=got,
        way_out="Let an HTTP client library build the form.",
    )
