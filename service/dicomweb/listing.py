"""What an archive lists (QIDO-RS), page after page, as UIDs that have been checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from model_core.errors import OptionError
from service.dicomweb.errors import ArchiveAnswerError, StudyTooLargeError
from service.dicomweb.servers import check_uid
from service.dicomweb.session import status_of

if TYPE_CHECKING:
    from dicomweb_client.web import DICOMwebClient

PAGE: Final = 1000
"""Entries asked for at a time; an archive may give fewer."""
_SERIES: Final = "0020000E"
_INSTANCE: Final = "00080018"

Search = Callable[[int], Sequence[dict[str, Any]]]
"""Called with an offset; gives a page of the answers of a QIDO-RS request."""


def series_of(client: DICOMwebClient, archive: str, study: str, *, most: int) -> list[str]:
    """List the SeriesInstanceUIDs of a study; none if the archive does not know it.

    Args:
        client: a connection to the archive.
        archive: its name, for messages.
        study: StudyInstanceUID.
        most: entries that are still accepted.

    Raises:
        StudyTooLargeError: there are more.
        ArchiveAnswerError: the archive lists something without a valid UID.
    """
    from requests import HTTPError

    try:
        return _uids(
            lambda offset: client.search_for_series(study, limit=PAGE, offset=offset),
            _SERIES, archive, most,
        )  # fmt: skip
    except HTTPError as error:
        if status_of(error) in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            return []
        raise


def instances_of(
    client: DICOMwebClient, archive: str, study: str, series: str, *, most: int
) -> list[str]:
    """List the SOPInstanceUIDs of a series that the archive has listed; like `series_of`."""
    return _uids(
        lambda offset: client.search_for_instances(study, series, limit=PAGE, offset=offset),
        _INSTANCE, archive, most,
    )  # fmt: skip


def check_count(count: int, most: int) -> None:
    """Refuse more entries than may be.

    Raises:
        StudyTooLargeError: there are more.
    """
    if count > most:
        raise StudyTooLargeError(
            "study",
            expected=f"at most {most} images",
            got="more",
            way_out="Name the series that are wanted.",
        )


def _uids(search: Search, tag: str, archive: str, most: int) -> list[str]:
    """Ask page after page until one says nothing new: some archives ignore the offset."""
    found: dict[str, None] = {}
    while True:
        page = [_uid_in(entry, tag, archive) for entry in search(len(found))]
        new = dict.fromkeys(uid for uid in page if uid not in found)
        found.update(new)
        check_count(len(found), most)
        if not new:
            return list(found)


def _uid_in(entry: dict[str, Any], tag: str, archive: str) -> str:
    try:
        return check_uid("uid", str(entry[tag]["Value"][0]))
    except (OptionError, LookupError, TypeError):
        raise ArchiveAnswerError(archive, "it lists something without a valid UID.") from None
