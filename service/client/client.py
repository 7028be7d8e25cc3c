"""The client of the service: one method for each thing that can be asked of it."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from http import HTTPStatus
from math import inf
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from service.client.errors import ServerRefused, UnknownAnswerError
from service.client.job import Batch, Job, SubmitOptions
from service.client.stream import follow, job_path
from service.client.upload import Images, check_study, post_images
from service.client.wire import JSON, Patience, Wire, read
from service.jobs.records import State

_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)


class Client:
    """A caller of one server; use it as a context manager, from any number of threads.

    Args:
        server: where the service lives, e.g. ``https://segmamba.example``.
        key: the caller's key, where the service asks for one.
        timeout_s: longest silence of the server within one answer.
        patience: how long and how often to ask again when the server is away or busy.

    Raises:
        OptionError: the address or the key cannot be one.

    Every method but `close` raises `ServerRefused` where the service says no and
    `ServerUnreachable` where it stays away. Proxies and certificates of the house come from the
    usual variables (``HTTPS_PROXY``, ``SSL_CERT_FILE``).
    """

    def __init__(
        self,
        server: str,
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        patience: Patience = Patience(),  # noqa: B008 - frozen
    ) -> None:
        self._wire = Wire(server, key, timeout_s=timeout_s, patience=patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._wire.http.close()

    def submit(
        self,
        study: Images,
        options: SubmitOptions = SubmitOptions(),  # noqa: B008 - frozen
        *,
        idempotency_key: str | None = None,
        wait_for_room: bool = True,
    ) -> Job:
        """Hand in a study. However often it has to be sent, it becomes one job.

        Args:
            study: a NIfTI file for each contrast, or one zip archive of DICOM files; read from the
                disk while it is sent, and sent without its name.
            options: how to segment it.
            idempotency_key: the same key again gives the same job again, after a restart of the
                caller too; by default every call has its own.
            wait_for_room: whether to come back to a full queue, for `Patience.busy_s`; else that is
                a refusal too.

        Raises:
            StudyError: not exactly the four contrasts.
            OSError: a file cannot be read.
        """
        check_study(study)
        form = options.form()
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}

        def attempt() -> httpx.Response:
            return post_images(self._wire.http, "/jobs", study, form=form, headers=headers)

        return read(Job, self._wire.repeat(attempt, busy=wait_for_room).content)

    def inspect(self, images: Images) -> dict[str, Any]:
        """Which of the images is which contrast, what is missing and what would be prepared.

        Args:
            images: as for `submit`; here also fewer than four.

        Raises:
            OSError: a file cannot be read.
        """

        def attempt() -> httpx.Response:
            return post_images(self._wire.http, "/inspect", images, form={}, headers={})

        return _mapping(self._wire.repeat(attempt))

    def models(self) -> dict[str, Any]:
        """The models that the server has, with their cards; see the interface's page."""
        return _mapping(self._wire.send("GET", "/models"))

    def job(self, job_id: str) -> Job:
        """How a job stands."""
        return read(Job, self._wire.send("GET", job_path(job_id)).content)

    def jobs(
        self,
        *,
        state: State | None = None,
        batch: str | None = None,
        page: int | None = None,
    ) -> Iterator[Job]:
        """The caller's jobs, asked for page by page while they are looked at.

        Args:
            state: only those in this state.
            batch: only those of this batch.
            page: jobs a page; the server's choice by default.
        """
        wanted = {"state": state, "batch": batch, "limit": page}
        params = httpx.QueryParams({k: v for k, v in wanted.items() if v is not None})
        while True:
            content = _mapping(self._wire.send("GET", "/jobs", params=params))
            for entry in content.get("jobs", []):
                yield read(Job, json.dumps(entry))
            if not content.get("next"):
                return
            # only its query: whatever address stands there, the key goes to our server alone
            params = httpx.URL(content["next"]).params

    def events(self, job_id: str) -> Iterator[Job]:
        """Every change of a job as it happens, from its present state to its last.

        Survives cut connections and restarts of the server; see `service.client.stream`.
        """
        return follow(self._wire, job_id)

    def wait(
        self,
        job_id: str,
        *,
        timeout: float | None = None,
        on_change: Callable[[Job], None] | None = None,
    ) -> Job:
        """Wait for a job's end, whatever it is, and give its last state.

        Args:
            job_id: the job.
            timeout: seconds to wait; None waits as long as it takes.
            on_change: called with each state on the way, the last included.

        Raises:
            WaitTimeoutError: it had not ended in time; it goes on at the server.
        """
        deadline = inf if timeout is None else time.monotonic() + timeout
        for job in follow(self._wire, job_id, deadline=deadline):
            if on_change is not None:
                on_change(job)
        return job

    def result(self, job_id: str) -> bytes:
        """The label map of a job that succeeded, as the bytes of a ``.nii.gz`` file.

        Raises:
            ServerRefused: ``not-finished`` while it is open, the job's own problem where it failed,
                ``gone`` where it was cancelled or deleted.
        """
        path = f"{job_path(job_id)}/result"
        return self._wire.send("GET", path, accept="application/gzip").content

    def report(self, job_id: str) -> dict[str, Any]:
        """The report of a job that succeeded, with the label map in base64 under ``label_map``.

        Raises:
            ServerRefused: as `result`.
        """
        return _mapping(self._wire.send("GET", f"{job_path(job_id)}/result", accept=JSON))

    def archive(self, job_id: str) -> bytes:
        """All files of a job that succeeded, as the bytes of a ``.zip`` file.

        Raises:
            ServerRefused: as `result`.
        """
        path = f"{job_path(job_id)}/result"
        return self._wire.send("GET", path, accept="application/zip").content

    def file(self, job_id: str, name: str) -> bytes:
        """One of the files of a job that succeeded, e.g. ``statistics.csv``.

        Raises:
            ServerRefused: as `result`, and where the run left no such file.
        """
        path = f"{job_path(job_id)}/files/{quote(name, safe='')}"
        return self._wire.send("GET", path, accept="*/*").content

    def cancel(self, job_id: str) -> Job:
        """Cancel a job that waits or runs; one that has ended is left as it is, result and all."""
        return read(Job, self._wire.send("POST", f"{job_path(job_id)}/cancel").content)

    def delete(self, job_id: str) -> None:
        """Remove a job and all that the server keeps of it; one that is open is cancelled first."""
        while True:
            try:
                response = self._wire.send("DELETE", job_path(job_id))
            except ServerRefused as refused:
                if refused.status in _GONE and refused.tries > 1:
                    return  # an earlier try had done it, and its answer was lost
                raise
            if response.status_code == HTTPStatus.NO_CONTENT:
                return
            self.wait(job_id)

    def batch(self, name: str) -> Batch:
        """How the jobs of a batch stand."""
        return read(Batch, self._wire.send("GET", _batch_path(name)).content)

    def cancel_batch(self, name: str) -> None:
        """Cancel the jobs of a batch that wait or run; those that have ended stay as they are."""
        self._wire.send("DELETE", _batch_path(name))


def _batch_path(name: str) -> str:
    return f"/batches/{quote(name, safe='')}"


def _mapping(response: httpx.Response) -> dict[str, Any]:
    try:
        content = response.json()
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UnknownAnswerError(
            "the server's answer is not a JSON object. Is this the address of a SegMamba service?"
        )
    return content
