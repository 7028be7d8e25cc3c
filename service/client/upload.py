"""Sending four images in one form, read from the disk as they go."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import httpx

from model_core.errors import StudyError
from model_core.types import CONTRASTS, Contrast


def post_study(
    http: httpx.Client,
    study: Mapping[Contrast, Path],
    *,
    form: Mapping[str, str],
    idempotency_key: str,
) -> httpx.Response:
    """One attempt to hand in a study. The files are opened anew and never held as a whole.

    Raises:
        OSError: a file cannot be read.
        httpx.RequestError: the way to the server failed.
    """
    with ExitStack() as opened:
        files: dict[str, tuple[str, BinaryIO, str]] = {
            contrast: (
                _plain_name(contrast, study[contrast]),
                opened.enter_context(study[contrast].open("rb")),
                "application/octet-stream",
            )
            for contrast in CONTRASTS
        }
        headers = {"Idempotency-Key": idempotency_key, "Accept": "application/json"}
        return http.post("/jobs", data=form, files=files, headers=headers)


def check_study(study: Mapping[Contrast, Path]) -> None:
    """Refuse what cannot be a study before a byte is sent.

    Raises:
        StudyError: not exactly the four contrasts.
    """
    if set(study) != set(CONTRASTS):
        given = ", ".join(known for known in CONTRASTS if known in study) or "none"
        raise StudyError(
            "study",
            expected=f"one file for each of {', '.join(CONTRASTS)}",
            got=f"only {given}" if set(study) < set(CONTRASTS) else "another name",
            way_out="Hand over all four images, each under the name of its contrast.",
        )


def _plain_name(contrast: Contrast, path: Path) -> str:
    """A file name that tells the format and nothing else: the user's own may name a patient."""
    return f"{contrast}.nii.gz" if path.name.lower().endswith(".gz") else f"{contrast}.nii"
