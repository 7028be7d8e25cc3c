"""One run in front of a user, from its first request to its exit code."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer
from rich.table import Table
from rich.text import Text

from model_core.cli import err, out, say_error
from model_core.cli.outputs import Targets
from model_core.cli.show import show_paths
from service.client.bars import JobBars
from service.client.client import Client
from service.client.connect import connect
from service.client.errors import ClientError
from service.client.manifest import Manifest
from service.client.submission import Submission, is_usage
from service.client.task import Task, describe

SECOND_PRESS_S: Final = 3.0
"""After Ctrl-C, the time in which another one cancels the jobs."""
STOPPED: Final = 130
FAILED: Final = 1
USAGE: Final = 2


@dataclass(frozen=True)
class Session:
    """A run in front of a user.

    Args:
        file: its manifest.
        tasks: its studies.
        key_file: where the caller's key is.
        keep_file: leave the manifest even when there is nothing left to go on with.
        most: jobs that wait or run at a time; None: as many as the server takes.
        figures: whether the measures of each study are fetched too.
        again: how to go on; empty: by ``segmamba submit --resume``.
        brief: list only what failed; of a thousand studies, nobody reads the rest.
    """

    file: Manifest
    tasks: Sequence[Task]
    key_file: Path | None = None
    keep_file: bool = False
    most: int | None = None
    figures: bool = False
    again: str = ""
    brief: bool = False

    def run(self, *, wait: bool, cancel_at_once: bool, as_json: bool) -> int:
        """Hand in, wait if wanted, show what came of it; gives the exit code."""
        code = 0
        if any(not task.settled for task in self.tasks):
            with connect(self.file.run.server, self.key_file) as client:
                code = self._work(client, wait=wait, cancel_at_once=cancel_at_once)
        if code == STOPPED:
            return code
        begun = any(task.entry.job for task in self.tasks)
        if code == USAGE and not begun:
            self._forget()
            return code
        show_json(self) if as_json else show_outcome(self)
        if not any(task.resumable for task in self.tasks):
            self._forget()
        elif code or not wait or any(task.failure for task in self.tasks):
            self._say_how_to_go_on()
        return code or (FAILED if any(task.failure for task in self.tasks) else 0)

    def _work(self, client: Client, *, wait: bool, cancel_at_once: bool) -> int:
        bars = JobBars(total=sum(not task.settled for task in self.tasks))
        submission = Submission(
            client, self.file, self.tasks, watch=bars, most=self.most, figures=self.figures
        )
        try:
            with bars:
                if wait:
                    submission.finish()
                else:
                    submission.send()
        except KeyboardInterrupt:
            self._interrupted(submission, cancel=cancel_at_once)
            return STOPPED
        except ClientError as error:
            say_error(str(error))
            return USAGE if is_usage(error) else FAILED
        return 0

    def _interrupted(self, submission: Submission, *, cancel: bool) -> None:
        if not cancel:
            there = sum(task.entry.job is not None and not task.settled for task in self.tasks)
            _say(f"\nleft: {there} of {len(self.tasks)} jobs are at the server and go on there")
            self._say_how_to_go_on()
            _say(f"Ctrl-C once more within {SECOND_PRESS_S:.0f} s cancels them")
            try:
                time.sleep(SECOND_PRESS_S)
            except KeyboardInterrupt:
                cancel = True
        if cancel:
            try:
                certain = submission.cancel()
            except ClientError as error:
                say_error(f"not cancelled: {error}")
                self._say_how_to_go_on()
                return
            _say("cancelled" if certain else self._one_may_be_left())
            self._forget()

    def _one_may_be_left(self) -> str:
        batch = self.file.run.options.batch
        return (
            "cancelled, but for the study that was being sent: if it arrived, it is in "
            f"segmamba jobs list --batch {batch} --server {self.file.run.server}"
        )

    def _say_how_to_go_on(self) -> None:
        """The command that goes on; on the user's own screen, so paths may stand in it."""
        if self.again:
            _say(f"go on with: {self.again}")
            return
        words = ["--resume", shlex.quote(self.file.shown)]
        if self.key_file:
            words += ["--key-file", shlex.quote(str(self.key_file))]
        unsent = any(task.entry.job is None and task.resumable for task in self.tasks)
        same = "STUDY… " if unsent else ""
        _say(f"go on with: segmamba submit {same}{' '.join(words)}")

    def _forget(self) -> None:
        if not self.keep_file:
            self.file.remove()


def show_outcome(session: Session) -> None:
    """What came of each study; for a single one that is done, where its files are."""
    console, tasks = out(), session.tasks
    if len(tasks) == 1 and tasks[0].entry.written and not session.brief:
        if tasks[0].job:
            console.print(f"Model {tasks[0].job.model}, job {tasks[0].job.id}", soft_wrap=True)
        show_paths(console, _targets(session, tasks[0]))
        return
    shown = [task for task in tasks if task.failure or not session.brief]
    if shown:
        console.print(_table(shown))
    done = sum(task.entry.written for task in tasks)
    failed = sum(bool(task.failure) for task in tasks)
    waiting = len(tasks) - done - failed - sum(task.kept for task in tasks)
    more = f", {waiting} at the server or still to send" if waiting else ""
    console.print(f"{done} of {len(tasks)} studies done, {failed} failed{more}")


def _table(tasks: Sequence[Task]) -> Table:
    table = Table(box=None, padding=(0, 2))
    for column in ("study", "state", "job", "note"):
        table.add_column(column)
    for task in tasks:
        style = "red" if task.failure else None
        cells = (task.entry.name, task.state, task.entry.job or "", _note(task))
        table.add_row(*map(Text, cells), style=style)
    return table


def _targets(session: Session, task: Task) -> Targets:
    """The files of a study as the user knows them."""
    shown, entry = session.file.place.shown, task.entry
    report = Path(shown(entry.report)) if entry.report else None
    return Targets(label_map=Path(shown(entry.output)), report=report)


def show_json(session: Session) -> None:
    """The same as one JSON object on stdout."""
    run = session.file.run
    told = {
        "server": run.server,
        "batch": run.options.batch,
        "studies": [_plain(session, task) for task in session.tasks],
    }
    typer.echo(json.dumps(told, indent=2))


def _plain(session: Session, task: Task) -> dict[str, Any]:
    there, targets = task.entry.written or task.kept, _targets(session, task)
    return {
        "study": task.entry.name,
        "state": task.state,
        "job": task.entry.job,
        "label_map": str(targets.label_map) if there else None,
        "report": str(targets.report) if there and targets.report else None,
        "cached": task.job.cached if task.job else None,
        "error": task.failure or None,
    }


def _note(task: Task) -> str:
    if task.kept:
        return "it is there already (--overwrite)"
    if task.failure or task.entry.written or task.job is None:
        return task.failure
    return describe(task.job)


def _say(text: str) -> None:
    err().print(Text(text, style="yellow"), soft_wrap=True)
