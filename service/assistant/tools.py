"""What an assistant can ask: each tool is one question to the service, or one order."""

from __future__ import annotations

import json
from itertools import islice
from typing import Annotated, Literal

from pydantic import Field

from model_core.types import LabelScheme, Tta
from service.assistant.answers import (
    JobStatistics,
    JobSummaries,
    JobSummary,
    ModelSummaries,
    ModelSummary,
    StudyInspection,
)
from service.assistant.folder import AllowedFolder
from service.client.client import Client
from service.client.job import SubmitOptions
from service.jobs.records import State

JobId = Annotated[
    str, Field(pattern="^[0-9a-f]{32}$", description="From list_jobs or segment_study.")
]
StudyPath = Annotated[
    str,
    Field(
        min_length=1,
        description="Folder or zip archive of one study, relative to the allowed folder.",
    ),
]
_REPORT = "report.json"


class JobTools:
    """Questions about models and jobs.

    Args:
        client: of the running service; what it may see is what the caller's key allows.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def list_models(self) -> ModelSummaries:
        """List the models that the service has, with their intended use and limitations."""
        found = self._client.models()["models"]
        return ModelSummaries(models=[ModelSummary.of(entry) for entry in found])

    def list_jobs(
        self,
        state: Annotated[State | None, Field(description="Only those in this state.")] = None,
        limit: Annotated[int, Field(ge=1, le=50, description="At most so many.")] = 20,
    ) -> JobSummaries:
        """List the caller's segmentation jobs, the newest first."""
        found = islice(self._client.jobs(state=state, page=limit), limit)
        return JobSummaries(jobs=[JobSummary.of(job) for job in found])

    def job_state(self, job_id: JobId) -> JobSummary:
        """Tell how a job stands: its place in the queue, its progress, why it failed."""
        return JobSummary.of(self._client.job(job_id))

    def job_statistics(self, job_id: JobId) -> JobStatistics:
        """Give volumes, components, diameters and quality flags of a job that succeeded.

        A flag of severity fail or review means that a person must look before the figures are used.
        """
        report = json.loads(self._client.file(job_id, _REPORT))
        return JobStatistics.of(job_id, report)

    def cancel_job(self, job_id: JobId) -> JobSummary:
        """Cancel a job that waits or runs; one that has ended stays as it is, with its result."""
        return JobSummary.of(self._client.cancel(job_id))


class StudyTools:
    """What is done with studies of the allowed folder.

    Args:
        client: of the running service.
        folder: below it studies may be named.
    """

    def __init__(self, client: Client, folder: AllowedFolder) -> None:
        self._client, self._folder = client, folder

    def inspect_study(self, path: StudyPath) -> StudyInspection:
        """Tell which series of a study is which contrast, what is missing, and what to prepare.

        Nothing is kept and no job is made.
        """
        with self._folder.study(path) as images:
            return StudyInspection.of(self._client.inspect(images))

    def segment_study(
        self,
        path: StudyPath,
        model: Annotated[str | None, Field(description="From list_models.")] = None,
        tta: Annotated[Tta | None, Field(description="Mirrored passes to average.")] = None,
        label_scheme: Annotated[LabelScheme | None, Field(description="Numbering.")] = None,
        preprocess: Annotated[
            Literal["auto", "none", "full"] | None,
            Field(description="What is done to the images first; auto for DICOM by default."),
        ] = None,
    ) -> JobSummary:
        """Hand a study in to be segmented; answers at once with the job, which goes on by itself.

        Ask job_state until it has ended, then job_statistics.
        """
        options = SubmitOptions(
            model=model, tta=tta, label_scheme=label_scheme, preprocess=preprocess
        )
        with self._folder.study(path) as images:
            job = self._client.submit(images, options, wait_for_room=False)
        return JobSummary.of(job)
