"""Nobody's images stay on the disk of a worker's machine, and the running job's do."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from service.form import DICOM
from service.jobs.blobs import BlobStore
from service.reading import DicomFiles, ReadingLimits, StudyReader
from service.study_options import ReadingOptions
from service.worker.intake import Intake
from service.worker.spool import SpoolKeeper
from tests.service.fakes import wait_until
from tests.service.servers import COMMAND, write_tiny_bundle

LONG_AGO = time.time() - 7200.0


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    """Storage that is not on this disk."""
    return BlobStore(f"memory://{uuid4().hex}", tmp_path / "spool")


def test_what_a_job_uses_outlives_any_hour_and_what_was_left_does_not(blobs: BlobStore) -> None:
    left = blobs.spooled()
    left.write_bytes(b"of a worker that was killed")
    blobs.write(b"zip", "inputs/a/dicom")
    with StudyReader(ReadingLimits()) as reader, ExitStack() as files:
        options = ReadingOptions(preprocess="none", grid="t1ce")
        source = Intake(blobs, reader)._source({DICOM: "inputs/a/dicom"}, options, files)
        assert isinstance(source, DicomFiles)
        used = {source.archive, source.workspace}
        for path in (left, *used):
            os.utime(path, (LONG_AGO, LONG_AGO))
        keeper = SpoolKeeper(blobs, seconds=0.05)
        keeper.start()
        wait_until(lambda: not left.exists())
        assert set(blobs.spool.iterdir()) == used
        for path in used:
            os.utime(path, (LONG_AGO, LONG_AGO))
        wait_until(lambda: all(path.stat().st_mtime > LONG_AGO + 60 for path in used))
        assert blobs.clean_spool(3600, time.time()) == 0
        keeper.stop()
        keeper.join(5)
    assert list(blobs.spool.iterdir()) == []


@pytest.mark.slow
def test_a_worker_alone_on_its_machine_tidies_up_when_it_starts(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "models")
    data = tmp_path / "data"
    left = data / ".spool" / "dicom-left"
    left.mkdir(parents=True)
    os.utime(left, (LONG_AGO, LONG_AGO))
    settings = {"MODELS": tmp_path / "models", "DATA_DIR": data, "BLOBS_URL": "memory://elsewhere"}
    environment = {f"SEGMAMBA_{name}": str(value) for name, value in settings.items()}
    worker = subprocess.Popen(
        [*COMMAND, "worker", "--model", "tiny", "--device", "cpu"],
        env={**os.environ, **environment},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: not left.exists(), 60)
    finally:
        worker.kill()
        worker.wait(20)
