"""Sending a study's images in one form, read from the disk as they go."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

import httpx

from model_core.errors import StudyError
from model_core.types import CONTRASTS, Contrast

DICOM: Final = "dicom"
"""The field of a study that is an archive of DICOM files."""
Images = Mapping[Contrast, Path] | Path
"""NIfTI files by contrast, or one zip archive of DICOM files."""


def post_images(
    http: httpx.Client,
    route: str,
    images: Images,
    *,
    form: Mapping[str, str],
    headers: Mapping[str, str],
) -> httpx.Response:
    """One attempt to send images. The files are opened anew and never held as a whole.

    Raises:
        OSError: a file cannot be read.
        httpx.RequestError: the way to the server failed.
    """
    named = {DICOM: images} if isinstance(images, Path) else {**images}
    with ExitStack() as opened:
        files: dict[str, tuple[str, BinaryIO, str]] = {
            field: (
                _plain_name(field, path),
                opened.enter_context(path.open("rb")),
                "application/octet-stream",
            )
            for field, path in named.items()
        }
        accepting = {"Accept": "application/json", **headers}
        return http.post(route, data=form, files=files, headers=accepting)


def check_study(study: Images) -> None:
    """Refuse what cannot be a study before a byte is sent.

    Raises:
        StudyError: not exactly the four contrasts.
    """
    if isinstance(study, Path):
        return
    if set(study) != set(CONTRASTS):
        given = ", ".join(known for known in CONTRASTS if known in study) or "none"
        raise StudyError(
            "study",
            expected=f"one file for each of {', '.join(CONTRASTS)}",
            got=f"only {given}" if set(study) < set(CONTRASTS) else "another name",
            way_out="Hand over all four images, each under the name of its contrast.",
        )


def _plain_name(field: str, path: Path) -> str:
    """A file name that tells the format and nothing else: the user's own may name a patient."""
    if field == DICOM:
        return "study.zip"
    return f"{field}.nii.gz" if path.name.lower().endswith(".gz") else f"{field}.nii"
