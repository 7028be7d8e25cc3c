"""Studies that a request names instead of sending them: fetched from a configured archive."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from anyio import to_thread

from model_core.errors import OptionError
from service.dicomweb.pull import PullLimits, pull_study
from service.dicomweb.servers import DicomwebServer, check_uid, choose_server
from service.form import SegmentForm, SpooledImage
from service.state import Service

_ONE_AT_A_TIME: Final = threading.Lock()
"""The DICOM library's warnings are switched off for the whole process meanwhile."""


@asynccontextmanager
async def fetched(service: Service, form: SegmentForm) -> AsyncIterator[SegmentForm]:
    """The form with the DICOM files that it names; as it is where it names none.

    Raises:
        OptionError: the archive is not configured, or the UID cannot be one.
        StudyNotFoundError, StudyTooLargeError, ArchiveError: as `pull_study`.
    """
    study_uid = form.options.get("study_uid")
    if not study_uid:
        _refuse_archive_alone(form)
        yield form
        return
    server = choose_server(service.archives, form.options.get("dicomweb", ""))
    check_uid("study_uid", study_uid)
    archive = service.blobs.spooled()
    try:
        dicom = await to_thread.run_sync(_pull, service, server, study_uid, archive)
        yield replace(form, dicom=dicom)
    finally:
        archive.unlink(missing_ok=True)


def _refuse_archive_alone(form: SegmentForm) -> None:
    if form.options.get("dicomweb"):
        raise OptionError(
            "study_uid",
            expected="the UID of a study in the archive that dicomweb names",
            got="none",
            way_out="Add study_uid, or leave dicomweb out and send the images.",
        )


def _pull(service: Service, server: DicomwebServer, study_uid: str, archive: Path) -> SpooledImage:
    """Fetch a study into one archive, as if it had been sent file by file."""
    folder = Path(tempfile.mkdtemp(prefix="pull-", dir=archive.parent))
    limits = PullLimits(total_bytes=service.settings.max_upload_bytes)
    try:
        with _ONE_AT_A_TIME:
            files = pull_study(server, study_uid, folder, limits=limits)
        digests = []
        with zipfile.ZipFile(archive, "x", zipfile.ZIP_STORED) as packed:
            for number, path in enumerate(files, start=1):
                packed.write(path, f"{number:06d}")
                with path.open("rb") as file:
                    digests.append(hashlib.file_digest(file, "sha256").digest())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    digest = hashlib.sha256(b"".join(sorted(digests))).hexdigest()
    return SpooledImage(path=archive, sha256=digest, size=archive.stat().st_size)
