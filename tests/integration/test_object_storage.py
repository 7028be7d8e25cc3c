"""Images and results in S3: a study goes through real processes, and nothing of it stays there."""

from __future__ import annotations

import gzip
import json
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.service.fakes import wait_until
from tests.service.object_storage import ObjectStorage, object_storage
from tests.service.servers import (
    COMMAND,
    form_files,
    head_images,
    serve_process,
    wait_ready,
    write_tiny_bundle,
)

pytestmark = pytest.mark.slow

PREFIX = "hospital/segmamba"
SOON = 1e-6
"""Hours after which everything that has ended is too old."""


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStorage]:
    """A server, and the environment that leads to it."""
    monkeypatch.setenv("SEGMAMBA_THREADS", "1")  # else another order of summation in bfloat16
    with object_storage() as storage:
        for name, value in storage.environment().items():
            monkeypatch.setenv(name, value)
        yield storage


def test_a_study_goes_through_the_bucket_and_leaves_it(
    storage: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_bundle(tmp_path / "models")
    images, data = head_images(), tmp_path / "data"
    bucket = storage.new_bucket()
    place = {"data_dir": data, "blobs_url": f"s3://{bucket}/{PREFIX}"}
    with serve_process(tmp_path, **place) as server:
        wait_ready(server.client)
        job = server.client.post("/jobs", files=form_files(images)).json()
        address = job["links"]["self"]
        wait_until(lambda: server.client.get(address).json()["ended"] is not None, 120)
        state = server.client.get(address).json()
        assert state["state"] == "succeeded", state
        found = server.client.get(job["links"]["result"]).content
        result = f"{PREFIX}/results/{job['id']}/1.nii.gz"
        packed = f"{PREFIX}/results/{job['id']}/1.zip"
        wait_until(lambda: storage.keys(bucket) == [result, packed])
        stored = storage.client().get_object(Bucket=bucket, Key=result)["Body"].read()
        assert stored == found
        server.stop(signal.SIGTERM, 60)
    expected = by_command_line(tmp_path, images, monkeypatch)
    assert len(np.unique(expected)) > 2
    np.testing.assert_array_equal(labels_of(found), expected)
    assert not list((data / ".spool").iterdir())
    assert not (data / "blobs").exists()
    left = f"{PREFIX}/{input_key(data)}"
    storage.client().put_object(Bucket=bucket, Key=left, Body=b"not deleted at its end")
    with serve_process(tmp_path, keep_hours=SOON, **place) as server:
        wait_until(lambda: storage.keys(bucket) == [], 60)
        wait_until(lambda: server.client.get(address).status_code == 404)


@pytest.mark.parametrize(
    ("command", "wrong", "said"),
    [
        ("serve", {"AWS_SECRET_ACCESS_KEY": "not-the-secret"}, "a refusal"),
        ("api", {"SEGMAMBA_BLOBS_URL": "s3://no-such-bucket-here/x"}, "no such bucket"),
        ("worker", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "EndpointConnectionError"),
    ],
)
def test_a_start_with_storage_that_cannot_be_used_ends_with_one_line(
    storage: ObjectStorage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    wrong: dict[str, str],
    said: str,
) -> None:
    write_tiny_bundle(tmp_path / "models")
    settings = {
        "SEGMAMBA_MODELS": str(tmp_path / "models"),
        "SEGMAMBA_MODEL": "tiny",
        "SEGMAMBA_DATA_DIR": str(tmp_path / "data"),
        "SEGMAMBA_PORT": "0",
        "SEGMAMBA_BLOBS_URL": f"s3://{storage.new_bucket()}",
        **wrong,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    if command == "worker":
        monkeypatch.delenv("SEGMAMBA_PORT")
    ended = subprocess.run([*COMMAND, command], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, ended.stderr
    assert "SEGMAMBA_BLOBS_URL" in ended.stderr
    assert said in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    for secret in (storage.secret, storage.key, "not-the-secret"):
        assert secret not in ended.stdout + ended.stderr


def input_key(data: Path) -> str:
    """Where the T1 image of the only job lay."""
    with sqlite3.connect(data / "jobs.sqlite") as database:
        (spec,) = database.execute("SELECT spec FROM segmamba_jobs").fetchone()
    database.close()
    return str(json.loads(spec)["inputs"]["t1"])


def labels_of(file: bytes) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(file)).dataobj)


def by_command_line(
    folder: Path, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> np.ndarray:
    monkeypatch.setenv("SEGMAMBA_MODELS", str(folder / "models"))
    arguments = ["--model", "tiny", "--device", "cpu", "-o", str(folder / "expected.nii.gz")]
    for contrast, data in images.items():
        path = folder / f"{contrast}.nii.gz"
        path.write_bytes(data)
        arguments += [f"--{contrast}", str(path)]
    subprocess.run([*COMMAND, "segment", *arguments], check=True, timeout=120)
    return labels_of((folder / "expected.nii.gz").read_bytes())
