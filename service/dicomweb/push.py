"""Objects into an archive: STOW-RS in portions, and a receipt that speaks of each object.

Nothing is sent twice. A portion whose answer is lost may be stored or not: pushing the same objects
again is safe, since they keep their UIDs. An archive's "stored" is held against its own list
(QIDO-RS), since some say it of objects that they drop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from io import BytesIO
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from model_core.dicom.deidentify_rules import UNREADABLE
from model_core.dicom.quiet import quiet_pydicom
from model_core.errors import InputError
from service.dicomweb.errors import ArchiveError, ArchiveUnreachable
from service.dicomweb.listing import instances_of
from service.dicomweb.receipt import (
    NO_FILE,
    NOT_DICOM,
    TOO_LARGE,
    UNCONFIRMED,
    UNLISTED,
    Delivery,
    Receipt,
    failure_in_words,
)
from service.dicomweb.session import Budget, connection, status_of

if TYPE_CHECKING:
    from dicomweb_client.web import DICOMwebClient
    from pydicom.dataset import Dataset

    from service.dicomweb.servers import DicomwebServer

PORTION_BYTES: Final = 32 * 2**20
"""Objects are sent together up to this size; a larger one goes alone."""
ANSWER_BYTES: Final = 16 * 2**20
_HAS_REASONS: Final = (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT)
LOOK_AGAIN_SECONDS: Final = (0.0, 0.5, 1.5, 3.0)
"""Waited before each look at an archive's list: some write it a little later."""
_NEEDED: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_MOST_LISTED: Final = 100_000
_CHANGED: Final = "stored, and changed by the archive"


@dataclass(frozen=True)
class _Parcel:
    number: int
    size: int
    dataset: Dataset

    @property
    def uid(self) -> str:
        return str(self.dataset.SOPInstanceUID)

    @property
    def series(self) -> tuple[str, str]:
        """Study and series, as an archive lists them."""
        return str(self.dataset.StudyInstanceUID), str(self.dataset.SeriesInstanceUID)

    def delivered(self, *, stored: bool, reason: str = "", code: int | None = None) -> Delivery:
        return Delivery(
            number=self.number,
            stored=stored,
            sop_class_uid=str(self.dataset.SOPClassUID),
            sop_instance_uid=self.uid,
            reason=reason,
            code=code,
        )


def push(
    server: DicomwebServer,
    objects: Sequence[bytes | Path],
    *,
    seconds: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Receipt:
    """Hand DICOM objects to an archive.

    Args:
        server: the archive.
        objects: whole DICOM files, or where they are.
        seconds: for all answers together; no limit when None (each has the archive's own).
        progress: called as ``progress(done, total)`` after each portion.

    Returns:
        What the archive said to each. What is no DICOM is refused here and never sent; if the
        archive fails between two portions, the receipt says so of the later ones.

    Raises:
        ArchiveError: the archive cannot be reached, refuses, or does not speak DICOMweb, and has
            stored nothing.
    """
    budget = Budget(
        archive=server.name,
        total_bytes=ANSWER_BYTES * max(1, len(objects)),
        answer_bytes=ANSWER_BYTES,
        deadline=inf if seconds is None else time.monotonic() + seconds,
    )
    deliveries: list[Delivery] = []
    failed: ArchiveError | None = None
    for portion, no_dicom in _portions(objects):
        deliveries += no_dicom
        try:
            deliveries += _not_sent(portion, failed) if failed else _send(server, budget, portion)
        except ArchiveError as error:
            if not any(one.stored for one in deliveries):
                raise
            failed = error
            deliveries += _not_sent(portion, error)
        if progress:
            progress(len(deliveries), len(objects))
    return Receipt(
        archive=server.name,
        deliveries=tuple(sorted(deliveries, key=lambda one: one.number)),
    )


def _portions(
    objects: Sequence[bytes | Path],
) -> Iterator[tuple[list[_Parcel], list[Delivery]]]:
    """Read the objects, a portion at a time, and set aside those that are none."""
    portion: list[_Parcel] = []
    refused: list[Delivery] = []
    for number, item in enumerate(objects, 1):
        parcel = _read(number, item)
        if isinstance(parcel, Delivery):
            refused.append(parcel)
            continue
        if portion and sum(one.size for one in portion) + parcel.size > PORTION_BYTES:
            yield portion, refused
            portion, refused = [], []
        portion.append(parcel)
    yield portion, refused


def _read(number: int, item: bytes | Path) -> _Parcel | Delivery:
    """Open an object and see whether it can be written again, as the protocol's library does."""
    from pydicom import dcmread, dcmwrite
    from pydicom.errors import InvalidDicomError

    try:
        data = item if isinstance(item, bytes) else item.read_bytes()
        with quiet_pydicom():
            dataset = dcmread(BytesIO(data))
            dcmwrite(BytesIO(), dataset)
            whole = all(dataset.get(keyword) for keyword in _NEEDED)
    except OSError:
        return Delivery(number=number, stored=False, reason=NO_FILE)
    except (*UNREADABLE, InvalidDicomError, EOFError, RecursionError):
        whole = False
    if not whole:
        return Delivery(number=number, stored=False, reason=NOT_DICOM)
    return _Parcel(number, len(data), dataset)


def _not_sent(portion: Sequence[_Parcel], error: ArchiveError) -> list[Delivery]:
    reason = "not sent, since the archive failed before"
    if isinstance(error, ArchiveUnreachable):
        reason = "the archive went away"
    return [one.delivered(stored=False, reason=reason) for one in portion]


def _send(server: DicomwebServer, budget: Budget, portion: Sequence[_Parcel]) -> list[Delivery]:
    if not portion:
        return []
    with connection(server, budget) as client:
        answer = _store(client, portion)
        if budget.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return [one.delivered(stored=False, reason=TOO_LARGE) for one in portion]
        silent = budget.status == HTTPStatus.OK and not answer
        failed = _reasons(answer, "FailedSOPSequence", "FailureReason")
        stored = _reasons(answer, "ReferencedSOPSequence", "WarningReason")
        deliveries = [_delivery(one, failed, stored, silent=silent) for one in portion]
        missing = _not_listed(client, server.name, portion, deliveries)
    return [
        replace(one, stored=False, reason=UNLISTED) if one.number in missing else one
        for one in deliveries
    ]


def _not_listed(
    client: DICOMwebClient,
    archive: str,
    portion: Sequence[_Parcel],
    deliveries: Sequence[Delivery],
) -> frozenset[int]:
    """Give the numbers of objects that are said to be stored and do not come to be listed."""
    said = {one.number for one in deliveries if one.stored}
    waiting = [parcel for parcel in portion if parcel.number in said]
    for seconds in LOOK_AGAIN_SECONDS:
        if not waiting:
            break
        time.sleep(seconds)
        listed = _listed(client, archive, {parcel.series for parcel in waiting})
        if listed is None:
            return frozenset()
        waiting = [parcel for parcel in waiting if parcel.uid not in listed]
    return frozenset(parcel.number for parcel in waiting)


def _listed(
    client: DICOMwebClient, archive: str, series: Collection[tuple[str, str]]
) -> frozenset[str] | None:
    """Give what the archive lists of some series, None where it does not list anything to us."""
    from requests import HTTPError

    try:
        return frozenset(
            uid
            for study, one in series
            for uid in instances_of(client, archive, study, one, most=_MOST_LISTED)
        )
    except (HTTPError, ArchiveError, InputError):
        return None


def _store(client: DICOMwebClient, portion: Sequence[_Parcel]) -> Dataset:
    """Send a portion and give the archive's answer, that of a refusal with reasons too."""
    from pydicom.dataset import Dataset
    from requests import HTTPError

    try:
        return client.store_instances([one.dataset for one in portion])
    except HTTPError as error:
        if status_of(error) == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return Dataset()
        if error.response is None or status_of(error) not in _HAS_REASONS:
            raise
        answer = _answer_of(error.response.content)
        if "FailedSOPSequence" not in answer:
            raise
        return answer


def _answer_of(body: bytes) -> Dataset:
    from pydicom.dataset import Dataset

    try:
        return Dataset.from_json(body.decode())
    except (ValueError, KeyError, TypeError, AttributeError):
        return Dataset()


def _reasons(answer: Dataset, sequence: str, reason: str) -> Mapping[str, int | None]:
    items: Any = answer.get(sequence) or []
    return {str(item.get("ReferencedSOPInstanceUID", "")): item.get(reason) for item in items}


def _delivery(
    parcel: _Parcel,
    failed: Mapping[str, int | None],
    stored: Mapping[str, int | None],
    *,
    silent: bool,
) -> Delivery:
    """Judge one object; a plain 200 without a word means that all are stored (PS3.18, 10.5.3)."""
    if parcel.uid in failed:
        code = failed[parcel.uid]
        return parcel.delivered(stored=False, reason=failure_in_words(code), code=code)
    if parcel.uid in stored:
        code = stored[parcel.uid]
        return parcel.delivered(stored=True, reason=_CHANGED if code else "", code=code)
    return parcel.delivered(stored=silent, reason="" if silent else UNCONFIRMED)
