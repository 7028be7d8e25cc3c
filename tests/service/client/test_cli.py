"""``segmamba submit`` and ``segmamba jobs``: what a user asks for, gets, and is told."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import Result

from tests.service.client.conftest import Study, write_study
from tests.service.client.server import KEY, JobServer, job_server, problem

Run = Callable[..., Result]
POST = ("POST", "/jobs")
SOON = {"Retry-After": "0"}
COMMAND = [sys.executable, "-c", "from tests.service.client.commandline import app; app()"]
ROOT = Path(__file__).parents[3]


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    for name in "ABC":
        write_study(tmp_path / "studies" / name, name)
    return tmp_path / "studies"


def results(server: JobServer) -> list[bytes]:
    return [record.result for record in server.jobs.values()]


def by_server(server: JobServer) -> list[str]:
    return ["--server", server.url]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# ---------------------------------------------------------------- one study


def test_one_study_becomes_the_file_that_the_server_made(
    segmamba: Run, server: JobServer, study: Study, tmp_path: Path
) -> None:
    server.run_jobs()
    target = tmp_path / "out" / "seg.nii.gz"
    files = [word for contrast, path in study.items() for word in (f"--{contrast}", path)]
    done = segmamba("submit", *files, *by_server(server), "-o", target)
    assert done.exit_code == 0, done.output
    assert target.read_bytes() == server.last.result
    assert str(target) in done.stdout
    assert names_in(target.parent) == ["seg.nii.gz"]


def test_options_and_report_are_obeyed_and_plain_nifti_is_unpacked(
    segmamba: Run, server: JobServer, study: Study, tmp_path: Path
) -> None:
    server.run_jobs()
    done = segmamba(
        "submit", study["t1"].parent, *by_server(server), "-o", tmp_path / "seg.nii", "--report",
        tmp_path / "run.json", "-m", "other", "--tta", "full", "--label-scheme", "brats2023",
        "--window", "whole", "--no-postprocess", "--priority", "low", "--batch", "b7", "--no-cache",
        "--allow-fewer-passes",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (tmp_path / "seg.nii").read_bytes() == gzip.decompress(server.last.result)
    assert json.loads((tmp_path / "run.json").read_text()) == {"schema_version": 1, "model": "tiny"}
    assert server.last.form == {
        "model": "other", "tta": "full", "label_scheme": "brats2023", "window": "whole",
        "postprocess": "false", "priority": "low", "batch": "b7", "cache": "false",
        "allow_fewer_passes": "true",
    }  # fmt: skip


def test_a_result_that_is_there_is_refused_before_anything_is_sent(
    segmamba: Run, server: JobServer, study: Study, tmp_path: Path
) -> None:
    target = tmp_path / "seg.nii.gz"
    target.write_bytes(b"precious")
    words = ["submit", study["t1"].parent, *by_server(server), "-o", target]
    refused = segmamba(*words)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert not server.asked
    server.run_jobs()
    assert segmamba(*words, "--overwrite").exit_code == 0
    assert target.read_bytes() == server.last.result


def test_a_server_that_is_not_named_is_asked_for(segmamba: Run, study: Study) -> None:
    done = segmamba("submit", study["t1"].parent)
    assert done.exit_code == 2
    assert "SEGMAMBA_SERVER" in done.stderr
    assert done.stderr.count("\n") == 1


def test_nobody_at_the_address_is_a_failure_that_says_how_to_go_on(
    segmamba: Run, study: Study, tmp_path: Path
) -> None:
    with job_server() as gone:
        pass
    target = tmp_path / "seg.nii.gz"
    done = segmamba("submit", study["t1"].parent, "--server", gone.url, "-o", target)
    assert done.exit_code == 1
    assert f"error: no answer from {gone.url}" in done.stderr
    assert "segmamba submit STUDY… --resume" in done.stderr


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_job_that_ends_badly_is_a_failure_with_the_servers_reason(
    segmamba: Run, server: JobServer, study: Study, tmp_path: Path, end: str
) -> None:
    error = {"type": "urn:segmamba:problem:image", "title": "t", "status": 422, "detail": "Bad t1."}

    def finish() -> None:
        server.tell(server.last.id, end, error=error if end == "failed" else None)

    with once(lambda: bool(server.jobs), finish):
        done = segmamba("submit", study["t1"].parent, *by_server(server), "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert ("Bad t1." if end == "failed" else "cancelled") in done.stdout
    assert "0 of 1 studies done, 1 failed" in done.stdout
    assert not names_in(tmp_path / "out")  # there is nothing to go on with


# ---------------------------------------------------------------- keys


def test_the_key_comes_from_a_file_or_the_environment_and_goes_nowhere_else(
    segmamba: Run, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with job_server(key=KEY) as locked:
        words = ["submit", study["t1"].parent, *by_server(locked), "-o", tmp_path / "out"]
        stranger = segmamba(*words)
        assert (stranger.exit_code, "unauthorised" in stranger.stderr) == (2, True)
        key_file = tmp_path / "key"
        key_file.write_text(f"{KEY}\n")
        sent = segmamba(*words, "--no-wait", "--key-file", key_file)
        assert sent.exit_code == 0, sent.output
        (state,) = (tmp_path / "out").iterdir()
        assert KEY not in state.read_text()
        locked.run_jobs()
        monkeypatch.setenv("SEGMAMBA_KEY", KEY)
        done = segmamba("submit", "--resume", state)
    assert done.exit_code == 0, done.output
    told = "".join(result.stdout + result.stderr for result in (stranger, sent, done))
    assert KEY not in told


def test_a_key_on_an_open_road_is_warned_of(
    segmamba: Run, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGMAMBA_KEY", "sgm_two words")
    done = segmamba("submit", study["t1"].parent, "--server", "http://h.invalid", "-o", tmp_path)
    assert done.exit_code == 2
    assert "two words" not in done.stderr
    monkeypatch.setenv("SEGMAMBA_KEY", KEY)
    done = segmamba("submit", study["t1"].parent, "--server", "http://h.invalid", "-o", tmp_path)
    assert "warning: your key and the images travel unencrypted" in done.stderr


# ---------------------------------------------------------------- many studies


def test_many_studies_are_handed_in_watched_and_written(
    segmamba: Run, server: JobServer, studies: Path, tmp_path: Path
) -> None:
    server.room, server.page = 2, 1
    server.fault("GET", "/jobs", too_often := problem(429, "rate", "Slowly.", headers=SOON))
    server.fault("GET", "/jobs/{id}", too_often)
    server.run_jobs()
    out = tmp_path / "out"
    done = segmamba("submit", studies, *by_server(server), "-o", out, "--report", out)
    assert done.exit_code == 0, done.output
    assert names_in(out) == ["A.json", "A.nii.gz", "B.json", "B.nii.gz", "C.json", "C.nii.gz"]
    assert [(out / f"{name}.nii.gz").read_bytes() for name in "ABC"] == results(server)
    assert "3 of 3 studies done, 0 failed" in done.stdout
    batches = {record.form["batch"] for record in server.jobs.values()}
    assert len(batches) == 1


def test_of_many_one_refusal_is_told_and_the_others_are_done(
    segmamba: Run, server: JobServer, studies: Path, tmp_path: Path
) -> None:
    server.run_jobs()
    server.fault(*POST, problem(422, "image", "flair: expected an image, got none."))
    out = tmp_path / "out"
    done = segmamba("submit", studies, *by_server(server), "-o", out, "--json")
    assert done.exit_code == 1
    assert names_in(out) == ["B.nii.gz", "C.nii.gz"]
    told = json.loads(done.stdout)
    assert [entry["state"] for entry in told["studies"]] == ["failed", "succeeded", "succeeded"]
    assert "flair" in told["studies"][0]["error"]
    assert told["studies"][1]["label_map"] == str(out / "B.nii.gz")


def test_a_wrong_option_ends_the_run_at_the_first_study_and_can_be_put_right(
    segmamba: Run, server: JobServer, studies: Path, tmp_path: Path
) -> None:
    server.fault(*POST, problem(422, "option", "model: expected another.", field="model"))
    out = tmp_path / "out"
    words = ["submit", studies, *by_server(server), "-o", out]
    done = segmamba(*words, "-m", "wrong")
    assert done.exit_code == 2
    assert done.stderr == "error: the server refused (option): model: expected another.\n"
    assert server.count(*POST) == 1
    assert not names_in(out)
    server.fault(*POST, problem(507, "no-space", "The disk is full."))
    full = segmamba(*words, "-m", "right")
    assert (full.exit_code, "disk is full" in full.stderr) == (1, True)
    server.run_jobs()
    done = segmamba(*words, "-m", "better")  # nothing was taken yet, so the options are free
    assert done.exit_code == 0, done.output
    assert {record.form["model"] for record in server.jobs.values()} == {"better"}


def test_results_that_are_there_are_kept_when_many_are_asked_for(
    segmamba: Run, server: JobServer, studies: Path, tmp_path: Path
) -> None:
    server.run_jobs()
    out = tmp_path / "out"
    out.mkdir()
    (out / "A.nii.gz").write_bytes(b"precious")
    words = ["submit", studies, *by_server(server), "-o", out]
    assert segmamba(*words).exit_code == 0
    assert (out / "A.nii.gz").read_bytes() == b"precious"
    assert len(server.jobs) == 2
    again = segmamba(*words)
    assert (again.exit_code, len(server.jobs)) == (0, 2)
    assert again.stdout.count("kept") == 3


def test_a_result_that_cannot_be_written_is_told_and_can_be_fetched_later(
    segmamba: Run, server: JobServer, studies: Path, tmp_path: Path
) -> None:
    server.run_jobs()
    out = tmp_path / "out"
    (out / "B.nii.gz" / "in the way").mkdir(parents=True)
    done = segmamba("submit", studies, *by_server(server), "-o", out, "--overwrite")
    assert done.exit_code == 1
    assert "cannot be written" in done.stdout
    assert "2 of 3 studies done, 1 failed" in done.stdout
    assert not [name for name in names_in(out) if name.startswith(".")]
    (out / "B.nii.gz" / "in the way").rmdir()
    (out / "B.nii.gz").rmdir()
    again = segmamba("submit", "--resume", out / "segmamba-submit.json")
    assert again.exit_code == 0, again.output
    assert (out / "B.nii.gz").read_bytes() == results(server)[1]
    assert server.count(*POST) == 3


# ---------------------------------------------------------------- going on


def test_handing_in_without_waiting_is_gone_on_with_later_and_sends_nothing_twice(
    segmamba: Run, server: JobServer, studies: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["submit", studies, *by_server(server), "-o", out]
    sent = segmamba(*words, "--no-wait")
    assert sent.exit_code == 0, sent.output
    assert names_in(out) == ["segmamba-submit.json"]
    assert "place 1 in the queue" in sent.stdout
    assert f"--resume {out / 'segmamba-submit.json'}" in sent.stderr
    state = (out / "segmamba-submit.json").read_text()
    assert str(tmp_path) not in state
    server.run_jobs()
    done = segmamba("submit", "--resume", out / "segmamba-submit.json")
    assert done.exit_code == 0, done.output
    assert [(out / f"{name}.nii.gz").read_bytes() for name in "ABC"] == results(server)
    assert server.count(*POST) == 3


def test_a_client_that_is_killed_goes_on_where_it_was(
    segmamba: Run, server: JobServer, studies: Path, tmp_path: Path
) -> None:
    """Killed with one job done, one at the server and one turned away: no study is sent twice."""
    server.room = 2
    out = tmp_path / "out"
    words = ["submit", str(studies), *by_server(server), "-o", str(out)]
    process = subprocess.Popen([*COMMAND, *words], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(server.jobs) == 2, 60)
        server.room = 1
        server.tell(next(iter(server.jobs)), "succeeded")
        wait_for(lambda: "A.nii.gz" in names_in(out))
    finally:
        process.kill()
        process.wait(20)
    first = list(server.jobs)
    server.room = 10
    server.run_jobs()
    alone = segmamba("submit", "--resume", out / "segmamba-submit.json")
    assert alone.exit_code == 1
    assert "not sent yet" in alone.stdout
    done = segmamba(*words)  # the same words again go on too, and know where C is
    assert done.exit_code == 0, done.output
    assert list(server.jobs)[:2] == first
    assert len(server.jobs) == 3
    assert [(out / f"{name}.nii.gz").read_bytes() for name in "ABC"] == results(server)
    keys = [record.idempotency_key for record in server.jobs.values()]
    assert len(set(keys)) == 3
    # it may have been killed while it wrote: a hidden file is then left, and never a half one
    visible = [name for name in names_in(out) if not name.startswith(".")]
    assert visible == ["A.nii.gz", "B.nii.gz", "C.nii.gz"]


def test_a_study_whose_answer_was_lost_with_the_client_is_no_second_job(
    segmamba: Run, server: JobServer, studies: Path, tmp_path: Path
) -> None:
    """The state knows the key under which it was sent, though not the job."""
    out = tmp_path / "out"
    words = ["submit", studies, *by_server(server), "-o", out]
    assert segmamba(*words, "--no-wait").exit_code == 0
    path = out / "segmamba-submit.json"
    state = json.loads(path.read_text())
    for entry in state["entries"]:
        entry["job"] = None
    path.write_text(json.dumps(state))
    server.run_jobs()
    assert segmamba(*words).exit_code == 0
    assert len(server.jobs) == 3
    assert [(out / f"{name}.nii.gz").read_bytes() for name in "ABC"] == results(server)


def test_an_explicit_state_is_made_kept_and_then_nothing_is_left_to_do(
    segmamba: Run, server: JobServer, studies: Path, tmp_path: Path
) -> None:
    server.run_jobs()
    state, out = tmp_path / "run.json", tmp_path / "out"
    words = ["submit", studies, *by_server(server), "-o", out, "--resume", state]
    assert segmamba(*words).exit_code == 0
    asked = len(server.asked)
    again = segmamba(*words)
    assert (again.exit_code, len(server.asked)) == (0, asked)
    assert "3 of 3 studies done" in again.stdout


def test_a_run_is_not_gone_on_with_under_other_options_or_elsewhere(
    segmamba: Run, server: JobServer, studies: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["submit", studies, "-o", out]
    assert segmamba(*words, *by_server(server), "--no-wait").exit_code == 0
    other = segmamba(*words, *by_server(server), "--tta", "full")
    assert (other.exit_code, "unfinished run" in other.stderr) == (2, True)
    elsewhere = segmamba(*words, "--server", "http://127.0.0.1:1")
    assert (elsewhere.exit_code, "--server" in elsewhere.stderr) == (2, True)
    assert len(server.jobs) == 3


def test_a_job_that_the_server_forgot_is_a_failure_of_that_study(
    segmamba: Run, server: JobServer, studies: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert segmamba("submit", studies, *by_server(server), "-o", out, "--no-wait").exit_code == 0
    server.last.deleted = True
    server.run_jobs()
    done = segmamba("submit", "--resume", out / "segmamba-submit.json")
    assert done.exit_code == 1
    assert "2 of 3 studies done, 1 failed" in done.stdout
    assert "any more" in done.stdout


def test_another_file_to_resume_is_one_clear_line(segmamba: Run, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    done = segmamba("submit", "--resume", tmp_path / "x.json")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: --resume")
    assert done.stderr.count("\n") == 1


# ---------------------------------------------------------------- Ctrl-C


@pytest.fixture
def stopped(python_is_told: None, segmamba: Run, server: JobServer) -> Callable[..., Result]:
    """Run a command and press Ctrl-C when all its jobs are at the server, perhaps twice."""

    def run(*words: object, presses: int, jobs: int = 3) -> Result:
        def press() -> None:
            for _ in range(presses):
                time.sleep(0.15)
                os.kill(os.getpid(), signal.SIGINT)

        with once(lambda: len(server.jobs) == jobs, press):
            return segmamba(*words)

    return run


def test_ctrl_c_leaves_the_jobs_and_says_how_to_go_on(
    stopped: Run, segmamba: Run, server: JobServer, studies: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("service.client.session.SECOND_PRESS_S", 0.05)
    out = tmp_path / "out"
    left = stopped("submit", studies, *by_server(server), "-o", out, presses=1)
    assert left.exit_code == 130
    state = out / "segmamba-submit.json"
    assert f"segmamba submit --resume {state}" in left.stderr
    assert {record.now["state"] for record in server.jobs.values()} == {"queued"}
    server.run_jobs()
    assert segmamba("submit", "--resume", state).exit_code == 0
    assert server.count(*POST) == 3


def test_a_second_ctrl_c_cancels_them(
    stopped: Run, server: JobServer, studies: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    left = stopped("submit", studies, *by_server(server), "-o", out, presses=2)
    assert left.exit_code == 130
    assert "cancelled" in left.stderr
    assert {record.now["state"] for record in server.jobs.values()} == {"cancelled"}
    assert not names_in(out)


def test_ctrl_c_cancels_at_once_if_asked_to_and_only_what_is_this_runs(
    stopped: Run, segmamba: Run, server: JobServer, study: Study, studies: Path, tmp_path: Path
) -> None:
    """A batch that the user named may hold other jobs too."""
    shared = [*by_server(server), "--batch", "shared"]
    segmamba("submit", study["t1"].parent, *shared, "-o", tmp_path / "other", "--no-wait")
    left = stopped(
        "submit", studies, *shared, "-o", tmp_path / "out", "--cancel-on-interrupt",
        presses=1, jobs=4,
    )  # fmt: skip
    assert left.exit_code == 130
    states = [record.now["state"] for record in server.jobs.values()]
    assert states == ["queued", "cancelled", "cancelled", "cancelled"]


# ---------------------------------------------------------------- segmamba jobs


def test_jobs_are_listed_shown_and_cancelled(
    segmamba: Run, server: JobServer, studies: Path, tmp_path: Path
) -> None:
    at = by_server(server)
    segmamba("submit", studies, *at, "-o", tmp_path, "--no-wait", "--batch", "b")
    ids = list(server.jobs)
    assert [job_id in segmamba("jobs", "list", *at).stdout for job_id in ids] == [True] * 3
    listed = json.loads(segmamba("jobs", "list", *at, "--limit", "2", "--json").stdout)
    assert [job["id"] for job in listed] == ids[:0:-1]
    assert json.loads(segmamba("jobs", "show", ids[0], *at).stdout)["batch"] == "b"
    assert segmamba("jobs", "cancel", ids[0], *at).stdout == f"{ids[0]}: cancelled\n"
    assert "3 cancelled" in segmamba("jobs", "cancel", "--batch", "b", *at).stdout
    assert "No jobs." in segmamba("jobs", "list", *at, "--state", "queued").stdout
    unknown = segmamba("jobs", "show", "nobody", *at)
    assert (unknown.exit_code, "not-found" in unknown.stderr) == (2, True)
    assert segmamba("jobs", "cancel", *at).exit_code == 2


# ---------------------------------------------------------------- helpers


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


@contextmanager
def once(condition: Callable[[], bool], act: Callable[[], object]) -> Iterator[None]:
    """Do something beside, as soon as something is so."""

    def watch() -> None:
        wait_for(condition)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()
