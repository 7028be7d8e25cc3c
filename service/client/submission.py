"""The loop over many studies: hand them in, watch their jobs, fetch what is done.

One thing at a time, in one thread, so that Ctrl-C can end it anywhere; and a study is handed in
under a key made of its content, so that any end is one to go on from.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final, Protocol, cast

from model_core.errors import StudyError
from service.client.client import Client
from service.client.errors import ClientError, ServerRefused, UnknownAnswerError
from service.client.job import Job, SubmitOptions
from service.client.manifest import Manifest
from service.client.results import fetch_results
from service.client.source import digests
from service.client.task import Task, describe
from service.client.upload import DICOM, Images

LOOK_S: Final = 2.0
"""Between two looks at many jobs."""
_THIS_STUDY: Final = frozenset({400, 408, 409, 413, 415, 422})
"""Refusals that speak of one study and leave the others their chance; of an option, they do not."""
_THE_CALLER: Final = frozenset({401, 403, 404})
"""Refusals of a caller without a key, or at a wrong address."""
_OPTIONS: Final = frozenset(option.name for option in fields(SubmitOptions))


class Watch(Protocol):
    """What wants to see how studies go on."""

    def show(self, name: str, doing: str, job: Job | None = None) -> None:
        """A study is at a new point."""

    def end(self, name: str) -> None:
        """Nothing more happens to a study."""


class Submission:
    """Many studies at one server.

    Args:
        client: the server.
        file: the manifest, told of every step.
        tasks: the studies, in the order in which they are handed in.
        watch: told of every step.
        most: jobs that wait or run at a time; None: as many as the server takes.
        figures: whether the measures of each study are fetched too.
    """

    def __init__(
        self,
        client: Client,
        file: Manifest,
        tasks: Sequence[Task],
        *,
        watch: Watch,
        most: int | None = None,
        figures: bool = False,
    ) -> None:
        self._client, self._file, self._tasks, self._watch = client, file, tasks, watch
        self._most, self._figures = most, figures
        self._not_before = 0.0
        self._looked = 0.0
        self._sending = False
        """Between the first byte of a study and the server's word for it."""

    def send(self) -> None:
        """Hand in every study, waiting for room where the queue is full.

        Raises:
            ClientError: the server is away, or refuses the caller.
        """
        self._file.save()
        try:
            while any(task.unsent for task in self._tasks):
                if not self._send_next():
                    time.sleep(LOOK_S / 4)
        finally:
            self._file.save()

    def finish(self) -> None:
        """Hand in every study, wait for all jobs and write each result as soon as it is there.

        Raises:
            ClientError: the server is away, or refuses the caller.
        """
        self._file.save()
        try:
            while waiting := [task for task in self._tasks if not task.settled]:
                self._step(waiting)
        finally:
            self._file.save()

    def _step(self, waiting: Sequence[Task]) -> None:
        sent = self._send_next()
        self._file.settle()
        if len(waiting) == 1 and waiting[0].entry.job:
            self._follow(waiting[0])
        elif time.monotonic() >= self._looked + LOOK_S:
            self._look()
        elif not sent:
            time.sleep(LOOK_S / 20)

    def cancel(self) -> bool:
        """Cancel what is open at the server; false if a job may be left whose id was never told.

        What was cancelled is unsent again.

        Raises:
            ClientError: the server is away, or refuses the caller.
        """
        batch, certain = self._file.run.options.batch, True
        if self._file.run.own_batch and batch is not None:
            self._cancel_batch(batch)
        else:
            for task in self._tasks:
                if task.at_server and task.entry.job:
                    self._client.cancel(task.entry.job)
            certain = not self._sending
        for task in self._tasks:
            if not task.settled and task.entry.inputs:
                task.entry.begin_anew()
        self._file.save()
        return certain

    def _cancel_batch(self, batch: str) -> None:
        """In one go, and jobs too whose number was never told to us."""
        try:
            self._client.cancel_batch(batch)
        except ServerRefused as refused:
            if refused.status != HTTPStatus.NOT_FOUND:  # else nothing of it had arrived
                raise

    def _send_next(self) -> bool:
        """Hand in the next study, if there is one and room for it."""
        task = next((task for task in self._tasks if task.unsent), None)
        if task is None or time.monotonic() < self._not_before or self._full():
            return False
        self._watch.show(task.entry.name, "sending")
        try:
            job = self._send(task)
        except (OSError, StudyError) as error:
            self._fail(task, getattr(error, "strerror", None) or str(error))
            return True
        except ServerRefused as refused:
            return self._not_taken(task, refused)
        task.entry.sent = datetime.now(UTC)
        self._take(task, job)
        return True

    def _full(self) -> bool:
        return self._most is not None and self._most <= sum(task.at_server for task in self._tasks)

    def _send(self, task: Task) -> Job:
        """One study's images to the server."""
        assert task.source is not None
        with task.source.opened() as files:
            task.entry.inputs, task.entry.mark = digests(files), task.source.mark
            images = cast("Images", files.get(DICOM, files))
            self._sending = True
            try:
                job = self._client.submit(
                    images,
                    self._file.run.options,
                    idempotency_key=self._file.run.idempotency_key(task.entry),
                    wait_for_room=False,  # others may be fetched meanwhile
                )
            except (OSError, ServerRefused, StudyError):
                self._sending = False
                raise
            task.entry.job, self._sending = job.id, False
        self._file.note()
        return job

    def _not_taken(self, task: Task, refused: ServerRefused) -> bool:
        if refused.status == HTTPStatus.TOO_MANY_REQUESTS:
            pause = max(refused.retry_after or 0.0, LOOK_S)
            self._not_before = time.monotonic() + pause
            self._watch.show(task.entry.name, f"no room at the server, again in {pause:.0f} s")
            return False
        if refused.status not in _THIS_STUDY or refused.field in _OPTIONS:
            raise refused
        self._fail(task, str(refused))
        return True

    def _follow(self, task: Task) -> None:
        """Stay with the last job until its end."""
        assert task.entry.job
        self._file.save()
        try:
            self._client.wait(task.entry.job, on_change=lambda job: self._take(task, job))
        except ServerRefused as refused:
            self._lost(task, refused)

    def _look(self) -> None:
        """See how all jobs stand: the open ones in a few pages, those that have left one by one."""
        at_server = [task for task in self._tasks if task.at_server]
        batch = self._file.run.options.batch
        still = {
            job.id: job
            for state in ("queued", "running")
            for job in (self._client.jobs(state=state, batch=batch) if len(at_server) > 1 else ())
        }
        for task in at_server:
            assert task.entry.job
            try:
                self._take(task, still.get(task.entry.job) or self._client.job(task.entry.job))
            except ServerRefused as refused:
                self._lost(task, refused)
        self._looked = time.monotonic()

    def _lost(self, task: Task, refused: ServerRefused) -> None:
        """The server does not know a job any more; any other refusal is not about this study.

        A job of an earlier call may have been deleted since: its study is handed in anew.
        """
        if refused.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            raise refused
        if task.adopted and task.source is not None:
            task.adopted, task.job = False, None
            task.entry.begin_anew()
            self._file.note()
            return
        self._fail(task, "the server knows neither this job nor its result any more")

    def _take(self, task: Task, job: Job) -> None:
        """Note how a job stands; fetch its result if there is one."""
        task.job = job
        if task.entry.take(job):
            self._file.note()
        if job.succeeded:
            self._watch.show(task.entry.name, "fetching", job)
            self._fetch(task)
        elif not job.open:
            self._fail(task, job.error.detail if job.error else job.state)
        else:
            self._watch.show(task.entry.name, describe(job), job)

    def _fetch(self, task: Task) -> None:
        try:
            fetch_results(self._client, task.entry, self._file.place, figures=self._figures)
        except OSError as error:
            self._leave(task, f"its files cannot be written ({error.strerror or error})")
            return
        except UnknownAnswerError as error:
            self._leave(task, str(error))
            return
        except ServerRefused as refused:
            self._lost(task, refused)
            return
        task.entry.written = True
        self._file.note()
        self._watch.end(task.entry.name)

    def _fail(self, task: Task, why: str) -> None:
        """There is no result, and there will be none unless the study is handed in anew."""
        task.entry.error = why
        if task.entry.state != "cancelled":
            task.entry.state = "failed"
        self._file.note()
        self._leave(task, why)

    def _leave(self, task: Task, why: str) -> None:
        """There is no result for now."""
        task.failure = why
        self._watch.end(task.entry.name)


def is_usage(error: ClientError) -> bool:
    """Whether the user, not a study or the server, has something to put right."""
    return isinstance(error, ServerRefused) and (
        error.status in _THE_CALLER or error.field in _OPTIONS
    )
