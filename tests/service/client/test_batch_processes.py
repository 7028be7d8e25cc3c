"""Batches with everything real: the service, S3, killed clients and a killed service."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import nibabel as nib
import numpy as np
import pytest

from tests.service.fakes import wait_until
from tests.service.object_storage import ObjectStorage, object_storage
from tests.service.servers import (
    COMMAND,
    HEAD_SHAPE,
    Server,
    head_images,
    serve_process,
    wait_ready,
    write_tiny_bundle,
)

pytestmark = pytest.mark.slow

MANIFEST = "segmamba-manifest.json"
ROOT = Path(__file__).parents[3]
STUDIES = 4
MANY = 6


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("service")
    write_tiny_bundle(folder / "models")
    return folder


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with serve_process(home) as running:
        wait_ready(running.client)
        yield running


@pytest.fixture(scope="module")
def storage() -> Iterator[ObjectStorage]:
    with object_storage() as running:
        yield running


def study_files(name: str, seed: int) -> dict[str, bytes]:
    return {f"{name}/{name}_{c}.nii.gz": data for c, data in head_images(seed).items()}


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def command(source: object, target: object, server: Server, *more: object) -> list[str]:
    words = ["segment", source, "-o", target, "--server", server.client.base_url, *more]
    return [*COMMAND, *map(str, words)]


def run(words: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


def jobs_of(server: Server, batch: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.client.get("/jobs", params={"batch": batch}).json()["jobs"]
    return found


def manifest(out: Path) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads((out / MANIFEST).read_text())
    except FileNotFoundError:
        return {"entries": []}
    return read


def written(out: Path) -> int:
    return sum(entry["written"] for entry in manifest(out)["entries"])


def check_label_map(path: Path) -> None:
    labels = np.asarray(nib.load(path).dataobj)
    assert labels.shape == HEAD_SHAPE
    assert set(np.unique(labels)) == {0, 1, 2, 4}


def test_a_client_killed_in_mid_batch_goes_on_with_no_study_twice_and_none_lost(
    server: Server, tmp_path: Path
) -> None:
    """One of the studies is broken, one changes after all is over."""
    source, out, table = tmp_path / "in", tmp_path / "out", tmp_path / "figures.csv"
    for number in range(STUDIES):
        write(source, study_files(f"C{number}", number))
    (source / "C2" / "C2_t2.nii.gz").write_bytes(b"no image")
    words = command(source, out, server, "--in-flight", 2, "--table", table)
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: written(out) >= 1, 60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    assert written(out) < STUDIES - 1, "it was killed in the middle"
    done = run(words)
    assert done.returncode == 1, done.stderr
    assert f"{STUDIES - 1} of {STUDIES} studies done, 1 failed" in done.stdout
    jobs = jobs_of(server, manifest(out)["options"]["batch"])
    assert len(jobs) == STUDIES, "each once"
    states = sorted(job["state"] for job in jobs)
    assert states == ["failed", *["succeeded"] * (STUDIES - 1)]
    for name in ("C0", "C1", "C3"):
        check_label_map(out / f"{name}.nii.gz")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {row["study"] for row in rows} == {"C0", "C1", "C3"}
    assert all(float(row["volume_ml"]) > 0 for row in rows if row["structure"] == "WT")

    before = (out / "C0.nii.gz").read_bytes(), (out / "C1.nii.gz").read_bytes()
    write(source, study_files("C1", 99))
    write(source, study_files("C2", 2))
    done = run(words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(jobs_of(server, manifest(out)["options"]["batch"])) == STUDIES + 2
    assert (out / "C0.nii.gz").read_bytes() == before[0]
    assert (out / "C1.nii.gz").read_bytes() != before[1]


def nobody_at(address: httpx.URL) -> bool:
    """Whether the orphans of a killed service have noticed and left."""
    with socket.socket() as probe:
        return probe.connect_ex((address.host, address.port or 0)) != 0


@contextmanager
def served_again(folder: Path, data: Path, port: int) -> Iterator[None]:
    """The same service at the same address."""
    environment = {
        **os.environ,
        "SEGMAMBA_MODELS": str(folder / "models"),
        "SEGMAMBA_DATA_DIR": str(data),
        "SEGMAMBA_SILENCE_SECONDS": "3",
    }
    words = [*COMMAND, "serve", "--port", str(port), "--model", "tiny", "--device", "cpu"]
    with (folder / "again.log").open("wb") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait(20)


def test_a_service_killed_in_mid_batch_is_waited_for(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("restart")
    (folder / "models").symlink_to(home / "models")
    source, out, data = folder / "in", folder / "out", folder / "data"
    for number in range(MANY):
        write(source, study_files(f"C{number}", 20 + number))
    with serve_process(folder, data_dir=data, silence_seconds=3) as first:
        wait_ready(first.client)
        client = subprocess.Popen(command(source, out, first), cwd=ROOT)
        wait_until(lambda: written(out) >= 1, 60)
        first.stop(signal.SIGKILL, 20)
        assert written(out) < MANY, "it went in the middle"
        address = first.client.base_url
    try:
        assert address.port is not None
        wait_until(lambda: nobody_at(address), 30)
        with served_again(folder, data, address.port):
            assert client.wait(90) == 0
            found = httpx.get(f"{address}/jobs").json()["jobs"]
    finally:
        client.kill()
        client.wait(20)
    assert [job["state"] for job in found] == ["succeeded"] * MANY
    for number in range(MANY):
        check_label_map(out / f"C{number}.nii.gz")


def test_from_a_bucket_into_a_bucket(server: Server, storage: ObjectStorage) -> None:
    bucket, s3 = storage.new_bucket(), storage.client()
    for number in range(2):
        for name, data in study_files(f"C{number}", 40 + number).items():
            s3.put_object(Bucket=bucket, Key=f"in/{name}", Body=data)
    for key in ("in/", "in/notes/empty"):  # what browsers of buckets leave
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    words = command(f"s3://{bucket}/in", f"s3://{bucket}/out", server)
    words += ["--archive", f"s3://{bucket}/out"]
    done = run(words, **storage.environment())
    assert done.returncode == 0, done.stderr
    names = sorted(key for key in storage.keys(bucket) if key.startswith("out/"))
    ends = [f"C{number}.{end}" for number in range(2) for end in ("nii.gz", "zip")]
    assert names == [f"out/{name}" for name in (*ends, MANIFEST)]
    read = json.loads(s3.get_object(Bucket=bucket, Key=f"out/{MANIFEST}")["Body"].read())
    assert len(jobs_of(server, read["options"]["batch"])) == 2
    again = run(words, **storage.environment())
    assert again.returncode == 0, again.stderr
    assert len(jobs_of(server, read["options"]["batch"])) == 2
    refused = run(words, **storage.environment(AWS_SECRET_ACCESS_KEY="wrong"))
    assert refused.returncode == 2
    assert "the storage does not answer, or refuses" in refused.stderr
    assert storage.key not in refused.stderr
