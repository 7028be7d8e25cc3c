"""``segmamba dicom`` as somebody types it, against archives that answer over HTTP."""

from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from typer.testing import CliRunner, Result

from model_core.errors import ImageError, OptionError
from service.dicomweb.cli import dicom
from tests.dicom_series import (
    PLAIN,
    PLANTED,
    SeriesRecipe,
    geometry_affine,
    slices_of,
    study_uid,
    write_series,
)
from tests.service.dicomweb.archive import Answer, Request, Study, scripted_archive

SHAPE = (6, 5, 3)
VALUES = np.arange(90).reshape(SHAPE)
AFFINE = geometry_affine(shape=SHAPE)


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVERS", "SERVER", "USER", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"SEGMAMBA_DICOMWEB_{name}", raising=False)
    monkeypatch.delenv("SEGMAMBA_DICOMWEB_SERVER", raising=False)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(dicom, [str(word) for word in arguments])


def stored(datasets: list[Dataset]) -> list[Dataset]:
    found = []
    for dataset in datasets:
        file = BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        found.append(dcmread(BytesIO(file.getvalue())))
    return found


def test_pull_by_address_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(study_uid(), stored(slices_of(VALUES, AFFINE)))
    with scripted_archive(study) as archive:
        by_url = run("pull", study_uid(), "--server", archive.url, "-o", tmp_path / "a")
        monkeypatch.setenv("SEGMAMBA_DICOMWEB_SERVERS", f"pacs={archive.url}")
        monkeypatch.setenv("SEGMAMBA_DICOMWEB_PACS_TOKEN", "t0k")
        by_name = run("pull", study_uid(), "--server", "pacs", "-o", tmp_path / "b", "--json")
    assert by_url.exit_code == 0, by_url.output
    assert "3 images" in by_url.stdout
    answer = json.loads(by_name.stdout)
    assert answer["archive"] == "pacs"
    assert [dcmread(file) for file in answer["files"]] == study.datasets
    assert archive.requests[-1].headers["Authorization"] == "Bearer t0k"
    assert "Authorization" not in archive.requests[0].headers


def test_push_shows_what_was_refused_and_ends_with_one(tmp_path: Path) -> None:
    write_series(tmp_path / "in", VALUES, AFFINE)
    (tmp_path / "in" / "notes.txt").write_text("no DICOM")

    def script(request: Request) -> Answer:
        return Answer(200) if request.method == "POST" else Answer(501)

    with scripted_archive(script) as archive:
        told = run("push", tmp_path / "in", "--server", archive.url)
        as_json = run("push", tmp_path / "in", "--server", archive.url, "--json")
    assert told.exit_code == as_json.exit_code == 1
    assert "3 of 4 stored in given" in told.stdout
    assert "notes.txt: this is no DICOM file" in told.stderr
    assert json.loads(as_json.stdout)["refused"] == 1
    assert len(archive.asked("POST")) == 2


def test_a_server_has_to_be_named() -> None:
    result = run("pull", "1.2.3", "-o", "nowhere")
    assert isinstance(result.exception, OptionError)
    assert "SEGMAMBA_DICOMWEB_SERVER" in str(result.exception)


def test_an_unencrypted_way_is_warned_of(tmp_path: Path) -> None:
    result = run("pull", "not a UID", "--server", "http://pacs.invalid/x", "-o", tmp_path)
    assert isinstance(result.exception, OptionError)
    assert "unencrypted" in result.stderr


def test_deidentify_writes_clean_images_and_says_what_it_left_out(tmp_path: Path) -> None:
    files = write_series(tmp_path / "in", VALUES, AFFINE, SeriesRecipe(patient=PLANTED))
    bad = dcmread(files[0])
    bad.BurnedInAnnotation = "YES"
    bad.save_as(files[0])
    (tmp_path / "in" / "DICOMDIR").write_bytes(b"an index")
    (tmp_path / "in" / "viewer.exe").write_bytes(b"MZ")
    result = run("deidentify", tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "2 of 3 images" in " ".join(result.stdout.split())
    assert "burned-in" in result.stderr
    assert "2 files are no DICOM images" in result.stderr
    for file in (tmp_path / "out").rglob("*.dcm"):
        assert b"Zyxplanted" not in file.read_bytes()


def test_a_key_file_gives_the_same_uids_again(tmp_path: Path) -> None:
    write_series(tmp_path / "in", VALUES, AFFINE, PLAIN)
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123\n")
    names = []
    for folder in ("a", "b"):
        arguments = ["deidentify", tmp_path / "in", "-o", tmp_path / folder, "--json"]
        result = run(*arguments, "--key-file", key)
        assert result.exit_code == 0, result.output
        names.append([Path(file).name for file in json.loads(result.stdout)["written"]])
    assert names[0] == names[1]
    other = run("deidentify", tmp_path / "in", "-o", tmp_path / "c", "--json")
    assert not set(names[0]) & {Path(file).name for file in json.loads(other.stdout)["written"]}


def test_a_zip_archive_is_taken_too(tmp_path: Path) -> None:
    write_series(tmp_path / "in", VALUES, AFFINE)
    archive = shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "in")
    result = run("deidentify", archive, "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["written"]) == 3


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    cleaned = run("deidentify", tmp_path / "in", "-o", tmp_path / "out")
    assert isinstance(cleaned.exception, ImageError)
    pushed = run("push", tmp_path / "in", "--server", "http://127.0.0.1:9")
    assert isinstance(pushed.exception, OptionError)
