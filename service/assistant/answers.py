"""What the tools answer: closed shapes with a schema, and only what a question about work needs.

Left out on purpose are paths, file names, UIDs of studies and series, names of batches, and the
options of jobs: any of them may say who a patient is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from service.client.job import Job

NOTICE: Final = (
    "For research use only, not a medical device: a person has to look at the images and at every "
    "result."
)


class _Shape(BaseModel):
    """Deaf to members that it does not name: what a server adds does not slip through."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class ModelSummary(_Shape):
    """One installed model."""

    name: str
    version: str
    default: bool = Field(description="Used where no model is named.")
    state: str = Field(description="ready, available (loaded when asked for) or broken.")
    label_scheme: str | None = None
    intended_use: str | None = None
    limitations: str | None = None
    licence: str | None = None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Self:
        """From the service's answer, with the words of the model's card."""
        return cls.model_validate({**entry.get("card", {}), **entry})


class ModelSummaries(_Shape):
    """The models that the service has."""

    models: list[ModelSummary]


class SeriesSummary(_Shape):
    """One series or file, by its number in the inspection."""

    number: int = Field(description="From 1; says nothing about the file.")
    contrast: str | None = Field(description="t1, t1ce, t2, flair, or null for none of them.")
    confidence: float = Field(description="0 to 1.")
    reason: str = Field(description="The evidence.")
    uncertain: bool = Field(description="A person should look.")
    chosen: bool = Field(description="One of the study's four.")
    shape: list[int] | None = Field(default=None, description="Voxels along the array axes.")
    spacing_mm: list[float] | None = None
    orientation: str | None = None
    images: int
    problems: list[str] = []
    warnings: list[str] = []


class StudyInspection(_Shape):
    """What a study holds, and whether it may be segmented as it is."""

    kind: Literal["dicom", "nifti"]
    series: list[SeriesSummary]
    missing: list[str] = Field(description="Contrasts without a series.")
    uncertain: list[str] = Field(description="Contrasts that a person should confirm.")
    grids_equal: bool | None
    skull: str
    prepared: bool
    suspicions: list[str] = Field(description="What the images say against their names.")
    warnings: list[str]
    preparation: list[str] = Field(description="What an automatic preparation would do.")
    ready: bool = Field(description="May be segmented as it is.")
    notice: str = NOTICE

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Self:
        """From the service's report; UIDs become numbers."""
        series = [{**one, "number": n} for n, one in enumerate(report["series"], start=1)]
        return cls.model_validate({**report["study"], "kind": report["kind"], "series": series})


class JobSummary(_Shape):
    """How a job stands."""

    id: str
    state: str = Field(description="queued, running, succeeded, failed or cancelled.")
    position: int | None = Field(description="Place in the queue; 1 is next.")
    eta_s: float | None = Field(description="Seconds until it will probably end.")
    stage: str | None
    done: int = Field(description="Steps of the stage that are done, windows say.")
    total: int
    model: str
    model_version: str | None
    priority: str
    attempts: int = Field(description="How often a worker has begun.")
    cached: bool = Field(description="Answered from an earlier, equal job.")
    error: str | None = Field(description="Why it failed.")
    created: datetime
    started: datetime | None
    ended: datetime | None
    notice: str = NOTICE

    @classmethod
    def of(cls, job: Job) -> Self:
        """From the client's view of a job."""
        told = {
            **job.model_dump(exclude={"error", "options", "batch"}),
            **job.progress.model_dump(),
        }
        return cls.model_validate({**told, "error": job.error.detail if job.error else None})


class JobSummaries(_Shape):
    """The caller's jobs, the newest first."""

    jobs: list[JobSummary]


class StructureFigures(_Shape):
    """Measures of a label (NCR, ED, ET) or a region (WT, TC)."""

    name: str
    meaning: str
    volume_ml: float
    voxels: int
    components: int = Field(description="26-connected parts.")
    largest_ml: float | None = Field(description="Volume of the largest part.")
    diameter_mm: float | None = Field(description="Longest line within one part.")
    axial_mm: list[float] | None = Field(description="Longest axial diameter, and across it.")


class QualityFlag(_Shape):
    """One thing about a result that a person should look at."""

    code: str
    severity: str = Field(description="fail, review or info.")
    reason: str
    subject: str | None = None
    value: float | None = None
    limit: float | None = None


class JobStatistics(_Shape):
    """The figures of a result and what speaks against believing it."""

    job_id: str
    model: str
    model_version: str
    label_scheme: str
    structures: list[StructureFigures]
    flags: list[QualityFlag]
    warnings: list[str]
    notice: str = NOTICE

    @classmethod
    def of(cls, job_id: str, report: Mapping[str, Any]) -> Self:
        """From the report of a job."""
        measured: Mapping[str, Mapping[str, Any]] = report["statistics"]["structures"]
        structures = [_figures(name, one) for name, one in measured.items()]
        flags = report.get("quality", [])
        return cls.model_validate(
            {**report, "job_id": job_id, "structures": structures, "flags": flags}
        )


def _figures(name: str, measured: Mapping[str, Any]) -> dict[str, Any]:
    lesions, axial = measured["lesions"], measured["axial"]
    return {
        **measured,
        "name": name,
        "largest_ml": lesions[0]["volume_ml"] if lesions else None,
        "diameter_mm": measured["diameter"]["length_mm"] if measured["diameter"] else None,
        "axial_mm": [axial["long"]["length_mm"], axial["short"]["length_mm"]] if axial else None,
    }
