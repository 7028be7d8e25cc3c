"""DICOM in and DICOM out over real sockets, with a fake network and everything else real."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydicom import dcmread

from model_core.imaging.nifti import read_label_map
from model_core.provenance.manifest import read_manifest
from model_core.types import CONTRASTS
from tests.dicom_series import PLANTED
from tests.dicom_studies import affine_of, uid_of_series, values_of, write_study, zipped
from tests.service.fakes import (
    assert_problem,
    image_bytes,
    make_settings,
    running_app,
    service_of,
    study_files,
    wait_until,
)

SECRETS = [value for value in PLANTED.values() if len(value) > 4]
AS_IT_IS = {"preprocess": "none", "cache": "false"}
NAMES = {
    "measurements.dcm", "report.html", "report.json", "run.json", "segmentation.dcm",
    "segmentation.nii.gz", "statistics.csv",
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def archive(files: list[Path]) -> bytes:
    return zipped(files)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running_app(settings=make_settings(dicomweb_servers="pacs=http://127.0.0.1:9")) as client:
        yield client


def dicom_form(archive: bytes) -> dict[str, tuple[str, bytes]]:
    return {"dicom": ("study.zip", archive)}


def unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def spool_is_empty(client: httpx.Client) -> bool:
    blobs = service_of(client).blobs
    return not list(blobs.spool.iterdir()) and not list((blobs.spool.parent / "inputs").glob("*"))


def test_an_archive_is_inspected_without_a_job(client: httpx.Client, archive: bytes) -> None:
    found = client.post("/inspect", files=dicom_form(archive)).json()
    assert found["kind"] == "dicom"
    chosen = {one["contrast"]: one["uid"] for one in found["series"] if one["chosen"]}
    assert chosen == {contrast: uid_of_series(contrast) for contrast in CONTRASTS}
    assert all(one["confidence"] > 0.6 and one["reason"] for one in found["series"])
    assert found["study"]["missing"] == []
    assert client.get("/jobs").json()["jobs"] == []
    assert spool_is_empty(client)
    assert not [value for value in SECRETS if value in json.dumps(found)]


def test_files_one_by_one_are_the_same_study(
    client: httpx.Client, files: list[Path], archive: bytes
) -> None:
    parts = [("dicom", (path.name, path.read_bytes())) for path in files]
    one_by_one = client.post("/inspect", files=parts).json()
    assert one_by_one == client.post("/inspect", files=dicom_form(archive)).json()


def test_nifti_images_are_inspected_also_when_some_are_missing(client: httpx.Client) -> None:
    two = [part for part in study_files() if part[0] in ("t1", "t2")]
    found = client.post("/inspect", files=two).json()
    assert found["kind"] == "nifti"
    assert set(found["study"]["missing"]) == {"t1ce", "flair"}
    bad = client.post("/inspect", files={"t1": ("x", b"nothing")}).json()
    assert bad["series"][0]["problems"]
    assert not bad["study"]["ready"]


def test_the_label_map_lies_on_the_grid_of_the_series(client: httpx.Client, archive: bytes) -> None:
    for contrast in ("t1ce", "flair"):
        answer = client.post(
            "/segment", files=dicom_form(archive), data={**AS_IT_IS, "grid": contrast}
        )
        assert answer.status_code == 200, answer.text
        labels, volume = read_label_map(answer.content, argument="answer")
        np.testing.assert_allclose(volume.affine, affine_of(), atol=1e-4)
        np.testing.assert_array_equal(labels, np.digitize(values_of(contrast), [1, 34, 67]))


def test_all_files_come_in_one_archive_and_one_by_one(client: httpx.Client, archive: bytes) -> None:
    answer = client.post(
        "/segment",
        files=dicom_form(archive),
        data=AS_IT_IS,
        headers={"Accept": "application/zip"},
    )
    assert answer.headers["content-type"] == "application/zip"
    found = unzipped(answer.content)
    assert set(found) == NAMES
    job = client.get("/jobs").json()["jobs"][0]
    for name, content in found.items():
        one = client.get(f"{job['links']['files']}/{name}")
        assert one.content == content
        assert one.headers["content-disposition"] == f'attachment; filename="{name}"'
    listed = client.get(job["links"]["files"]).json()["files"]
    assert [one["name"] for one in listed] == sorted(found)
    for one in listed:
        assert client.get(one["href"]).headers["content-type"].startswith(one["media_type"])
    assert_problem(client.get(f"{job['links']['files']}/passwd"), 404, "not-found")
    manifest = read_manifest(found["run.json"])
    assert manifest.source == "dicom"
    assert {contrast: len(one.files) for contrast, one in manifest.inputs.items()} == dict.fromkeys(
        CONTRASTS, 24
    )
    assert spool_is_empty(client)


def test_the_seg_shows_the_label_map_voxel_by_voxel(client: httpx.Client, archive: bytes) -> None:
    for kind in ("BINARY", "LABELMAP"):
        answer = client.post(
            "/segment",
            files=dicom_form(archive),
            data={**AS_IT_IS, "seg_type": kind},
            headers={"Accept": "application/dicom"},
        )
        assert answer.headers["content-type"] == "application/dicom"
        seg = dcmread(io.BytesIO(answer.content))
        assert seg.SegmentationType == kind
        assert seg.PatientID == PLANTED["PatientID"]
        referenced = seg.ReferencedSeriesSequence[0]
        assert referenced.SeriesInstanceUID == uid_of_series("t1ce")
        volumes = json.loads(answer.headers["x-segmamba-volumes-ml"])
        assert volumes["WT"] > 0
        if kind == "LABELMAP":
            stored = np.sort(seg.pixel_array[seg.pixel_array > 0].ravel())
            meant = np.digitize(values_of("t1ce"), [1, 34, 67])
            np.testing.assert_array_equal(stored, np.sort(meant[meant > 0].ravel()))


def test_the_report_has_figures_and_flags_and_no_patient(
    client: httpx.Client, archive: bytes
) -> None:
    answer = client.post(
        "/segment",
        files=dicom_form(archive),
        data=AS_IT_IS,
        headers={"Accept": "application/json"},
    )
    report = answer.json()
    assert set(report["statistics"]["structures"]) == {"WT", "TC", "ET", "NCR", "ED"}
    whole = report["statistics"]["structures"]["WT"]
    assert whole["volume_ml"] == pytest.approx(2e-3 * np.count_nonzero(values_of("t1ce")))
    assert report["files"] == sorted(NAMES)
    assert report["push"] is None
    flags = {f"{flag['severity']}:{flag['code']}" for flag in report["quality"]}
    assert flags == set(json.loads(answer.headers["x-segmamba-quality"]))
    assert not [value for value in SECRETS if value in answer.text]


def test_the_caller_chooses_series(client: httpx.Client, archive: bytes) -> None:
    swapped = {"series_t2": uid_of_series("flair"), "series_flair": uid_of_series("t2")}
    answer = client.post(
        "/segment", files=dicom_form(archive), data={**AS_IT_IS, "grid": "t2", **swapped}
    )
    labels, _ = read_label_map(answer.content, argument="answer")
    np.testing.assert_array_equal(labels, np.digitize(values_of("flair"), [1, 34, 67]))
    for bad, status in ((uid_of_series("t1"), "option"), ("1.2.3", "option"), ("../x", "option")):
        form = {**AS_IT_IS, "series_t2": bad, "series_t1": uid_of_series("t1")}
        assert_problem(client.post("/segment", files=dicom_form(archive), data=form), 422, status)


def test_a_study_without_a_contrast_is_refused_by_name(
    client: httpx.Client, files: list[Path]
) -> None:
    three = zipped([path for path in files if path.parent.name != "flair"])
    problem = assert_problem(
        client.post("/segment", files=dicom_form(three), data=AS_IT_IS), 422, "study"
    )
    assert problem["field"] == "flair"
    assert "Inspect the study" in problem["way_out"]
    wait_until(lambda: spool_is_empty(client))


def test_what_does_not_go_together_is_refused(client: httpx.Client, archive: bytes) -> None:
    both = [*study_files(), *dicom_form(archive).items()]
    assert_problem(client.post("/segment", files=both), 422, "input")
    form = {"study_uid": "1.2.3", "dicomweb": "pacs"}
    assert_problem(client.post("/jobs", files=study_files(), data=form), 422, "input")
    n4 = {"preprocess": "none", "n4": "true"}
    assert_problem(client.post("/jobs", files=study_files(), data=n4), 422, "option")
    empty = {"dicom": ("x", b"")}
    assert_problem(client.post("/jobs", files=empty), 422, "input")
    nothing = {"dicom": ("x", b"no DICOM at all")}
    assert_problem(client.post("/segment", files=nothing), 422, "image")
    wait_until(lambda: spool_is_empty(client))


def test_archives_are_named_by_the_operator_alone(client: httpx.Client) -> None:
    def refused(status: int, cause: str, **form: str) -> None:
        parts = {name: (None, value) for name, value in form.items()}
        assert_problem(client.post("/segment", files=parts), status, cause)

    refused(422, "option", study_uid="1.2.3", dicomweb="other")
    refused(422, "option", study_uid="1.2.3", dicomweb="http://127.0.0.1:9")
    refused(422, "option", study_uid="..", dicomweb="pacs")
    refused(504, "archive-unreachable", study_uid="1.2.3", dicomweb="pacs")
    answer = client.post("/segment", files=study_files(), data={"push": "http://127.0.0.1:9"})
    assert_problem(answer, 422, "option")
    assert spool_is_empty(client)


def test_a_push_that_fails_is_told_and_loses_nothing(client: httpx.Client, archive: bytes) -> None:
    answer = client.post(
        "/segment",
        files=dicom_form(archive),
        data={**AS_IT_IS, "push": "pacs"},
        headers={"Accept": "application/json"},
    )
    assert answer.status_code == 200
    receipt = answer.json()["push"]
    assert receipt["archive"] == "pacs"
    assert "does not answer" in receipt["error"] or "reach" in receipt["error"]
    assert "127.0.0.1" not in receipt["error"]


def test_nifti_leaves_every_file_but_those_of_dicom(client: httpx.Client) -> None:
    answer = client.post(
        "/segment",
        files=study_files(),
        data={"cache": "false"},
        headers={"Accept": "application/zip"},
    )
    assert set(unzipped(answer.content)) == NAMES - {"measurements.dcm", "segmentation.dcm"}
    dicom = {"Accept": "application/dicom"}
    refused = client.post("/segment", files=study_files(), headers=dicom)
    assert_problem(refused, 404, "not-found")


def test_the_grid_of_any_image_can_be_asked_for(client: httpx.Client) -> None:
    answer = client.post("/segment", files=study_files(), data={"grid": "flair", "cache": "false"})
    labels, _ = read_label_map(answer.content, argument="answer")
    flair, _ = read_label_map_values(image_bytes(3))
    np.testing.assert_array_equal(labels, np.digitize(flair, [1, 34, 67]))


def read_label_map_values(data: bytes) -> tuple[np.ndarray, object]:
    from model_core.imaging.nifti import read_nifti

    volume = read_nifti(data, argument="flair")
    return volume.array, volume
