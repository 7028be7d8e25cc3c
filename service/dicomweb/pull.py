"""A study out of an archive: QIDO-RS says what it has, WADO-RS brings it, image by image.

Files are numbered; no name, path or UID of the archive becomes a file name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from service.dicomweb.errors import ArchiveAnswerError, StudyNotFoundError
from service.dicomweb.listing import check_count, instances_of, series_of
from service.dicomweb.servers import DicomwebServer, check_uid
from service.dicomweb.session import Budget, connection, whole

if TYPE_CHECKING:
    from dicomweb_client.web import DICOMwebClient


@dataclass(frozen=True, kw_only=True)
class PullLimits:
    """Caps on one pull; each bounds time, memory or disk.

    Attributes:
        images: how many instances.
        total_bytes: of all answers together.
        image_bytes: of one instance, which is held in memory.
        seconds: for all of it.
    """

    images: int = 20_000
    total_bytes: int = 4 * 2**30
    image_bytes: int = 512 * 2**20
    seconds: float = 900.0


PULL_LIMITS: Final = PullLimits()


@dataclass(frozen=True)
class _Address:
    study: str
    series: str
    instance: str


def pull_study(
    server: DicomwebServer,
    study_uid: str,
    folder: Path,
    *,
    limits: PullLimits = PULL_LIMITS,
    series: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, ...]:
    """Fetch a study, or some of its series, into numbered files.

    Args:
        server: the archive.
        study_uid: StudyInstanceUID (0020,000D).
        folder: where the files go; made if need be. If the pull fails, none of them stays.
        limits: what is still accepted.
        series: SeriesInstanceUIDs (0020,000E) of those that are wanted; all when None.
        progress: called as ``progress(done, total)`` after each image.

    Returns:
        The files, series by series.

    Raises:
        OptionError: a UID that cannot be one.
        StudyNotFoundError: the archive has no such study or series.
        StudyTooLargeError: it has more than `limits` allow.
        ArchiveError: the archive cannot be reached, refuses, or does not speak DICOMweb.
    """
    check_uid("study_uid", study_uid)
    for uid in series or ():
        check_uid("series", uid)
    budget = Budget(
        archive=server.name,
        total_bytes=limits.total_bytes,
        answer_bytes=limits.image_bytes,
        deadline=time.monotonic() + limits.seconds,
    )
    with connection(server, budget) as client:
        wanted = _list(client, server.name, study_uid, series, limits)
        folder.mkdir(parents=True, exist_ok=True)
        return _fetch(client, server.name, wanted, folder, progress)


def _list(
    client: DICOMwebClient,
    archive: str,
    study: str,
    series: Sequence[str] | None,
    limits: PullLimits,
) -> list[_Address]:
    known = series_of(client, archive, study, most=limits.images)
    if not known or set(series or ()) - set(known):
        raise _not_there("study" if not known else "series")
    found: list[_Address] = []
    for one in known if series is None else dict.fromkeys(series):
        instances = instances_of(client, archive, study, one, most=limits.images)
        found += [_Address(study, one, instance) for instance in instances]
        check_count(len(found), limits.images)
    return found


def _not_there(what: str) -> StudyNotFoundError:
    return StudyNotFoundError(
        f"{what}_uid" if what == "study" else what,
        expected=f"a {what} that the archive has" if what == "study" else "series of this study",
        got="one that it does not list",
        way_out="Check the UID, and whether the credentials may see it.",
    )


def _fetch(
    client: DICOMwebClient,
    archive: str,
    wanted: Sequence[_Address],
    folder: Path,
    progress: Callable[[int, int], None] | None,
) -> tuple[Path, ...]:
    written: list[Path] = []
    try:
        for path, address in zip(_numbered(folder), wanted, strict=False):
            written.append(path)
            _fetch_one(client, archive, address, path)
            if progress:
                progress(len(written), len(wanted))
    except BaseException:
        for path in written:
            with suppress(OSError):
                path.unlink()
        raise
    return tuple(written)


def _numbered(folder: Path) -> Iterator[Path]:
    number = 0
    while True:
        number += 1
        path = folder / f"{number:05d}.dcm"
        if not path.exists():
            yield path


def _fetch_one(client: DICOMwebClient, archive: str, address: _Address, path: Path) -> None:
    """Bring one image as the archive keeps it, in whatever transfer syntax that is."""
    from pydicom import dcmwrite

    image = whole(lambda: client.retrieve_instance(address.study, address.series, address.instance))
    if str(image.SOPInstanceUID) != address.instance:
        raise ArchiveAnswerError(archive, "it sent another image than it was asked for.")
    with path.open("xb") as file:
        dcmwrite(file, image, enforce_file_format=True)
