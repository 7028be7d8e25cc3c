"""One study on its way to a server and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from model_core.cli.show import STAGE_NAMES
from service.client.job import Job
from service.client.manifest import Entry
from service.client.source import Source, digests

NOT_SENT: Final = "not sent yet: name its folder again"


@dataclass(eq=False)
class Task:
    """One study on its way.

    Args:
        entry: what the manifest knows of it.
        source: its images, where this call was told them.
        job: the job as it last stood.
        failure: why there will be no result, for people; empty while there may be one.
        kept: there is a result from an earlier run, which stays.
        adopted: its job was made by an earlier call.
    """

    entry: Entry
    source: Source | None = None
    job: Job | None = None
    failure: str = ""
    kept: bool = False
    adopted: bool = False

    def __post_init__(self) -> None:
        entry = self.entry
        if self.kept or entry.written:
            return
        if entry.state in ("failed", "cancelled"):
            self.failure = self.failure or entry.error or entry.state
        elif not (entry.job or self.source):
            self.failure = self.failure or NOT_SENT

    @property
    def settled(self) -> bool:
        """Whether its result is here, or will never be."""
        return bool(self.failure or self.entry.written or self.kept)

    @property
    def unsent(self) -> bool:
        """Whether it is still to be handed in."""
        return not self.settled and self.entry.job is None

    @property
    def at_server(self) -> bool:
        """Whether its job is there and its result not yet here."""
        return not self.settled and self.entry.job is not None

    @property
    def resumable(self) -> bool:
        """Whether a later call may still bring its result."""
        done_there = self.entry.state == "succeeded"
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
        if self.failure == NOT_SENT:
            return "unsent"
        if self.failure:
            return "cancelled" if self.entry.state == "cancelled" else "failed"
        return self.job.state if self.job else ("sent" if self.entry.job else "unsent")


def adopt(entry: Entry, source: Source | None, *, again: bool) -> Task:
    """A study that an earlier call knew: gone on with, or begun anew where it has changed.

    Args:
        entry: what is remembered of it.
        source: its images, where this call was told them.
        again: whether it is tried again if it has failed.
    """
    if source is not None and (_changed(entry, source) or (again and _failed(entry))):
        entry.begin_anew()
    return Task(entry, source=source, adopted=entry.job is not None)


def describe(job: Job) -> str:
    """What an open job does, in a few words."""
    if job.state == "queued":
        return "queued" if job.position is None else f"place {job.position} in the queue"
    progress = job.progress
    stage = STAGE_NAMES.get(progress.stage or "", progress.stage or "running")
    return f"{stage} {progress.done}/{progress.total}" if progress.total > 1 else stage


def _failed(entry: Entry) -> bool:
    return entry.state in ("failed", "cancelled")


def _changed(entry: Entry, source: Source) -> bool:
    """Whether the images are others than those sent; read only where their listing differs."""
    if not entry.inputs:
        return _failed(entry)  # it could not be read, and perhaps it can be now
    if entry.mark == source.mark:
        return False
    try:
        with source.opened() as files:
            same = digests(files) == entry.inputs
    except OSError:
        return True  # sending it will tell what is wrong
    if same:
        entry.mark = source.mark
    return not same
