"""What the answers hold, and what they leave out whatever the service says."""

from __future__ import annotations

from typing import Any

import pytest

from service.assistant.answers import JobStatistics, JobSummary, ModelSummary, StudyInspection
from service.client.job import Job

SECRETS = ("DOE", "1.2.840")


def test_a_job_is_told_without_its_batch_its_options_or_anything_new() -> None:
    job = Job.model_validate(
        {
            "id": "a" * 32, "state": "running", "model": "m", "created": "2030-01-02T03:04:05Z",
            "batch": "DOE-7", "options": {"series": {"t1": "1.2.840.1"}}, "title": "DOE",
            "progress": {"stage": "infer", "done": 3, "total": 8},
        }
    )  # fmt: skip
    told = JobSummary.of(job)
    assert (told.stage, told.done, told.total, told.error) == ("infer", 3, 8, None)
    assert "research use only" in told.notice
    assert not [secret for secret in SECRETS if secret in told.model_dump_json()]


def test_a_failed_job_says_why() -> None:
    error = {"type": "urn:x:image", "title": "t", "status": 422, "detail": "t1: expected a NIfTI."}
    job = Job.model_validate(
        {
            "id": "b", "state": "failed", "model": "m", "created": "2030-01-02T03:04:05Z",
            "error": error,
        }
    )  # fmt: skip
    assert JobSummary.of(job).error == "t1: expected a NIfTI."


def test_series_are_numbered_and_their_uids_left_out() -> None:
    series = {
        "uid": "1.2.840.99", "contrast": "t1", "confidence": 0.9, "reason": "TE 3 ms",
        "uncertain": False, "chosen": True, "shape": [2, 3, 4], "spacing_mm": [1.0, 1.0, 5.0],
        "orientation": "LPS", "images": 4, "problems": [], "warnings": ["odd"], "file": "DOE",
    }  # fmt: skip
    study = {
        "missing": ["t2"], "uncertain": [], "studies": 1, "grids_equal": None, "skull": "present",
        "prepared": False, "suspicions": [], "warnings": [], "preparation": ["register"],
        "ready": False,
    }  # fmt: skip
    told = StudyInspection.of({"kind": "dicom", "series": [series, series], "study": study})
    assert [one.number for one in told.series] == [1, 2]
    assert (told.missing, told.preparation, told.series[0].warnings) == (
        ["t2"], ["register"], ["odd"],
    )  # fmt: skip
    assert not [secret for secret in SECRETS if secret in told.model_dump_json()]


def a_structure(**members: Any) -> dict[str, Any]:
    nothing = {
        "meaning": "m", "voxels": 0, "volume_ml": 0.0, "components": 0, "place": None,
        "diameter": None, "axial": None, "lesions": [],
    }  # fmt: skip
    return {**nothing, **members}


def test_figures_are_told_and_what_is_not_there_is_null() -> None:
    found = a_structure(
        voxels=9, volume_ml=3.5, components=2, diameter={"length_mm": 20.5},
        axial={"long": {"length_mm": 18.0}, "short": {"length_mm": 9.0}},
        lesions=[{"volume_ml": 3.0}, {"volume_ml": 0.5}],
    )  # fmt: skip
    report = {
        "model": "m", "model_version": "1", "label_scheme": "brats2021", "warnings": ["w"],
        "statistics": {"structures": {"WT": found, "ET": a_structure()}},
        "quality": [{"code": "many-parts", "severity": "review", "reason": "r", "value": 9}],
        "sources": "DOE",
    }  # fmt: skip
    told = JobStatistics.of("j", report)
    whole, enhancing = told.structures
    assert (whole.volume_ml, whole.components, whole.largest_ml) == (3.5, 2, 3.0)
    assert (whole.diameter_mm, whole.axial_mm) == (20.5, [18.0, 9.0])
    assert (enhancing.largest_ml, enhancing.diameter_mm, enhancing.axial_mm) == (None, None, None)
    assert [(flag.code, flag.severity, flag.value) for flag in told.flags] == [
        ("many-parts", "review", pytest.approx(9)),
    ]
    assert "DOE" not in told.model_dump_json()


def test_a_model_is_told_with_the_words_of_its_card() -> None:
    card = {"name": "m", "version": "0", "limitations": "adults only", "licence": "MIT"}
    told = ModelSummary.of(
        {"name": "m", "version": "2", "default": True, "state": "ready", "card": card}
    )
    assert (told.version, told.limitations, told.licence) == ("2", "adults only", "MIT")
