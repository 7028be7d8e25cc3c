"""Blobs appear whole, are private, and are gone when they are deleted, wherever they lie."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from model_core.errors import OptionError
from service.jobs.blobs import BlobStore, StorageUnreachableError, input_key, result_key
from tests.service.object_storage import ObjectStorage, narrow_pipe, object_storage

ROOT = Path(__file__).parents[3]
KEEP = """
import sys
from pathlib import Path
from service.jobs.blobs import BlobStore
url, spool, path, key = sys.argv[1:]
BlobStore(url, Path(spool)).keep(Path(path), key)
"""
SECRET = "not-the-secret-at-all"
S3 = pytest.param("s3", marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def storage() -> Iterator[ObjectStorage]:
    with object_storage() as storage:
        yield storage


@pytest.fixture
def s3(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty place in S3; the environment says the rest."""
    for name, value in storage.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{storage.new_bucket()}/some/prefix"


@pytest.fixture(params=["folder", "memory", S3])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("s3"))
    return str(tmp_path / "blobs") if request.param == "folder" else f"memory://{uuid4().hex}"


@pytest.fixture
def blobs(url: str, tmp_path: Path) -> BlobStore:
    return BlobStore(url, tmp_path / "spool")


def test_what_is_written_is_read_back(blobs: BlobStore) -> None:
    data = os.urandom(100_000)
    blobs.write(data, "results/a/1.nii.gz")
    assert blobs.read("results/a/1.nii.gz") == data
    with blobs.as_file("results/a/1.nii.gz") as path:
        assert path.read_bytes() == data
    assert list(blobs.spool.iterdir()) == []
    blobs.write(b"", "results/a/2.nii.gz")
    assert blobs.read("results/a/2.nii.gz") == b""


def test_a_local_file_goes_even_if_its_reader_fails(blobs: BlobStore) -> None:
    blobs.write(b"x", "a")
    with pytest.raises(ZeroDivisionError), blobs.as_file("a"):
        raise ZeroDivisionError
    assert list(blobs.spool.iterdir()) == []
    assert blobs.read("a") == b"x"


def test_a_spooled_file_becomes_a_blob_and_leaves_the_spool(blobs: BlobStore) -> None:
    path = blobs.spooled()
    path.write_bytes(b"image")
    blobs.keep(path, input_key("job", "t1"))
    assert not path.exists()
    assert blobs.read("inputs/job/t1") == b"image"


def test_a_whole_job_is_deleted_and_nothing_else(blobs: BlobStore) -> None:
    for key in (input_key("a", "t1"), input_key("a", "t2"), input_key("ab", "t1")):
        blobs.write(b"x", key)
    blobs.delete("inputs/a")
    blobs.delete("inputs/a")
    blobs.delete("inputs/never")
    assert not blobs.exists("inputs/a/t1")
    assert not blobs.exists("inputs/a")
    assert blobs.exists("inputs/ab/t1")
    assert [name for name, _ in blobs.ages("inputs")] == ["ab"]
    blobs.delete("inputs/ab/t1")
    assert not blobs.exists("inputs/ab/t1")


def test_what_is_not_there_is_said_so(blobs: BlobStore) -> None:
    with pytest.raises(FileNotFoundError):
        blobs.read(result_key("a", 1))
    with pytest.raises(FileNotFoundError), blobs.as_file(result_key("a", 1)):
        pytest.fail("there is no such file")
    assert blobs.ages("nothing") == []
    assert not blobs.exists("nothing")
    assert list(blobs.spool.iterdir()) == []


def test_ages_are_those_of_the_last_change_below(blobs: BlobStore) -> None:
    blobs.write(b"x", input_key("a", "t1"))
    time.sleep(2.1)  # object stores count whole seconds
    blobs.write(b"x", input_key("b", "t1"))
    blobs.write(b"x", input_key("b", "t2"))
    ages = dict(blobs.ages("inputs"))
    assert set(ages) == {"a", "b"}
    assert -1 < ages["b"] < ages["a"] < 60
    blobs.write(b"x", input_key("a", "t2"))
    assert dict(blobs.ages("inputs"))["a"] < ages["a"]


def test_another_process_is_seen_at_once(blobs: BlobStore, url: str, tmp_path: Path) -> None:
    """Nothing of a listing is remembered: two stores of one place agree."""
    other = BlobStore(url, tmp_path / "other")
    assert blobs.ages("inputs") == []
    other.write(b"x", input_key("a", "t1"))
    assert [name for name, _ in blobs.ages("inputs")] == ["a"]
    assert blobs.exists("inputs/a/t1")
    other.delete("inputs/a")
    assert blobs.ages("inputs") == []
    assert not blobs.exists("inputs/a/t1")


@pytest.mark.parametrize("url", ["folder", S3], indirect=True)
def test_a_reader_sees_a_blob_whole_while_another_one_takes_its_place(blobs: BlobStore) -> None:
    size, done = 300_000, threading.Event()
    blobs.write(b"a" * size, "blob")

    def replace() -> None:
        for _ in range(10):
            for letter in (b"b", b"a"):
                blobs.write(letter * size, "blob")
        done.set()

    threading.Thread(target=replace, daemon=True).start()
    while not done.is_set():
        assert blobs.read("blob") in (b"a" * size, b"b" * size)


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [8, 120], ids=["one piece", "several pieces"])
def test_a_process_that_dies_in_the_middle_of_an_upload_leaves_nothing_to_read(
    storage: ObjectStorage, s3: str, tmp_path: Path, megabytes: int
) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(megabytes << 20))
    with narrow_pipe(storage.endpoint, (megabytes - 4) << 20) as (endpoint, stuck):
        process = subprocess.Popen(
            [sys.executable, "-c", KEEP, s3, str(tmp_path / "spool"), str(path), "inputs/a/t1"],
            env={**os.environ, "AWS_ENDPOINT_URL": endpoint, "PYTHONPATH": str(ROOT)},
        )
        assert stuck.wait(60)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    blobs = BlobStore(s3, tmp_path / "spool")
    assert not blobs.exists("inputs/a/t1")
    assert blobs.ages("inputs") == []
    with pytest.raises(FileNotFoundError):
        blobs.read("inputs/a/t1")
    blobs.keep(path, "inputs/a/t1")
    assert len(blobs.read("inputs/a/t1")) == megabytes << 20, "the next one gets through"


def test_storage_that_can_be_used_passes_and_keeps_nothing(blobs: BlobStore) -> None:
    blobs.check()
    assert blobs.ages(".probe") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": SECRET}, "a refusal"),
        ({"AWS_ACCESS_KEY_ID": SECRET}, "a refusal"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "EndpointConnectionError"),
        ({"AWS_ENDPOINT_URL": f"http://user:{SECRET}@127.0.0.1:9"}, "no answer"),
    ],
)
def test_storage_that_refuses_or_is_away_is_named_without_a_secret(
    s3: str,
    storage: ObjectStorage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    replaced: dict[str, str],
    said: str,
) -> None:
    for name, value in replaced.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match="SEGMAMBA_BLOBS_URL") as refused:
        BlobStore(s3, tmp_path / "spool").check()
    assert said in str(refused.value)
    assert refused.value.__cause__ is None
    for secret in (SECRET, storage.secret):
        assert secret not in str(refused.value) + caplog.text


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_said_so(s3: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no such bucket"):
        BlobStore("s3://no-such-bucket-here", tmp_path / "spool").check()


@pytest.mark.slow
def test_storage_that_goes_away_later_is_one_kind_of_error(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    blobs = BlobStore(s3, tmp_path / "spool")
    path = blobs.spooled()
    path.write_bytes(b"x")
    for ask in (
        lambda: blobs.read("a"),
        lambda: blobs.keep(path, "a"),
        lambda: blobs.exists("a"),
        lambda: blobs.delete("a"),
        lambda: blobs.ages("a"),
    ):
        with pytest.raises(StorageUnreachableError, match=r"^EndpointConnectionError$"):
            ask()
    assert path.exists(), "what was not kept is still there"


def test_a_folder_keeps_what_is_on_its_way_on_its_own_disk(tmp_path: Path) -> None:
    for url in (str(tmp_path / "blobs"), f"file://{tmp_path}/blobs"):
        blobs = BlobStore(url, Path("/proc/nothing-can-be-made-here"))
        assert blobs.spool == tmp_path / "blobs" / ".spool"
        assert blobs.spool.stat().st_mode & 0o077 == 0


def test_abandoned_files_leave_the_spool_and_young_ones_stay(blobs: BlobStore) -> None:
    blobs.spooled().write_bytes(b"x")
    assert blobs.clean_spool(60, time.time()) == 0
    assert blobs.clean_spool(60, time.time() + 120) == 1
    assert list(blobs.spool.iterdir()) == []


def test_storage_that_is_not_installed_is_refused_without_its_address() -> None:
    with pytest.raises(OptionError) as refused:
        BlobStore("nothing-of-the-kind://user:secret@host/x", Path("/nonexistent"))
    assert "secret" not in str(refused.value)


def test_attempts_have_places_of_their_own() -> None:
    assert result_key("a", 1) != result_key("a", 2)
