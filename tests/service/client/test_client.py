"""The client's verbs against a real server: what is sent, what comes back, what is asked again."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from starlette.responses import HTMLResponse, Response

from model_core.errors import OptionError, SegMambaError, StudyError
from service.client import (
    Client,
    ServerRefused,
    ServerUnreachable,
    SubmitOptions,
    UnknownAnswerError,
)
from tests.service.client.conftest import QUICK, Study
from tests.service.client.server import KEY, JobServer, job_server, problem

POST = ("POST", "/jobs")


def test_the_package_loads_without_the_servers_frameworks_its_database_or_torch() -> None:
    code = (
        "import sys, service.client as door, service.client.cli, service.client.cli_jobs, "
        "service.client.batch, service.client.session, service.client.plan\n"
        "[getattr(door, name) for name in door.__all__]\n"
        "print([name for name in ('fastapi', 'starlette', 'sqlalchemy', 'dbos', 'torch') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_commands_load_without_an_http_client() -> None:
    """``segmamba --help`` imports every command and shall answer at once."""
    code = (
        "import sys, service.client.cli, service.client.cli_jobs\n"
        "print([name for name in ('httpx', 'pydantic', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_four_files_arrive_whole_and_without_their_names(
    server: JobServer, client: Client, study: Study
) -> None:
    job = client.submit(study)
    assert (job.state, job.open, job.position, job.eta_s) == ("queued", True, 1, 12.5)
    assert server.last.digests == {
        contrast: hashlib.sha256(path.read_bytes()).hexdigest() for contrast, path in study.items()
    }
    assert server.last.filenames == ["t1.nii.gz", "t1ce.nii.gz", "t2.nii.gz", "flair.nii.gz"]


def test_only_the_options_that_were_chosen_are_sent(
    server: JobServer, client: Client, study: Study
) -> None:
    client.submit(study)
    assert server.last.form == {}
    client.submit(
        study,
        SubmitOptions(
            model="m", tta="fast", label_scheme="brats2023", postprocess=False, window="whole",
            priority="high", batch="b-1", cache=False, allow_fewer_passes=True,
        ),
    )  # fmt: skip
    assert server.last.form == {
        "model": "m", "tta": "fast", "label_scheme": "brats2023", "postprocess": "false",
        "window": "whole", "priority": "high", "batch": "b-1", "cache": "false",
        "allow_fewer_passes": "true",
    }  # fmt: skip


def test_a_study_of_three_is_refused_before_anything_is_sent(
    server: JobServer, client: Client, study: Study
) -> None:
    del study["t2"]
    with pytest.raises(StudyError, match="t2"):
        client.submit(study)
    assert not server.asked


def test_every_call_makes_a_job_and_one_key_makes_one(
    server: JobServer, client: Client, study: Study
) -> None:
    assert client.submit(study).id != client.submit(study).id
    first, second = (client.submit(study, idempotency_key="once") for _ in range(2))
    assert first.id == second.id
    assert len(server.jobs) == 3


LATER = {"Retry-After": "0"}


@pytest.mark.parametrize(
    "fault",
    [
        lambda: "lose",
        lambda: problem(503, "shutting-down", "Later.", headers=LATER),
        lambda: problem(429, "queue-full", "The queue is full.", headers=LATER),
        lambda: problem(429, "queue-full", "Full.", headers={"Retry-After": formatdate()}),
        lambda: HTMLResponse("bad gateway", 502),
        lambda: HTMLResponse("gateway timeout", 504),
    ],
    ids=["answer lost", "draining", "queue full", "a date", "a proxy's 502", "a proxy's 504"],
)
def test_a_study_that_must_be_sent_again_becomes_one_job(
    server: JobServer, client: Client, study: Study, fault: Callable[[], Response | str]
) -> None:
    server.fault(*POST, fault(), fault())
    job = client.submit(study)
    assert server.count(*POST) == 3
    assert list(server.jobs) == [job.id]
    assert server.last.digests["flair"] == hashlib.sha256(study["flair"].read_bytes()).hexdigest()


def test_a_server_that_comes_back_is_waited_for(
    server: JobServer, client: Client, study: Study
) -> None:
    first = client.submit(study)
    server.stop()
    later = threading.Timer(0.2, server.start)
    later.start()
    second = client.submit(study)
    later.join()
    assert list(server.jobs) == [first.id, second.id]


def test_the_pause_that_the_server_asks_for_is_kept(
    server: JobServer, client: Client, study: Study
) -> None:
    server.fault(*POST, problem(503, "not-ready", "Later.", headers={"Retry-After": "1"}))
    began = time.monotonic()
    client.submit(study)
    assert 1 <= time.monotonic() - began < 3


def test_a_longer_pause_than_patience_is_the_callers_to_make(
    server: JobServer, client: Client, study: Study
) -> None:
    server.fault(*POST, problem(429, "queue-full", "Full.", headers={"Retry-After": "600"}))
    began = time.monotonic()
    with pytest.raises(ServerRefused) as refused:
        client.submit(study)
    assert time.monotonic() - began < 1
    assert (refused.value.cause, refused.value.retry_after) == ("queue-full", 600)


def test_a_full_queue_is_told_at_once_to_who_does_not_want_to_wait(
    server: JobServer, client: Client, study: Study
) -> None:
    server.room = 0
    with pytest.raises(ServerRefused, match="queue-full"):
        client.submit(study, wait_for_room=False)
    assert server.count(*POST) == 1


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (413, "upload-too-large"),
        (415, "unsupported-media-type"),
        (422, "image"),
        (507, "no-space"),
        (503, "out-of-memory"),
    ],
)
def test_a_refusal_that_time_does_not_change_is_told_at_once(
    server: JobServer, client: Client, study: Study, status: int, cause: str
) -> None:
    """A 503 that does not say when to come back is one of them."""
    way_out = "Send a smaller one."
    server.fault(*POST, problem(status, cause, "t1: expected less.", field="t1", way_out=way_out))
    with pytest.raises(ServerRefused) as caught:
        client.submit(study)
    refused = caught.value
    assert (refused.status, refused.cause, refused.field) == (status, cause, "t1")
    assert refused.way_out == way_out
    assert str(refused) == f"the server refused ({cause}): t1: expected less. {way_out}"
    assert server.count(*POST) == 1


def test_nobody_there_is_told_soon_and_with_the_address(study: Study) -> None:
    with job_server() as server:
        url = server.url
    began = time.monotonic()
    with Client(url, patience=QUICK) as client, pytest.raises(ServerUnreachable, match=url):
        client.submit(study)
    assert time.monotonic() - began < 2


def test_another_service_at_the_address_is_told(server: JobServer, client: Client) -> None:
    server.fault("GET", "/jobs/{id}", HTMLResponse("<h1>It works</h1>"), HTMLResponse("no", 404))
    with pytest.raises(UnknownAnswerError, match="address"):
        client.job("x")
    with pytest.raises(ServerRefused, match=r"HTTP 404.*address"):
        client.job("x")


def test_the_label_map_is_the_servers_byte_for_byte_however_often_it_must_be_asked_for(
    server: JobServer, client: Client, study: Study
) -> None:
    job = client.submit(study)
    server.tell(job.id, "succeeded")
    server.fault("GET", "/jobs/{id}/result", "lose", "lose")
    assert client.result(job.id) == server.last.result
    assert client.report(job.id)["model"] == "tiny"


def test_a_result_that_is_not_there_says_why(
    server: JobServer, client: Client, study: Study
) -> None:
    ids = [client.submit(study).id for _ in range(3)]
    error = {"type": "urn:segmamba:problem:numerical", "title": "t", "status": 500, "detail": "NaN"}
    server.tell(ids[1], "failed", error=error)
    server.tell(ids[2], "cancelled")
    causes = []
    for job_id in ids:
        with pytest.raises(ServerRefused) as refused:
            client.result(job_id)
        causes.append(refused.value.cause)
    assert causes == ["not-finished", "numerical", "gone"]
    failed = client.job(ids[1])
    assert failed.error is not None
    assert failed.error.detail == "NaN"


def test_all_pages_are_walked_and_none_at_an_address_that_the_answer_names(
    server: JobServer, client: Client, study: Study
) -> None:
    """The pages' links name an inner address; the key must not follow them."""
    ids = [client.submit(study, SubmitOptions(batch="b" if n % 2 else None)).id for n in range(8)]
    assert [job.id for job in client.jobs()] == ids[::-1]
    assert server.count("GET", "/jobs") == 3
    assert [job.id for job in client.jobs(batch="b", page=1)] == ids[1::2][::-1]
    server.tell(ids[0], "running")
    assert [job.id for job in client.jobs(state="running")] == [ids[0]]


def test_cancelling_keeps_what_has_ended_and_deleting_removes_it(
    server: JobServer, client: Client, study: Study
) -> None:
    job = client.submit(study)
    assert client.cancel(job.id).state == "cancelled"
    assert client.cancel(job.id).state == "cancelled"
    done = client.submit(study)
    server.tell(done.id, "succeeded")
    assert client.cancel(done.id).succeeded
    client.delete(done.id)
    with pytest.raises(ServerRefused, match="no such job"):
        client.job(done.id)


def test_a_lost_answer_turns_no_cancelling_into_deleting(
    server: JobServer, client: Client, study: Study
) -> None:
    job = client.submit(study)
    server.fault("POST", "/jobs/{id}/cancel", "lose")
    assert client.cancel(job.id).state == "cancelled"
    assert not server.last.deleted


def test_an_open_job_is_cancelled_and_deleted_even_if_every_answer_is_lost_once(
    server: JobServer, client: Client, study: Study
) -> None:
    job = client.submit(study)
    server.fault("DELETE", "/jobs/{id}", "lose", "lose")
    client.delete(job.id)
    assert server.last.deleted
    with pytest.raises(ServerRefused, match="not-found"):
        client.delete(job.id)


def test_a_batch_is_counted_and_cancelled(server: JobServer, client: Client, study: Study) -> None:
    ids = [client.submit(study, SubmitOptions(batch="b")).id for _ in range(3)]
    server.tell(ids[0], "succeeded")
    assert client.batch("b").counts == {"succeeded": 1, "queued": 2}
    assert not client.batch("b").done
    client.cancel_batch("b")
    assert client.batch("b").counts == {"succeeded": 1, "cancelled": 2}
    assert client.batch("b").done


def test_a_key_opens_and_is_never_told(study: Study) -> None:
    """Not by a refusal that repeats it, not by a server that has gone, not by what is shown."""
    with job_server(key=KEY) as server:
        with Client(server.url, patience=QUICK) as stranger:
            with pytest.raises(ServerRefused) as refused:
                stranger.submit(study)
            assert refused.value.status == 401
        client = Client(server.url, key=KEY, patience=replace(QUICK, outage_s=0.1))
        job = client.submit(study)
        server.fault("GET", "/jobs/{id}", problem(403, "key", f"{KEY} may not.", way_out=KEY))
        told = [repr(client), repr(job), _error_of(lambda: client.job(job.id))]
    told.append(_error_of(lambda: client.job(job.id)))
    client.close()
    assert "may not" in told[2]
    assert not [text for text in told if KEY in text]


def _error_of(call: Callable[[], object]) -> str:
    with pytest.raises(SegMambaError) as caught:
        call()
    return f"{caught.value!s} {caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize("key", ["", "sgm_two words", "sgm_line\nbreak", "sgm_ü"])
def test_what_cannot_be_a_key_is_refused_unread(key: str) -> None:
    with pytest.raises(OptionError, match="key") as caught:
        Client("http://127.0.0.1:1", key=key)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    "server",
    ["", "127.0.0.1:8000", "ftp://host", "https://", "http://jane:secret@host", "http://h/?q=1"],
)
def test_what_cannot_be_an_address_is_refused(server: str) -> None:
    with pytest.raises(OptionError, match="server") as caught:
        Client(server)
    assert "secret" not in str(caught.value)


def test_a_service_below_a_path_is_found(server: JobServer) -> None:
    with Client(f"{server.url}/brain/") as client, pytest.raises(ServerRefused):
        client.job("x")
    assert not server.asked  # it asked for /brain/jobs/x, which is nothing here


UPLOAD = """
import resource, sys
from pathlib import Path
from service.client import Client
big, small, url = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Client(url) as client:
    study = {contrast: small for contrast in ("t1", "t1ce", "t2", "flair")}
    client.submit(study)
    before = peak()
    client.submit({**study, "t1": big})
    print((peak() - before) / 1024)
"""


def test_a_large_image_is_sent_without_being_held(
    server: JobServer, study: Study, tmp_path: Path
) -> None:
    size = 64 << 20
    big = tmp_path / "big.nii"
    with big.open("wb") as file:
        file.truncate(size)
    done = subprocess.run(
        [sys.executable, "-c", UPLOAD, str(big), str(study["t1"]), server.url],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert float(done.stdout) < 16
    digest = hashlib.sha256()
    for _ in range(64):
        digest.update(bytes(1 << 20))
    assert server.last.digests["t1"] == digest.hexdigest()


def test_a_dicom_study_is_sent_as_one_archive_and_its_files_come_back(
    server: JobServer, client: Client, tmp_path: Path
) -> None:
    archive = tmp_path / "DOE_JANE.zip"
    archive.write_bytes(b"PK\x03\x04 and more")
    job = client.submit(archive)
    assert server.last.digests == {"dicom": hashlib.sha256(archive.read_bytes()).hexdigest()}
    assert server.last.filenames == ["study.zip"]
    server.tell(job.id, "succeeded")
    assert client.archive(job.id) == b"PK" + server.last.result
    assert client.file(job.id, "statistics.csv").startswith(b"study,structure")
    with pytest.raises(ServerRefused, match="not-found"):
        client.file(job.id, "other")
