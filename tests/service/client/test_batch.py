"""``segmamba segment --server``: what a batch does, remembers, and does not do twice."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from typer.testing import Result

from tests.service.client.conftest import write_study
from tests.service.client.server import JobServer, problem
from tests.service.client.test_cli import names_in, once

Run = Callable[..., Result]
POST = ("POST", "/jobs")
MANIFEST = "segmamba-manifest.json"


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    for name in "ABC":
        write_study(tmp_path / "studies" / name, name)
    return tmp_path / "studies"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def batch(segmamba: Run, server: JobServer, studies: Path, out: Path) -> Run:
    """``segmamba segment`` of all studies at the server, with more options if wanted."""

    def run(*words: object) -> Result:
        return segmamba("segment", studies, "-o", out, "--server", server.url, *words)

    return run


def entries(out: Path) -> dict[str, dict[str, Any]]:
    found = json.loads((out / MANIFEST).read_text())["entries"]
    return {entry["output"].removesuffix(".nii.gz"): entry for entry in found}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def visible(out: Path) -> list[str]:
    return [name for name in names_in(out) if not name.startswith(".")]


def test_every_study_is_done_and_the_manifest_says_how(
    batch: Run, server: JobServer, studies: Path, out: Path, tmp_path: Path
) -> None:
    server.run_jobs()
    table = tmp_path / "t.csv"
    done = batch("--archive", out, "--report", out, "--table", table, "--tta", "full", "--n4")
    assert done.exit_code == 0, done.output
    assert "3 of 3 studies done, 0 failed" in done.stdout
    assert visible(out) == sorted(
        [*(f"{name}.{end}" for name in "ABC" for end in ("json", "nii.gz", "zip")), MANIFEST]
    )
    told = entries(out)["B"]
    record = next(record for record in server.jobs.values() if record.id == told["job"])
    assert record.digests == told["inputs"]
    assert told["inputs"]["t2"] == digest(studies / "B" / "B_t2.nii.gz")
    assert told["result_sha256"] == digest(out / "B.nii.gz")
    assert (out / "B.nii.gz").read_bytes() == record.result
    assert (out / "B.zip").read_bytes() == b"PK" + record.result
    assert (told["state"], told["written"], told["attempts"]) == ("succeeded", True, 1)
    assert {"tta": "full", "n4": "true"}.items() <= record.form.items()
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(row["study"], row["structure"]) for row in rows] == [(n, "WT") for n in "ABC"]
    assert str(tmp_path) not in (out / MANIFEST).read_text()


def test_no_more_than_the_bound_are_in_flight(batch: Run, server: JobServer) -> None:
    server.run_jobs()
    assert batch("--in-flight", "2").exit_code == 0
    assert server.most_open == 2


def test_what_is_done_is_left_alone(batch: Run, server: JobServer, out: Path) -> None:
    server.run_jobs()
    assert batch().exit_code == 0
    asked, before = len(server.asked), (out / "A.nii.gz").stat().st_mtime_ns
    again = batch()
    assert (again.exit_code, len(server.asked)) == (0, asked)
    assert "3 of 3 studies done" in again.stdout
    assert (out / "A.nii.gz").stat().st_mtime_ns == before


def test_a_changed_study_is_done_anew_and_a_touched_one_is_not(
    batch: Run, server: JobServer, studies: Path, out: Path
) -> None:
    server.run_jobs()
    assert batch().exit_code == 0
    first = (out / "A.nii.gz").read_bytes()
    (studies / "A" / "A_t1.nii.gz").write_bytes(b"another image")
    os.utime(studies / "B" / "B_t1.nii.gz", ns=(0, 0))
    assert batch().exit_code == 0
    assert server.count(*POST) == 4
    assert (out / "A.nii.gz").read_bytes() == server.last.result != first
    assert entries(out)["A"]["inputs"]["t1"] == digest(studies / "A" / "A_t1.nii.gz")
    assert batch().exit_code == 0
    assert server.count(*POST) == 4


def test_a_study_that_came_later_is_done_too(
    batch: Run, server: JobServer, studies: Path, out: Path
) -> None:
    server.run_jobs()
    assert batch().exit_code == 0
    write_study(studies / "D", "D")
    assert "4 of 4 studies done" in batch().stdout
    assert server.count(*POST) == 4


def test_one_broken_study_costs_its_own_result_and_is_tried_again_on_request(
    batch: Run, server: JobServer, studies: Path, out: Path
) -> None:
    (studies / "B" / "B_flair.nii.gz").unlink()  # incomplete: never sent
    server.fault(*POST, problem(422, "image", "t1: damaged."))  # A: refused
    server.run_jobs()
    done = batch()
    assert done.exit_code == 1
    assert "1 of 3 studies done, 2 failed" in done.stdout
    told = entries(out)
    assert (told["A"]["state"], told["B"]["state"], told["C"]["state"]) == (
        "failed", "failed", "succeeded",
    )  # fmt: skip
    assert "damaged" in told["A"]["error"]
    assert "flair" in told["B"]["error"]
    again = batch()
    assert (again.exit_code, server.count(*POST)) == (1, 2)
    assert "damaged" in again.stdout
    write_study(studies / "B", "B")
    done = batch("--retry-failed")
    assert done.exit_code == 0, done.output
    assert entries(out)["A"]["attempts"] == 2
    assert visible(out) == ["A.nii.gz", "B.nii.gz", "C.nii.gz", MANIFEST]


def test_a_failed_job_is_retried_as_another_job_and_only_on_request(
    batch: Run, server: JobServer, out: Path
) -> None:
    error = {"type": "urn:segmamba:problem:image", "title": "t", "status": 422, "detail": "Bad t1."}

    def fail() -> None:
        server.tell(server.last.id, "failed", error=error)
        server.run_jobs()

    with once(lambda: len(server.jobs) == 3, fail):
        assert batch().exit_code == 1
    assert batch().exit_code == 1
    assert len(server.jobs) == 3
    assert batch("--retry-failed").exit_code == 0
    assert len(server.jobs) == 4
    assert "error" not in entries(out)["C"]


def test_a_missing_result_is_fetched_again_and_a_forgotten_job_is_made_anew(
    batch: Run, server: JobServer, out: Path
) -> None:
    server.run_jobs()
    assert batch().exit_code == 0
    (out / "A.nii.gz").unlink()
    assert batch().exit_code == 0
    assert (server.count(*POST), (out / "A.nii.gz").exists()) == (3, True)
    (out / "A.nii.gz").unlink()
    server.jobs[entries(out)["A"]["job"]].deleted = True
    assert batch().exit_code == 0
    assert (server.count(*POST), (out / "A.nii.gz").exists()) == (4, True)


def test_a_crash_between_the_answer_and_the_manifest_makes_no_second_job(
    batch: Run, server: JobServer, out: Path
) -> None:
    server.run_jobs()
    assert batch().exit_code == 0
    whole = json.loads((out / MANIFEST).read_text())
    for entry in whole["entries"]:
        for member in ("job", "inputs", "mark", "result_sha256", "sent"):
            del entry[member]
        entry |= {"state": "unsent", "written": False}
    (out / MANIFEST).write_text(json.dumps(whole))
    assert batch().exit_code == 0
    assert (server.count(*POST), len(server.jobs)) == (6, 3)


def test_results_that_nothing_is_known_of_are_kept_unless_replaced(
    batch: Run, server: JobServer, out: Path
) -> None:
    server.run_jobs()
    out.mkdir()
    (out / "A.nii.gz").write_bytes(b"precious")
    assert batch().exit_code == 0
    assert (out / "A.nii.gz").read_bytes() == b"precious"
    assert batch("--overwrite").exit_code == 0
    assert (out / "A.nii.gz").read_bytes() == server.last.result
    assert len(server.jobs) == 3


def test_figures_of_an_earlier_call_come_into_the_table_and_a_loss_is_told(
    batch: Run, server: JobServer, out: Path, tmp_path: Path
) -> None:
    server.run_jobs()
    assert batch().exit_code == 0
    server.last.deleted = True
    table = tmp_path / "t.csv"
    done = batch("--table", table)
    assert done.exit_code == 0
    assert [row["study"] for row in csv.DictReader(table.read_text().splitlines())] == ["A", "B"]
    assert "1 studies are not in the table" in done.stderr


def test_other_options_are_another_batch(batch: Run, server: JobServer) -> None:
    server.run_jobs()
    assert batch("--tta", "fast").exit_code == 0
    other = batch("--tta", "full")
    assert (other.exit_code, "another --output" in other.stderr) == (2, True)
    assert batch().exit_code == 0, "none named: those of the manifest"


def test_dicom_goes_as_one_archive_without_names(
    segmamba: Run, server: JobServer, tmp_path: Path, out: Path
) -> None:
    scans = tmp_path / "scans" / "DOE^JANE"
    scans.mkdir(parents=True)
    for name in "ab":
        (scans / f"DOE_{name}.dcm").write_bytes(bytes(128) + b"DICM" + name.encode())
    server.run_jobs()
    done = segmamba("segment", scans.parent, "-o", out, "--server", server.url)
    assert done.exit_code == 0, done.output
    assert (server.last.filenames, list(server.last.digests)) == (["study.zip"], ["dicom"])
    assert visible(out) == ["DOE^JANE.nii.gz", MANIFEST]


def test_ctrl_c_leaves_the_jobs_and_the_same_command_picks_them_up(
    python_is_told: None, batch: Run, server: JobServer, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.client.session.SECOND_PRESS_S", 0.05)
    with once(lambda: len(server.jobs) == 3, lambda: _press(1)):
        left = batch()
    assert left.exit_code == 130
    assert "go on with: the same command" in left.stderr
    server.run_jobs()
    assert batch().exit_code == 0
    assert server.count(*POST) == 3


def test_a_second_ctrl_c_cancels_and_the_same_command_begins_them_anew(
    python_is_told: None, batch: Run, server: JobServer, out: Path
) -> None:
    with once(lambda: len(server.jobs) == 3, lambda: _press(2)):
        assert batch().exit_code == 130
    assert {record.now["state"] for record in server.jobs.values()} == {"cancelled"}
    server.run_jobs()
    assert batch().exit_code == 0
    assert len(server.jobs) == 6


def _press(times: int) -> None:
    for _ in range(times):
        time.sleep(0.15)
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--device", "cpu"], "--device"),
        (["--preview", "p.png"], "--preview"),
        (["--report", "elsewhere"], "--report"),
        (["--series", "t1=1.2"], "--series"),
    ],
)
def test_what_does_not_go_with_a_service_is_refused(
    batch: Run, server: JobServer, words: list[str], told: str
) -> None:
    refused = batch(*words)
    assert (refused.exit_code, told in refused.stderr) == (2, True)
    assert refused.stderr.count("\n") == 1
    assert not server.asked


def test_places_that_cannot_be_are_refused(
    segmamba: Run, server: JobServer, studies: Path, tmp_path: Path
) -> None:
    at = ["--server", server.url]
    for words, told in (
        (["segment", studies, "-o", studies, *at], "another place"),
        (["segment", studies, "-o", tmp_path / "seg.nii.gz", *at], "segmamba submit"),
        (["segment", studies, studies, "-o", tmp_path / "out", *at], "3 name(s) more than once"),
        (["segment", tmp_path / "gone", "-o", tmp_path / "out", *at], "none that is there"),
        (["segment", "-o", tmp_path / "out", *at], "studies: expected"),
        (["segment", "s3://bucket/x", "-o", tmp_path / "out"], "--server"),
        (["segment", studies, "-o", tmp_path / "out", "--retry-failed"], "--retry-failed"),
    ):
        refused = segmamba(*words)
        assert (refused.exit_code, told in refused.stderr) == (2, True), refused.output
    assert not server.asked


def test_without_a_client_the_way_out_is_told(batch: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_core.cli.batch.GROUP", "segmamba.nobody")
    refused = batch()
    assert (refused.exit_code, "leave --server out" in refused.stderr) == (2, True)


@pytest.fixture
def bucket() -> Iterator[Any]:
    """Storage that fsspec reaches, in memory."""
    storage = fsspec.filesystem("memory")
    storage.store.clear()
    yield storage
    storage.store.clear()


def test_from_storage_to_storage_and_nothing_twice(
    segmamba: Run, server: JobServer, studies: Path, bucket: Any
) -> None:
    for path in studies.rglob("*.nii.gz"):
        bucket.pipe_file(f"/b/in/{path.parent.name}/{path.name}", path.read_bytes())
    server.run_jobs()
    words = ["segment", "memory://b/in", "-o", "memory://b/out", "--server", server.url]
    words += ["--archive", "memory://b/out"]
    done = segmamba(*words)
    assert done.exit_code == 0, done.output
    names = sorted(path.rpartition("/")[2] for path in bucket.find("/b/out"))
    assert names == ["A.nii.gz", "A.zip", "B.nii.gz", "B.zip", "C.nii.gz", "C.zip", MANIFEST]
    results = [bucket.cat_file(f"/b/out/{name}.nii.gz") for name in "ABC"]
    assert results == [record.result for record in server.jobs.values()]
    asked = len(server.asked)
    assert (segmamba(*words).exit_code, len(server.asked)) == (0, asked)


def test_storage_that_fails_ends_the_call_and_not_the_studies(
    segmamba: Run, server: JobServer, studies: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in studies.rglob("*.nii.gz"):
        bucket.pipe_file(f"/b/in/{path.parent.name}/{path.name}", path.read_bytes())
    server.run_jobs()
    words = ["segment", "memory://b/in", "-o", "memory://b/out", "--server", server.url]
    get, down = type(bucket).get_file, [True]

    def away(self: Any, source: str, target: str, *rest: Any, **named: Any) -> Any:
        if down and "/B/" in source:
            raise ConnectionError("secret address")
        return get(self, source, target, *rest, **named)

    monkeypatch.setattr(type(bucket), "get_file", away)
    broken = segmamba(*words)
    assert broken.exit_code == 1
    assert "the storage does not answer" in broken.stderr
    assert "secret" not in broken.stderr
    down.clear()
    assert segmamba(*words).exit_code == 0
    assert server.count(*POST) == 3
