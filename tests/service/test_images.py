"""The option images: a job's own contrasts beside its label map, and nobody else's."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from model_core.imaging.nifti import read_label_map, read_nifti
from model_core.inference.segmentation import Segmentation
from model_core.types import CONTRASTS
from service.auth.guard import Guard
from service.auth.keys import KeyStore
from tests.dicom_studies import values_of, write_study, zipped
from tests.service.fakes import (
    FakeSegmenter,
    assert_problem,
    image_bytes,
    make_settings,
    running_app,
    service_of,
    study_files,
    wait_until,
)

IMAGES = {f"{contrast}.nii.gz" for contrast in CONTRASTS}
ALWAYS = {"report.html", "report.json", "run.json", "segmentation.nii.gz", "statistics.csv"}


class Doubtful(FakeSegmenter):
    """Tells a disagreement where votes are asked for and several passes are meant."""

    def segment(self, study: Any, options: Any = None, **watch: Any) -> Segmentation:
        found = super().segment(study, options, **watch)
        if not (options.votes and options.tta == "fast"):
            return found
        shares = (np.arange(found.labels.size) % 101).astype(np.uint8)
        return replace(found, disagreement=shares.reshape(found.labels.shape))


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running_app(Doubtful(), settings=make_settings()) as client:
        yield client


def finished(client: httpx.Client, *, files: Any = None, **data: str) -> Any:
    response = client.post("/jobs", files=files or study_files(), data=data)
    assert response.status_code in (200, 202), response.text
    link = response.json()["links"]["self"]
    wait_until(lambda: client.get(link).json()["ended"] is not None)
    job = client.get(link).json()
    assert job["state"] == "succeeded", job["error"]
    return job


def names(client: httpx.Client, job: Any) -> set[str]:
    return {one["name"] for one in client.get(job["links"]["files"]).json()["files"]}


def fetch(client: httpx.Client, job: Any, name: str) -> httpx.Response:
    return client.get(f"{job['links']['files']}/{name}")


def test_without_the_option_no_image_is_kept(client: httpx.Client) -> None:
    for data in ({}, {"images": "false"}):
        job = finished(client, **data, cache="false")
        assert job["options"]["images"] is False
        assert names(client, job) == ALWAYS
        assert_problem(fetch(client, job, "t1ce.nii.gz"), 404, "not-found")


def test_with_it_the_contrasts_lie_on_the_label_map_with_their_own_values(
    client: httpx.Client,
) -> None:
    job = finished(client, images="true", cache="false")
    assert job["options"]["images"] is True
    assert names(client, job) == ALWAYS | IMAGES
    _, label_map = read_label_map(fetch(client, job, "segmentation.nii.gz").content, argument="l")
    for number, contrast in enumerate(CONTRASTS):
        answer = fetch(client, job, f"{contrast}.nii.gz")
        assert answer.headers["content-type"] == "application/gzip"
        found = read_nifti(answer.content, argument=contrast)
        sent = read_nifti(image_bytes(number), argument=contrast)
        assert found.grid.matches(label_map.grid)
        np.testing.assert_allclose(found.array, sent.array, atol=100 / 32767)
        assert not found.array[sent.array == 0].any()
    report = client.get(job["links"]["result"], headers={"Accept": "application/json"}).json()
    assert set(report["files"]) == ALWAYS | IMAGES
    archive = client.get(job["links"]["result"], headers={"Accept": "application/zip"})
    with zipfile.ZipFile(io.BytesIO(archive.content)) as packed:
        assert set(packed.namelist()) == ALWAYS | IMAGES


def test_where_passes_voted_their_disagreement_is_kept_too(client: httpx.Client) -> None:
    job = finished(client, images="true", tta="fast", cache="false")
    assert names(client, job) == ALWAYS | IMAGES | {"disagreement.nii.gz"}
    found = read_nifti(fetch(client, job, "disagreement.nii.gz").content, argument="d")
    expected = (np.arange(found.array.size) % 101).reshape(found.shape)
    np.testing.assert_array_equal(found.array, expected)
    job = finished(client, tta="fast", cache="false")
    assert names(client, job) == ALWAYS


def test_dicom_images_go_onto_the_grid_of_the_label_map(
    client: httpx.Client, tmp_path_factory: pytest.TempPathFactory
) -> None:
    study = zipped(write_study(tmp_path_factory.mktemp("study")))
    job = finished(
        client, files={"dicom": ("study.zip", study)}, preprocess="none", images="true"
    )  # fmt: skip
    for contrast in CONTRASTS:
        found = read_nifti(fetch(client, job, f"{contrast}.nii.gz").content, argument=contrast)
        np.testing.assert_allclose(found.array, values_of(contrast), atol=0.51)


def test_a_known_result_without_images_answers_no_request_for_them(client: httpx.Client) -> None:
    files = [(field, (name, data)) for field, (name, data) in study_files(t2=image_bytes(77))]
    plain = finished(client, files=files)
    again = finished(client, files=files, images="false")
    assert again["cached"], "not asking and asking for none is the same"
    with_images = finished(client, files=files, images="true")
    assert not with_images["cached"]
    assert names(client, with_images) >= IMAGES
    assert finished(client, files=files, images="true")["cached"]
    after = finished(client, files=files)
    assert after["cached"]
    assert names(client, after) == names(client, plain) == ALWAYS


def test_they_count_as_stored_and_go_with_their_job(client: httpx.Client) -> None:
    store = service_of(client).engine.store
    owner = store.select(limit=1)[0].owner
    held = store.held_by(owner)[1]
    job = finished(client, images="true", cache="false")
    kept = sum(len(fetch(client, job, name).content) for name in IMAGES)
    more = store.held_by(owner)[1] - held
    assert more > kept > 0
    assert client.delete(job["links"]["self"]).status_code == 204
    assert fetch(client, job, "t1ce.nii.gz").status_code == 404
    assert store.held_by(owner)[1] == held


def test_another_value_is_refused_by_the_options_name(client: httpx.Client) -> None:
    answer = client.post("/jobs", files=study_files(), data={"images": "JANE"})
    problem = assert_problem(answer, 422, "option")
    assert problem["field"] == "images"
    assert "JANE" not in answer.text


def test_the_page_for_people_is_there_and_holds_no_name(client: httpx.Client) -> None:
    job = finished(client, cache="false")
    answer = fetch(client, job, "report.html")
    assert answer.headers["content-type"].startswith("text/html")
    assert "For research use only" in answer.text
    assert "JANE" not in answer.text, "of the file's name"
    assert "data:image/png;base64," in answer.text


def test_nobody_else_gets_them() -> None:
    with running_app(Doubtful(), settings=make_settings(auth="off")) as client:
        keys = KeyStore(service_of(client).engine.database)
        made = {name: keys.create(name, scopes=["segment"])[1] for name in ("anna", "ben")}
        client.__dict__["app"].state.guard = Guard("keys", keys=keys)
        client.headers["Authorization"] = f"Bearer {made['anna']}"
        job = finished(client, images="true")
        assert fetch(client, job, "t1ce.nii.gz").status_code == 200
        client.headers["Authorization"] = f"Bearer {made['ben']}"
        for name in ("t1ce.nii.gz", "segmentation.nii.gz", "report.html"):
            assert_problem(fetch(client, job, name), 404, "not-found")
        assert not finished(client, images="true")["cached"], "another owner's result is not known"
