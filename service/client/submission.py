"""The loop of ``segmamba submit``: hand in studies, watch their jobs, fetch what is done.

One thing at a time, in one thread, so that Ctrl-C can end it anywhere; and nothing is begun before
the state file knows of it, so that any end is one to go on from.
"""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from http import HTTPStatus
from pathlib import Path
from typing import Final, NoReturn, Protocol

from model_core.cli.outputs import Targets, all_or_nothing
from model_core.cli.show import STAGE_NAMES
from model_core.errors import StudyError
from model_core.types import Contrast
from service.client.client import Client
from service.client.errors import ClientError, ServerRefused, UnknownAnswerError
from service.client.job import Job, SubmitOptions
from service.client.state_file import Entry, StateFile

LOOK_S: Final = 2.0
"""Between two looks at many jobs."""
NOT_SENT: Final = "not sent yet: name its folder again"
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


@dataclass(eq=False)
class Task:
    """One study on its way.

    Args:
        entry: what the state file knows of it.
        sources: its images, where this call was told them.
        job: the job as it last stood.
        failure: why there will be no result, for people; empty while there may be one.
        kept: there is a result from an earlier run, which stays.
    """

    entry: Entry
    sources: Mapping[Contrast, Path] | None = None
    job: Job | None = None
    failure: str = ""
    kept: bool = False

    def __post_init__(self) -> None:
        if not (self.entry.job or self.entry.written or self.sources or self.kept):
            self.failure = NOT_SENT

    @property
    def settled(self) -> bool:
        """Whether its result is here, or will never be."""
        return bool(self.failure or self.entry.written or self.kept)

    @property
    def unsent(self) -> bool:
        """Whether it is still to be handed in."""
        return not self.settled and self.entry.job is None

    @property
    def resumable(self) -> bool:
        """Whether a later call may still bring its result."""
        done_there = self.job is not None and self.job.succeeded
        return not (self.entry.written or self.kept) and (
            not self.failure or self.failure == NOT_SENT or done_there
        )

    @property
    def state(self) -> str:
        """One word for people and for ``--json``."""
        if self.kept:
            return "kept"
        if self.entry.written:
            return "succeeded"
        if self.failure and (self.job is None or self.job.succeeded):
            return "failed" if self.entry.job or self.sources else "unsent"
        return self.job.state if self.job else ("sent" if self.entry.job else "unsent")


class Submission:
    """Many studies at one server.

    Args:
        client: the server.
        file: the state, saved at every step.
        tasks: the studies, in the order in which they are handed in.
        watch: told of every step.
    """

    def __init__(
        self, client: Client, file: StateFile, tasks: Sequence[Task], *, watch: Watch
    ) -> None:
        self._client, self._file, self._tasks, self._watch = client, file, tasks, watch
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
        while any(task.unsent for task in self._tasks):
            if not self._send_next():
                time.sleep(LOOK_S / 4)

    def finish(self) -> None:
        """Hand in every study, wait for all jobs and write each result as soon as it is there.

        Raises:
            ClientError: the server is away, or refuses the caller.
        """
        self._file.save()
        while waiting := [task for task in self._tasks if not task.settled]:
            sent = self._send_next()
            if len(waiting) == 1 and waiting[0].entry.job:
                self._follow(waiting[0])
            elif time.monotonic() >= self._looked + LOOK_S:
                self._look()
            elif not sent:
                time.sleep(LOOK_S / 20)

    def cancel(self) -> bool:
        """Cancel what is open at the server; false if a job may be left whose id was never told.

        Raises:
            ClientError: the server is away, or refuses the caller.
        """
        batch = self._file.run.options.batch
        if self._file.run.own_batch and batch is not None:
            self._cancel_batch(batch)
            return True
        for task in self._tasks:
            if task.entry.job and not task.settled:
                self._client.cancel(task.entry.job)
        return not self._sending

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
        if task is None or time.monotonic() < self._not_before:
            return False
        assert task.sources is not None
        self._watch.show(task.entry.name, "sending")
        self._sending = True
        try:
            job = self._client.submit(
                task.sources,
                self._file.run.options,
                idempotency_key=task.entry.idempotency_key,
                wait_for_room=False,  # others may be fetched meanwhile
            )
        except (OSError, StudyError) as error:
            self._sending = False
            self._fail(task, getattr(error, "strerror", None) or str(error))
            return True
        except ServerRefused as refused:
            self._sending = False
            return self._not_taken(task, refused)
        task.entry.job = job.id
        self._sending = False
        self._file.save()
        self._take(task, job)
        return True

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
        try:
            self._client.wait(task.entry.job, on_change=lambda job: self._take(task, job))
        except ServerRefused as refused:
            self._lost(task, refused)

    def _look(self) -> None:
        """See how all jobs stand: the open ones in a few pages, those that have left one by one."""
        at_server = [task for task in self._tasks if task.entry.job and not task.settled]
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
        """The server does not know a job any more; any other refusal is not about this study."""
        if refused.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            raise refused
        self._fail(task, "the server knows neither this job nor its result any more")

    def _take(self, task: Task, job: Job) -> None:
        """Note how a job stands; fetch its result if there is one."""
        task.job = job
        if job.succeeded:
            self._watch.show(task.entry.name, "fetching", job)
            self._fetch(task, job)
        elif not job.open:
            self._fail(task, job.error.detail if job.error else job.state)
        else:
            self._watch.show(task.entry.name, describe(job), job)

    def _fetch(self, task: Task, job: Job) -> None:
        try:
            write_results(self._client, job.id, task.entry.targets)
        except OSError as error:
            self._fail(task, f"its files cannot be written ({error.strerror or error})")
            return
        except UnknownAnswerError as error:
            self._fail(task, str(error))
            return
        except ServerRefused as refused:
            self._lost(task, refused)
            return
        task.entry.written = True
        self._file.save()
        self._watch.end(task.entry.name)

    def _fail(self, task: Task, why: str) -> None:
        task.failure = why
        self._watch.end(task.entry.name)


def is_usage(error: ClientError) -> bool:
    """Whether the user, not a study or the server, has something to put right."""
    return isinstance(error, ServerRefused) and (
        error.status in _THE_CALLER or error.field in _OPTIONS
    )


def describe(job: Job) -> str:
    """What an open job does, in a few words."""
    if job.state == "queued":
        return "queued" if job.position is None else f"place {job.position} in the queue"
    progress = job.progress
    stage = STAGE_NAMES.get(progress.stage or "", progress.stage or "running")
    return f"{stage} {progress.done}/{progress.total}" if progress.total > 1 else stage


def write_results(client: Client, job_id: str, targets: Targets) -> None:
    """Fetch a job's label map and, where asked for, its report; both appear, or none does.

    Raises:
        ServerRefused: there is no result.
        UnknownAnswerError: the report is none.
        OSError: the files cannot be written.
    """
    report = client.report(job_id) if targets.report else None
    data = client.result(job_id) if report is None else _label_map(report)
    if targets.label_map.name.lower().endswith(".nii"):
        data = gzip.decompress(data)
    with all_or_nothing() as stage:
        stage(targets.label_map).write_bytes(data)
        if targets.report:
            stage(targets.report).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _label_map(report: dict[str, object]) -> bytes:
    """Take the label map out of a report: what remains is what ``segmamba segment`` writes."""
    part = report.pop("label_map", None)
    text = part.get("data") if isinstance(part, dict) else None
    try:
        return base64.b64decode(text or "", validate=True) or _no_label_map()
    except (TypeError, ValueError):
        _no_label_map()


def _no_label_map() -> NoReturn:
    raise UnknownAnswerError("the server's report comes without a label map")
