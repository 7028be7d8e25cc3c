"""Handing objects to archives that take them, refuse some, say nothing, lie, or break down."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from service.dicomweb.errors import ArchiveAnswerError, ArchiveRefused, ArchiveUnreachable
from service.dicomweb.push import push
from service.dicomweb.receipt import (
    NO_FILE,
    NOT_DICOM,
    TOO_LARGE,
    UNCONFIRMED,
    UNLISTED,
    failure_in_words,
)
from tests.dicom_series import geometry_affine, slices_of
from tests.service.dicomweb.archive import Answer, Request, Study, scripted_archive

SHAPE = (6, 5, 3)


@pytest.fixture(scope="module")
def datasets() -> list[Dataset]:
    return slices_of(np.arange(90).reshape(SHAPE), geometry_affine(shape=SHAPE))


@pytest.fixture(scope="module")
def objects(datasets: list[Dataset]) -> list[bytes]:
    return [as_bytes(dataset) for dataset in datasets]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.dicomweb.session.BACK_OFF_SECONDS", 0.0)
    monkeypatch.setattr("service.dicomweb.push.LOOK_AGAIN_SECONDS", (0.0, 0.0, 0.0))


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("dicomweb_client", "urllib3")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def as_bytes(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def sent(request: Request) -> list[Dataset]:
    parts = request.body.split(b"--0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1")[1:-1]
    return [dcmread(BytesIO(part.partition(b"\r\n\r\n")[2][:-2])) for part in parts]


def verdict(
    stored: list[Dataset], failed: dict[int, Dataset] | None = None, *, warning: int | None = None
) -> bytes:
    """The body of a STOW-RS answer."""
    answer = Dataset()
    answer.ReferencedSOPSequence = [reference(one, WarningReason=warning) for one in stored]
    if failed:
        answer.FailedSOPSequence = [
            reference(one, FailureReason=code) for code, one in failed.items()
        ]
    return answer.to_json().encode()


def reference(dataset: Dataset, **more: Any) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID = dataset.SOPClassUID
    made.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    for keyword, value in more.items():
        if value is not None:
            setattr(made, keyword, value)
    return made


def archive_that(
    stores: Callable[[Request], Answer], *, lists: list[Dataset] | None = None
) -> Callable[[Request], Answer]:
    """The script of an archive that lists what it is told to, or nothing to anybody."""

    def script(request: Request) -> Answer:
        if request.method == "POST":
            return stores(request)
        return (
            Answer(501) if lists is None else Study(str(lists[0].StudyInstanceUID), lists)(request)
        )

    return script


def test_what_was_handed_over_arrives_and_the_receipt_says_so(
    datasets: list[Dataset], objects: list[bytes], tmp_path: Path
) -> None:
    file = tmp_path / "third.dcm"
    file.write_bytes(objects[2])
    seen: list[tuple[int, int]] = []
    script = archive_that(lambda request: Answer(body=verdict(sent(request))), lists=datasets)
    with scripted_archive(script) as archive:
        receipt = push(
            archive.server(), [*objects[:2], file], progress=lambda *both: seen.append(both)
        )
    (posted,) = [request for request in archive.requests if request.method == "POST"]
    assert [as_bytes(one) for one in sent(posted)] == objects
    assert posted.path == "/dicom-web/studies"
    assert receipt.complete
    assert receipt.as_dict() == {
        "archive": "archive",
        "stored": 3,
        "refused": 0,
        "objects": [
            {
                "number": number,
                "stored": True,
                "sop_class_uid": str(one.SOPClassUID),
                "sop_instance_uid": str(one.SOPInstanceUID),
            }
            for number, one in enumerate(datasets, 1)
        ],
    }
    assert json.loads(json.dumps(receipt.as_dict())) == receipt.as_dict()
    assert seen == [(3, 3)]


def test_large_sets_go_in_portions(
    datasets: list[Dataset], objects: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.dicomweb.push.PORTION_BYTES", len(objects[0]) + 10)
    with scripted_archive(archive_that(lambda r: Answer(body=verdict(sent(r))))) as archive:
        receipt = push(archive.server(), [*objects, b"?"])
    assert len(archive.asked("POST")) == 3
    assert [one.stored for one in receipt.deliveries] == [True, True, True, False]
    assert [one.number for one in receipt.deliveries] == [1, 2, 3, 4]


@pytest.mark.parametrize("status", [202, 409, 400])
def test_each_refusal_has_its_reason(
    status: int, datasets: list[Dataset], objects: list[bytes]
) -> None:
    failed = {0x0122: datasets[1], 0xA900: datasets[2]}
    answer = Answer(status, verdict(datasets[:1], failed))
    with scripted_archive(archive_that(lambda _: answer)) as archive:
        receipt = push(archive.server(), objects)
    assert [one.number for one in receipt.stored] == [1]
    refused = [(one.number, one.code, one.reason) for one in receipt.refused]
    assert refused == [
        (2, 0x0122, failure_in_words(0x0122)),
        (3, 0xA900, failure_in_words(0xA900)),
    ]
    assert receipt.as_dict()["objects"][1]["code"] == "0122"


def test_words_of_a_reason_are_ours() -> None:
    assert "kind" in failure_in_words(0x0122)
    assert "resources" in failure_in_words(0xA7AB)
    assert "understand" in failure_in_words(0xC000)
    assert "transfer syntax" in failure_in_words(0xC122)
    assert failure_in_words(0x4711) == failure_in_words(None)


def test_a_change_by_the_archive_is_mentioned(
    datasets: list[Dataset], objects: list[bytes]
) -> None:
    answer = Answer(202, verdict(datasets, warning=0xB000))
    with scripted_archive(archive_that(lambda _: answer)) as archive:
        receipt = push(archive.server(), objects)
    assert receipt.complete
    assert {(one.code, one.reason) for one in receipt.stored} == {
        (0xB000, "stored, and changed by the archive")
    }


def test_a_plain_200_stores_all_and_silence_about_one_does_not(
    datasets: list[Dataset], objects: list[bytes]
) -> None:
    with scripted_archive(archive_that(lambda _: Answer(200))) as archive:
        assert push(archive.server(), objects).complete
    with scripted_archive(archive_that(lambda _: Answer(202))) as archive:
        assert {one.reason for one in push(archive.server(), objects).refused} == {UNCONFIRMED}
    partly = Answer(body=verdict(datasets[:2]))
    with scripted_archive(archive_that(lambda _: partly)) as archive:
        (one,) = push(archive.server(), objects).refused
    assert (one.number, one.reason) == (3, UNCONFIRMED)


def test_what_is_said_to_be_stored_and_is_not_listed_is_not_believed(
    datasets: list[Dataset], objects: list[bytes]
) -> None:
    script = archive_that(lambda r: Answer(body=verdict(sent(r))), lists=datasets[:2])
    with scripted_archive(script) as archive:
        receipt = push(archive.server(), objects)
    (one,) = receipt.refused
    assert (one.number, one.reason) == (3, UNLISTED)


def test_an_archive_that_lists_a_little_later_is_believed(
    datasets: list[Dataset], objects: list[bytes]
) -> None:
    looks: list[str] = []

    def script(request: Request) -> Answer:
        if request.method == "POST":
            return Answer(body=verdict(sent(request)))
        looks.append(request.path)
        known = datasets if len(looks) > 2 else datasets[:1]
        return Study(str(datasets[0].StudyInstanceUID), known)(request)

    with scripted_archive(script) as archive:
        assert push(archive.server(), objects).complete


@pytest.mark.parametrize("status", [401, 404, 501])
def test_an_archive_that_lists_nothing_to_us_is_taken_at_its_word(
    status: int, objects: list[bytes]
) -> None:
    def script(request: Request) -> Answer:
        if request.method == "POST":
            return Answer(body=verdict(sent(request)))
        return Answer(status)

    with scripted_archive(script) as archive:
        assert push(archive.server(), objects).complete


def test_a_file_that_cannot_be_read_harms_no_other(objects: list[bytes], tmp_path: Path) -> None:
    script = archive_that(lambda request: Answer(body=verdict(sent(request))))
    with scripted_archive(script) as archive:
        receipt = push(archive.server(), [tmp_path / "gone.dcm", objects[0], tmp_path])
    assert [(one.stored, one.reason) for one in receipt.deliveries] == [
        (False, NO_FILE), (True, ""), (False, NO_FILE),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "nothing",
    [b"", b"hello", bytes(128) + b"DICM", bytes(128) + b"DICM" + b"\xff" * 64],
)
def test_what_is_no_dicom_is_never_sent(nothing: bytes) -> None:
    with scripted_archive(lambda _: Answer(500)) as archive:
        receipt = push(archive.server(), [nothing])
    assert [one.reason for one in receipt.refused] == [NOT_DICOM]
    assert not archive.requests


def test_an_object_without_its_uids_is_never_sent(datasets: list[Dataset]) -> None:
    dataset = dcmread(BytesIO(as_bytes(datasets[0])))
    del dataset.SeriesInstanceUID
    with scripted_archive(lambda _: Answer(500)) as archive:
        assert push(archive.server(), [as_bytes(dataset)]).refused[0].reason == NOT_DICOM
    assert not archive.requests


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(hang_up=True), ArchiveUnreachable),
        (Answer(503), ArchiveRefused),
        (Answer(429), ArchiveRefused),
        (Answer(500), ArchiveRefused),
        (Answer(401), ArchiveRefused),
        (Answer(400, b"what?"), ArchiveRefused),
        (Answer(302, headers={"Location": "http://127.0.0.1:9/"}), ArchiveRefused),
        (Answer(200, b"<html>"), ArchiveAnswerError),
    ],
)
def test_nothing_is_ever_sent_twice(
    answer: Answer, error: type[Exception], objects: list[bytes]
) -> None:
    with scripted_archive(archive_that(lambda _: answer)) as archive, pytest.raises(error):
        push(archive.server(), objects)
    assert len(archive.asked("POST")) == 1


def test_too_large_is_said_of_the_portion(objects: list[bytes]) -> None:
    with scripted_archive(archive_that(lambda _: Answer(413))) as archive:
        receipt = push(archive.server(), objects)
    assert {one.reason for one in receipt.refused} == {TOO_LARGE}


def test_when_it_breaks_down_in_between_the_receipt_tells_how_far_it_came(
    objects: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.dicomweb.push.PORTION_BYTES", 1)
    posts: list[Request] = []

    def stores(request: Request) -> Answer:
        posts.append(request)
        return Answer(body=verdict(sent(request))) if len(posts) == 1 else Answer(hang_up=True)

    with scripted_archive(archive_that(stores)) as archive:
        receipt = push(archive.server(), objects)
    assert [one.stored for one in receipt.deliveries] == [True, False, False]
    assert len(posts) == 2
    assert {one.reason for one in receipt.refused} == {"the archive went away"}


def test_a_body_in_chunks_arrives_whole(datasets: list[Dataset]) -> None:
    dataset = dcmread(BytesIO(as_bytes(datasets[0])))
    dataset.PixelData = np.random.default_rng(0).bytes(3_000_000)
    with scripted_archive(archive_that(lambda r: Answer(body=verdict(sent(r))))) as archive:
        assert push(archive.server(), [as_bytes(dataset)]).complete
    (posted,) = [request for request in archive.requests if request.method == "POST"]
    assert sent(posted)[0].PixelData == dataset.PixelData


def test_no_log_line_and_no_error_names_the_object(
    datasets: list[Dataset], objects: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    said = []
    with caplog.at_level(logging.DEBUG):
        for answer in (Answer(200), Answer(409, verdict([], {0x0110: datasets[0]})), Answer(500)):
            with scripted_archive(archive_that(lambda _, answer=answer: answer)) as archive:  # type: ignore[misc]
                try:
                    said.append(
                        repr([one.reason for one in push(archive.server(), objects).refused])
                    )
                except ArchiveRefused as error:
                    said.append(str(error))
    assert len(said) == 3
    for word in (datasets[0].SOPInstanceUID, datasets[0].StudyInstanceUID, "Phantom", "127.0.0.1"):
        assert word not in caplog.text
        assert word not in "".join(said)
