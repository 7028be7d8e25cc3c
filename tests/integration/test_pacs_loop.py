"""The whole way: a study in a real archive, fetched, segmented, and its results in the archive."""

from __future__ import annotations

import io
import json
import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from model_core.imaging.nifti import read_label_map
from service.dicomweb.client import DicomwebServer, push
from tests.dicom_studies import STUDY_UID, affine_of, uid_of_series, write_study
from tests.integration.orthanc import PASSWORD, USER, Orthanc, running_orthanc
from tests.service.servers import COMMAND, Server, serve_process, wait_ready, write_tiny_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        files = write_study(tmp_path_factory.mktemp("study"), geometry="sagittal")
        server = DicomwebServer(name="pacs", url=running.url, user=USER, password=PASSWORD)
        assert push(server, files).complete
        yield running


@pytest.fixture(scope="module")
def server(archive: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("serve")
    write_tiny_bundle(place / "models")
    settings = {
        "dicomweb_servers": f"pacs={archive.url}",
        "dicomweb_pacs_user": USER,
        "dicomweb_pacs_password": PASSWORD,
    }
    with serve_process(place, log_level="debug", **settings) as running:
        wait_ready(running.client, 120)
        yield running


def test_a_study_is_fetched_segmented_and_its_results_are_in_the_archive(
    archive: Orthanc, server: Server, tmp_path: Path
) -> None:
    before = set(archive.files())
    ordered = {"dicomweb": "pacs", "study_uid": STUDY_UID, "push": "pacs", "grid": "flair"}
    answer = server.client.post(
        "/segment",
        files={name: (None, value) for name, value in ordered.items()},
        headers={"Accept": "application/zip"},
        timeout=240,
    )
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.headers["x-segmamba-push"]) == {
        "archive": "pacs", "stored": 2, "refused": 0,
    }  # fmt: skip
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        made = {name: packed.read(name) for name in packed.namelist()}
    now = archive.files()
    new = {uid: dcmread(io.BytesIO(now[uid])) for uid in set(now) - before}
    assert {one.Modality for one in new.values()} == {"SEG", "SR"}
    ours = {one.Modality: one for one in map(read, (made["segmentation.dcm"],
        made["measurements.dcm"]))}  # fmt: skip
    for one in new.values():
        assert one.StudyInstanceUID == STUDY_UID
        assert one.SOPInstanceUID == ours[one.Modality].SOPInstanceUID
    seg = next(one for one in new.values() if one.Modality == "SEG")
    np.testing.assert_array_equal(seg.pixel_array, ours["SEG"].pixel_array)
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == uid_of_series("flair")
    labels, volume = read_label_map(made["segmentation.nii.gz"], argument="label map")
    assert volume.grid.distance_mm(affine_of("sagittal")) < 0.01
    assert len(np.unique(labels)) > 1
    run_again(made, archive, tmp_path, server)
    assert "PLANTED" not in server.log.read_text().upper()


def read(data: bytes):  # type: ignore[no-untyped-def]  # a pydicom Dataset
    return dcmread(io.BytesIO(data))


def run_again(made: dict[str, bytes], archive: Orthanc, place: Path, server: Server) -> None:
    """``segmamba replay`` finds the study among the files of the archive, and gives the same."""
    (place / "run.json").write_bytes(made["run.json"])
    (place / "segmentation.nii.gz").write_bytes(made["segmentation.nii.gz"])
    study = place / "study"
    study.mkdir()
    for number, data in enumerate(archive.files().values()):
        (study / f"{number}").write_bytes(data)
    done = subprocess.run(
        [*COMMAND, "replay", str(place / "run.json"), "--input", str(study)],
        env={**os.environ, "SEGMAMBA_MODELS": str(server.log.parent / "models")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_study_in_the_archive_is_inspected(server: Server) -> None:
    form = {"dicomweb": (None, "pacs"), "study_uid": (None, STUDY_UID)}
    found = server.client.post("/inspect", files=form).json()
    assert found["kind"] == "dicom"
    assert found["study"]["missing"] == []
    unknown = {"dicomweb": (None, "pacs"), "study_uid": (None, "1.2.3")}
    answer = server.client.post("/inspect", files=unknown)
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:segmamba:problem:study-not-found"
