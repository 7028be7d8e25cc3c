"""Pulling from archives that answer well, badly, too much, or not at all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from model_core.errors import OptionError
from service.dicomweb.errors import (
    ArchiveAnswerError,
    ArchiveRefused,
    ArchiveUnreachable,
    StudyNotFoundError,
    StudyTooLargeError,
)
from service.dicomweb.pull import PullLimits, pull_study
from service.dicomweb.servers import DicomwebServer
from tests.dicom_series import PLAIN, geometry_affine, slices_of, study_uid
from tests.service.dicomweb.archive import Answer, Request, Study, listing, scripted_archive

STUDY = study_uid()
SHAPE = (6, 5, 4)


@pytest.fixture(scope="module")
def datasets() -> list[Dataset]:
    values = np.arange(120).reshape(SHAPE)
    affine = geometry_affine(shape=SHAPE)
    first = slices_of(values, affine)
    second = slices_of(values + 500, affine, replace(PLAIN, seed="second"))
    return [as_stored(dataset) for dataset in first + second]


def as_stored(dataset: Dataset) -> Dataset:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return dcmread(BytesIO(file.getvalue()))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.dicomweb.session.BACK_OFF_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("dicomweb_client", "urllib3")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_a_study_comes_whole_and_as_it_is(datasets: list[Dataset], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with scripted_archive(Study(STUDY, datasets)) as archive:
        files = pull_study(
            archive.server(), STUDY, tmp_path / "s", progress=lambda *both: seen.append(both)
        )
    assert [file.name for file in files] == [f"{n:05d}.dcm" for n in range(1, 9)]
    assert [dcmread(file) for file in files] == datasets
    assert seen == [(n, 8) for n in range(1, 9)]


def test_only_the_series_that_are_wanted_come(datasets: list[Dataset], tmp_path: Path) -> None:
    wanted = str(datasets[-1].SeriesInstanceUID)
    with scripted_archive(Study(STUDY, datasets)) as archive:
        files = pull_study(archive.server(), STUDY, tmp_path, series=[wanted])
        assert [dcmread(file) for file in files] == datasets[4:]
        with pytest.raises(StudyNotFoundError, match="series"):
            pull_study(archive.server(), STUDY, tmp_path, series=["1.2.3"])


def test_short_pages_are_asked_for_until_all_is_listed(
    datasets: list[Dataset], tmp_path: Path
) -> None:
    with scripted_archive(Study(STUDY, datasets, page=3)) as archive:
        assert len(pull_study(archive.server(), STUDY, tmp_path)) == 8


def test_an_archive_that_ignores_the_offset_is_no_trap(
    datasets: list[Dataset], tmp_path: Path
) -> None:
    class Forgetful(Study):
        def paged(self, uids: list[str], request: Request) -> list[str]:
            return uids

    with scripted_archive(Forgetful(STUDY, datasets)) as archive:
        assert len(pull_study(archive.server(), STUDY, tmp_path)) == 8


def test_files_that_are_there_stay(datasets: list[Dataset], tmp_path: Path) -> None:
    mine = tmp_path / "00002.dcm"
    mine.write_bytes(b"mine")
    with scripted_archive(Study(STUDY, datasets)) as archive:
        files = pull_study(archive.server(), STUDY, tmp_path)
    assert mine.read_bytes() == b"mine"
    assert mine not in files


def test_credentials_go_along_and_the_host_keeps_its_port(
    datasets: list[Dataset], tmp_path: Path
) -> None:
    with scripted_archive(Study(STUDY, datasets)) as archive:
        pull_study(archive.server(token="t0k"), STUDY, tmp_path / "a")
        pull_study(archive.server(user="ü", password="p"), STUDY, tmp_path / "b")
    said = [request.headers["Authorization"] for request in archive.requests]
    assert set(said) == {"Bearer t0k", "Basic w7w6cA=="}
    host = archive.url.split("/")[2]
    assert {request.headers["Host"] for request in archive.requests} == {host}


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_named(status: int, tmp_path: Path) -> None:
    with (
        scripted_archive(lambda _: Answer(status)) as archive,
        pytest.raises(ArchiveRefused, match="credentials") as caught,
    ):
        pull_study(archive.server(), STUDY, tmp_path)
    assert caught.value.status == status
    assert len(archive.requests) == 1


def test_a_busy_archive_is_asked_again(datasets: list[Dataset], tmp_path: Path) -> None:
    study, busy = Study(STUDY, datasets), iter([503, 429])

    def script(request: Request) -> Answer:
        status = next(busy, None)
        return study(request) if status is None else Answer(status)

    with scripted_archive(script) as archive:
        assert len(pull_study(archive.server(), STUDY, tmp_path)) == 8


@pytest.mark.parametrize("broken", [Answer(hang_up=True), Answer(body=b"--x\r\n", claimed=5000)])
def test_what_broke_off_is_asked_for_again(
    broken: Answer, datasets: list[Dataset], tmp_path: Path
) -> None:
    study, answers = Study(STUDY, datasets), iter([broken, broken])

    def script(request: Request) -> Answer:
        is_image = request.path.count("/") >= 7
        return (next(answers, None) if is_image else None) or study(request)

    with scripted_archive(script) as archive:
        files = pull_study(archive.server(), STUDY, tmp_path)
    assert [dcmread(file) for file in files] == datasets


def test_one_that_stays_busy_is_given_up(tmp_path: Path) -> None:
    with (
        scripted_archive(lambda _: Answer(503)) as archive,
        pytest.raises(ArchiveRefused, match="busy") as caught,
    ):
        pull_study(archive.server(), STUDY, tmp_path)
    assert caught.value.status == 503
    assert len(archive.requests) == 4


def test_no_redirect_is_followed(datasets: list[Dataset], tmp_path: Path) -> None:
    with scripted_archive(Study(STUDY, datasets)) as inside:
        target = f"{inside.url}/studies/{STUDY}/series"
        with (
            scripted_archive(lambda _: Answer(302, headers={"Location": target})) as archive,
            pytest.raises(ArchiveRefused, match="redirects"),
        ):
            pull_study(archive.server(token="secret"), STUDY, tmp_path)
    assert not inside.requests


@pytest.mark.parametrize("status", [200, 404])
def test_a_study_that_is_not_there_is_said(status: int, tmp_path: Path) -> None:
    with (
        scripted_archive(lambda _: Answer(status, b"[]")) as archive,
        pytest.raises(StudyNotFoundError) as caught,
    ):
        pull_study(archive.server(), STUDY, tmp_path)
    assert STUDY not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b"<html>hello</html>", kind="text/html"),
        Answer(body=b'[{"0020000E": {"vr": "UI"}}]'),
        Answer(body=b"[7]"),
        listing("0020000E", "../../admin"),
    ],
)
def test_an_answer_that_is_not_dicomweb_is_said(answer: Answer, tmp_path: Path) -> None:
    with scripted_archive(lambda _: answer) as archive, pytest.raises(ArchiveAnswerError):
        pull_study(archive.server(), STUDY, tmp_path)
    assert "admin" not in "".join(archive.asked("GET"))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(body=b"no multipart", kind="text/plain"), ArchiveAnswerError),
        (Answer(body=b"", kind="multipart/related; boundary=x"), ArchiveAnswerError),
        (Answer(body=b"--x\r\n", claimed=5000), ArchiveUnreachable),
        (Answer(hang_up=True), ArchiveUnreachable),
        (Answer(404), ArchiveRefused),
    ],
)
def test_when_an_image_cannot_be_had_nothing_stays(
    answer: Answer, error: type[Exception], datasets: list[Dataset], tmp_path: Path
) -> None:
    study, good = Study(STUDY, datasets), iter([1, 2])

    def script(request: Request) -> Answer:
        is_image = request.path.count("/") >= 7
        return answer if is_image and next(good, None) is None else study(request)

    with scripted_archive(script) as archive, pytest.raises(error):
        pull_study(archive.server(), STUDY, tmp_path)
    assert not list(tmp_path.iterdir())


def test_another_image_than_the_one_asked_for_is_refused(
    datasets: list[Dataset], tmp_path: Path
) -> None:
    study = Study(STUDY, datasets)

    def script(request: Request) -> Answer:
        if request.path.count("/") < 7:
            return study(request)
        path = request.path.rpartition("/")[0] + f"/{datasets[0].SOPInstanceUID}"
        return study(replace(request, path=path))

    with scripted_archive(script) as archive, pytest.raises(ArchiveAnswerError, match="another"):
        pull_study(archive.server(), STUDY, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "limits",
    [PullLimits(images=7), PullLimits(image_bytes=900), PullLimits(total_bytes=4000)],
)
def test_more_than_allowed_is_cut_off(
    limits: PullLimits, datasets: list[Dataset], tmp_path: Path
) -> None:
    with scripted_archive(Study(STUDY, datasets)) as archive, pytest.raises(StudyTooLargeError):
        pull_study(archive.server(), STUDY, tmp_path, limits=limits)
    assert not list(tmp_path.iterdir())


def test_time_is_limited_too(datasets: list[Dataset], tmp_path: Path) -> None:
    with (
        scripted_archive(Study(STUDY, datasets)) as archive,
        pytest.raises(ArchiveUnreachable, match="too long"),
    ):
        pull_study(archive.server(), STUDY, tmp_path, limits=PullLimits(seconds=0))


def test_an_archive_that_is_down_is_said(tmp_path: Path) -> None:
    server = DicomwebServer(name="gone", url="http://127.0.0.1:9/dicom-web")
    with pytest.raises(ArchiveUnreachable, match="archive gone: it cannot be reached") as caught:
        pull_study(server, STUDY, tmp_path)
    assert "127.0.0.1" not in str(caught.value)
    assert STUDY not in str(caught.value)


def test_a_silent_archive_is_not_waited_for(datasets: list[Dataset], tmp_path: Path) -> None:
    answer = Answer(body=b"", claimed=10)

    def script(request: Request) -> Answer:
        return answer

    with scripted_archive(script) as archive, pytest.raises(ArchiveUnreachable):
        pull_study(archive.server(timeout_s=0.2), STUDY, tmp_path)


def test_no_log_line_names_the_study(
    datasets: list[Dataset], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), scripted_archive(Study(STUDY, datasets)) as archive:
        pull_study(archive.server(), STUDY, tmp_path)
    assert STUDY not in caplog.text
    assert archive.url not in caplog.text


@pytest.mark.parametrize("uid", ["..", "1.2/3", ""])
def test_nothing_is_asked_for_a_uid_that_cannot_be_one(uid: str, tmp_path: Path) -> None:
    with scripted_archive(lambda _: Answer(500)) as archive:
        with pytest.raises(OptionError, match="study_uid"):
            pull_study(archive.server(), uid, tmp_path)
        with pytest.raises(OptionError, match="series"):
            pull_study(archive.server(), STUDY, tmp_path, series=[uid])
    assert not archive.requests
