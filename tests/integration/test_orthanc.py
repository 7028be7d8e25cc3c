"""A study, its SEG and its SR through a real PACS and back: Debian's Orthanc over DICOMweb."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from model_core.dicom.deidentify import deidentify
from model_core.dicom.derived import Algorithm, Output
from model_core.dicom.seg import SEG_KINDS, encode_seg
from model_core.dicom.series import list_series
from model_core.dicom.sources import sources_of
from model_core.dicom.sr import RegionMeasurement, encode_sr
from service.dicomweb.cli import dicom
from service.dicomweb.client import DicomwebServer, parse_servers, pull_study, push
from service.dicomweb.errors import ArchiveRefused, ArchiveUnreachable, StudyNotFoundError
from service.dicomweb.receipt import UNLISTED
from tests.dicom_series import (
    PLAIN,
    PLANTED,
    T1_FACTS,
    SeriesRecipe,
    geometry_affine,
    series_uid,
    slices_of,
    study_uid,
)
from tests.integration.orthanc import PASSWORD, USER, Orthanc, running_orthanc

pytestmark = pytest.mark.slow

SHAPE = (24, 20, 12)
CONTRASTS = ("t1", "t1ce", "t2", "flair")
ALGORITHM = Algorithm(name="segmamba-small", version="1.0.0", weights_sha256="0" * 64)
OUTPUT = Output(
    created=datetime(2026, 1, 2, 12, 0),
    series_number=901,
    series_description="tumour",
)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def server(orthanc: Orthanc) -> DicomwebServer:
    environment = {"SEGMAMBA_DICOMWEB_PACS_USER": USER, "SEGMAMBA_DICOMWEB_PACS_PASSWORD": PASSWORD}
    return parse_servers(f"pacs={orthanc.url}", environment)["pacs"]


@dataclass(frozen=True)
class Scans:
    """Four series of one study as bytes, the slices of each in order."""

    study: str
    files: dict[str, list[bytes]]

    @property
    def all(self) -> list[bytes]:
        return [file for series in self.files.values() for file in series]


def scans(study: str) -> Scans:
    """Four contrasts on one oblique grid; another word is another study."""
    affine = geometry_affine("coronal", shape=SHAPE, spacing=(1.0, 1.25, 3.0), oblique=True)
    files = {}
    for number, contrast in enumerate(CONTRASTS):
        values = np.random.default_rng(number).integers(0, 4000, SHAPE)
        facts = replace(T1_FACTS, description=contrast, number=number + 2)
        recipe = SeriesRecipe(facts=facts, study=study, seed=contrast, patient=PLANTED)
        files[contrast] = [as_bytes(one) for one in slices_of(values, affine, recipe)]
    return Scans(study_uid(replace(PLAIN, study=study)), files)


def as_bytes(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def read(data: bytes) -> Dataset:
    return dcmread(BytesIO(data))


def by_uid(files: list[bytes]) -> dict[str, bytes]:
    return {str(read(file).SOPInstanceUID): file for file in files}


def test_a_study_of_four_series_goes_in_and_comes_back_byte_for_byte(
    orthanc: Orthanc, server: DicomwebServer, tmp_path: Path
) -> None:
    study = scans("whole")
    receipt = push(server, study.all)
    assert receipt.complete
    assert [one.number for one in receipt.stored] == list(range(1, 49))
    assert orthanc.files().items() >= by_uid(study.all).items()
    files = pull_study(server, study.study, tmp_path)
    assert by_uid([file.read_bytes() for file in files]) == by_uid(study.all)
    assert [dcmread(file) for file in files] == [
        read(by_uid(study.all)[dcmread(file).SOPInstanceUID]) for file in files
    ]
    assert len(list_series(files)) == 4


def test_one_series_can_be_asked_for(server: DicomwebServer, tmp_path: Path) -> None:
    study = scans("one-series")
    assert push(server, study.all).complete
    wanted = series_uid(SeriesRecipe(study="one-series", seed="flair"))
    files = pull_study(server, study.study, tmp_path, series=[wanted])
    assert by_uid([file.read_bytes() for file in files]) == by_uid(study.files["flair"])


@pytest.mark.parametrize("kind", SEG_KINDS)
def test_a_seg_and_its_report_are_stored_beside_their_study(
    kind: str, server: DicomwebServer, tmp_path: Path
) -> None:
    study = scans(f"results-{kind}")
    assert push(server, study.all).complete
    pulled = pull_study(server, study.study, tmp_path / "in")
    (t1,) = [series for series in list_series(pulled) if series.facts.description == "t1"]
    sources = sources_of(t1)
    labels = np.random.default_rng(5).integers(0, 4, sources.grid.shape, dtype=np.uint8)
    seg = encode_seg(
        labels, sources.grid.affine, sources, algorithm=ALGORITHM, output=OUTPUT, kind=kind
    )  # type: ignore[arg-type]
    measured = [RegionMeasurement(name="ET", volume_ml=1.5, longest_mm=12.0)]
    report = encode_sr(
        measured, seg, sources, algorithm=ALGORITHM, output=replace(OUTPUT, series_number=902)
    )
    receipt = push(server, [seg, report])
    assert receipt.complete, receipt.as_dict()
    results = [str(read(seg).SeriesInstanceUID), str(read(report).SeriesInstanceUID)]
    back = pull_study(server, study.study, tmp_path / "out", series=results)
    assert by_uid([file.read_bytes() for file in back]) == by_uid([seg, report])
    stored_seg, stored_report = (dcmread(file) for file in back)
    assert stored_seg.PixelData == read(seg).PixelData
    referenced = stored_seg.ReferencedSeriesSequence[0]
    assert {one.ReferencedSOPInstanceUID for one in referenced.ReferencedInstanceSequence} == set(
        by_uid(study.files["t1"])
    )
    assert stored_report.StudyInstanceUID == stored_seg.StudyInstanceUID == study.study
    everything = pull_study(server, study.study, tmp_path / "all")
    assert len(everything) == len(study.all) + 2


def test_the_receipt_shows_what_was_refused_here_and_what_the_archive_dropped(
    orthanc: Orthanc, server: DicomwebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.dicomweb.push.LOOK_AGAIN_SECONDS", (0.0, 0.2))
    good, dropped = (read(file) for file in scans("refused").files["t1"][:2])
    dropped.Modality = "OT"  # the archive's own rule: see orthanc.REFUSE_OTHERS
    receipt = push(server, [b"no DICOM at all", as_bytes(good), as_bytes(dropped)])
    assert [one.number for one in receipt.stored] == [2]
    assert receipt.as_dict()["objects"] == [
        {"number": 1, "stored": False, "reason": "this is no DICOM file, or one without its UIDs"},
        {
            "number": 2,
            "stored": True,
            "sop_class_uid": str(good.SOPClassUID),
            "sop_instance_uid": str(good.SOPInstanceUID),
        },
        {
            "number": 3,
            "stored": False,
            "sop_class_uid": str(dropped.SOPClassUID),
            "sop_instance_uid": str(dropped.SOPInstanceUID),
            "reason": UNLISTED,
        },
    ]
    assert str(dropped.SOPInstanceUID) not in orthanc.files()


def test_what_is_there_already_may_come_again(server: DicomwebServer) -> None:
    study = scans("again")
    for _ in range(2):
        assert push(server, study.files["t2"]).complete


def test_wrong_credentials_are_told_from_a_server_that_is_down(
    orthanc: Orthanc, server: DicomwebServer, tmp_path: Path
) -> None:
    objects = scans("credentials").files["t1"][:1]
    for stranger in (replace(server, password="wrong"), replace(server, user=None, password=None)):
        with pytest.raises(ArchiveRefused, match="credentials"):
            push(stranger, objects)
        with pytest.raises(ArchiveRefused, match="credentials"):
            pull_study(stranger, "1.2.3", tmp_path)
    down = replace(server, url="http://127.0.0.1:9/dicom-web")
    with pytest.raises(ArchiveUnreachable, match="archive pacs: it cannot be reached"):
        push(down, objects)
    with pytest.raises(ArchiveUnreachable):
        pull_study(down, "1.2.3", tmp_path)


def test_an_unknown_study_is_said_to_be_unknown(server: DicomwebServer, tmp_path: Path) -> None:
    with pytest.raises(StudyNotFoundError):
        pull_study(server, "1.2.3.4.5.6", tmp_path)


def test_the_commands_do_the_same_from_a_terminal(
    orthanc: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = scans("terminal")
    (tmp_path / "in").mkdir()
    for number, data in enumerate(study.all):
        (tmp_path / "in" / f"{number}.dcm").write_bytes(data)
    for name, value in orthanc.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SEGMAMBA_DICOMWEB_SERVER", orthanc.url)
    run = CliRunner().invoke
    pushed = run(dicom, ["push", str(tmp_path / "in"), "--json"], catch_exceptions=False)
    assert pushed.exit_code == 0, pushed.output
    assert json.loads(pushed.stdout)["stored"] == 48
    pulled = run(dicom, ["pull", study.study, "-o", str(tmp_path / "out")], catch_exceptions=False)
    assert pulled.exit_code == 0, pulled.output
    assert "48 images" in pulled.stdout
    back = [file.read_bytes() for file in (tmp_path / "out").iterdir()]
    assert by_uid(back) == by_uid(study.all)


def test_a_clean_study_is_a_study_to_the_archive_too(
    orthanc: Orthanc, server: DicomwebServer, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for number, data in enumerate(scans("clean").all):
        (tmp_path / "in" / f"{number}").write_bytes(data)
    cleaning = deidentify(sorted((tmp_path / "in").iterdir()), tmp_path / "out")
    assert len(cleaning.written) == 48
    assert push(server, cleaning.written).complete
    clean_study = str(dcmread(cleaning.written[0]).StudyInstanceUID)
    files = pull_study(server, clean_study, tmp_path / "back")
    assert len(files) == 48
    assert sorted(series.shape for series in list_series(files)) == [SHAPE] * 4
    with orthanc.client() as client:
        found = client.get(f"/dicom-web/studies?StudyInstanceUID={clean_study}").text
    assert "Zyxplanted" not in found
    assert "anon-" in found
