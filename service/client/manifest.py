"""What is remembered of a run, so that a killed client goes on where it was: its manifest.

For each study it holds where its results go, checksums of what was sent, the job and what became of
it: no key of the caller, no input path, no name of a study beyond the names of its results. Names
are relative to the manifest's own place, so that the whole can be moved.

It is written whole, and never so often that writing becomes the work: what is not written yet when
a client is killed is found again, since a study is handed in under a key made of its content.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model_core.cli.outputs import LABEL_MAP_SUFFIXES, Targets
from model_core.errors import OptionError
from service.client.job import Job, SubmitOptions
from service.client.places import Folder, Place

SUBMIT_NAME: Final = "segmamba-submit.json"
_SHARE: Final = 20.0
"""Writing takes at most one part in so many of the time."""

EntryState = Literal["unsent", "queued", "running", "succeeded", "failed", "cancelled"]


class Entry(BaseModel):
    """One study of the run.

    Args:
        output: the label map to be.
        report: the report to be, if asked for.
        archive: the archive of all files to be, if asked for.
        mark: of the study's files, as their listing told it.
        inputs: field → SHA-256 of what was sent.
        job: the job's id, as soon as the server has told it.
        state: of the job; ``unsent`` before there is one, ``failed`` too where there never was.
        written: the results are in place.
        attempts: which try this is; each has a job of its own.
        worker_attempts: how often the server began the job.
        model: that the job asked for, or got.
        model_version: likewise.
        cached: answered from an earlier job's result.
        result_sha256: of the label map that was fetched.
        figures: rows of the table of measures, where they were asked for.
        error: why there is no result.
        sent: when it was handed in.
        started: when a worker began.
        ended: when the job ended.
    """

    model_config = ConfigDict(protected_namespaces=())

    output: str
    report: str | None = None
    archive: str | None = None
    mark: str = ""
    inputs: dict[str, str] = Field(default_factory=dict)
    job: str | None = None
    state: EntryState = "unsent"
    written: bool = False
    attempts: int = 1
    worker_attempts: int = 0
    model: str | None = None
    model_version: str | None = None
    cached: bool = False
    result_sha256: str | None = None
    figures: str | None = None
    error: str | None = None
    sent: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def name(self) -> str:
        """What to call the study on the user's screen."""
        name = self.output.rpartition("/")[2]
        ending = next((s for s in LABEL_MAP_SUFFIXES if name.lower().endswith(s)), "")
        return name.removesuffix(name[len(name) - len(ending) :])

    @property
    def open(self) -> bool:
        """Whether something is still to come from a job."""
        return self.job is not None and not (self.written or self.state in ("failed", "cancelled"))

    def begin_anew(self) -> None:
        """Forget the job and what came of it; the next one is another attempt."""
        self.job = self.model = self.model_version = self.result_sha256 = None
        self.figures = self.error = self.sent = self.started = self.ended = None
        self.state, self.written, self.cached, self.worker_attempts = "unsent", False, False, 0
        self.attempts += 1

    def take(self, job: Job) -> bool:
        """Note how the job stands; whether that is news."""
        before = (self.job, self.state, self.worker_attempts, self.model_version)
        self.job, self.state, self.worker_attempts = job.id, job.state, job.attempts
        self.model, self.model_version, self.cached = job.model, job.model_version, job.cached
        self.started, self.ended = job.started, job.ended
        return before != (self.job, self.state, self.worker_attempts, self.model_version)


class Run(BaseModel):
    """All of a run; ``own_batch`` where the batch's token was made for it and is in nobody's use.

    The options hold the batch. The salt keeps this run's jobs apart from those of other runs with
    the same images.
    """

    schema_version: Literal[1] = 1
    server: str
    options: SubmitOptions
    own_batch: bool
    salt: str = Field(default_factory=lambda: secrets.token_hex(16))
    entries: list[Entry] = Field(default_factory=list)

    def idempotency_key(self, entry: Entry) -> str:
        """Under it a study is handed in: the same one as long as nothing about it has changed."""
        content = [self.salt, entry.inputs, self.options.form(), entry.attempts]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass
class Manifest:
    """A run and the file that it is kept in.

    Args:
        place: where the file and the results are.
        file: its name there.
        run: what is in it.
    """

    place: Place
    file: str
    run: Run
    _changed: bool = field(default=False, init=False)
    _due: float = field(default=-inf, init=False)

    @classmethod
    def load(cls, place: Place, file: str, *, option: str = "--resume") -> Self:
        """Read a manifest.

        Raises:
            OptionError: the file is none.
            OSError: it cannot be read.
        """
        try:
            return cls(place, file, Run.model_validate_json(place.read(file)))
        except ValidationError:
            raise OptionError(
                option,
                expected="a file that segmamba wrote to go on with",
                got="another file, or one of another version",
                way_out="Look for the name that was shown when the run was left.",
            ) from None

    @property
    def shown(self) -> str:
        """Where it is, for the user's screen."""
        return self.place.shown(self.file)

    def exists(self) -> bool:
        """Whether it has been written."""
        return self.place.exists(self.file)

    def note(self) -> None:
        """Something changed; it is written now, or soon by `settle`."""
        self._changed = True
        self.settle()

    def settle(self) -> None:
        """Write what has changed, unless the last time is too near."""
        if self._changed and time.monotonic() >= self._due:
            self.save()

    def save(self) -> None:
        """Write the run; a reader finds the old one or the new one, never a part.

        Raises:
            OSError: the folder cannot be written.
            PlaceUnreachable: the storage does not answer.
        """
        began = time.monotonic()
        data = f"{self.run.model_dump_json(indent=2, exclude_none=True)}\n".encode()
        # job ids are the only lock of a service without keys
        self.place.put({self.file: data}, private=True)
        self._changed = False
        now = time.monotonic()
        self._due = now + _SHARE * (now - began)

    def remove(self) -> None:
        """The run is over: there is nothing to go on with."""
        self.place.remove(self.file)


def usual_place(targets: Sequence[Targets]) -> Path:
    """Where a run of ``segmamba submit`` is remembered if the user names no place: by its results.

    Of one study the file bears its name, so that several may go on in one folder.
    """
    first = targets[0].label_map
    if len(targets) > 1:
        return first.with_name(SUBMIT_NAME)
    return first.with_name(f"{Entry(output=first.name).name}.{SUBMIT_NAME}")


def beside(path: Path) -> tuple[Folder, str]:
    """The place and the name of a manifest that is a local file."""
    return Folder(path.parent), path.name


def relative_name(place: Folder, path: Path) -> str:
    """A local path as a name in a place: by the folders' real places, should one be a link."""
    folder = path.parent.resolve()
    root = place.root.resolve()
    return Path(os.path.relpath(folder, root), path.name).as_posix()


def plain_options(options: SubmitOptions) -> Mapping[str, Any]:
    """The options that were chosen, the batch aside: what must be equal when a run goes on."""
    return {name: text for name, text in options.form().items() if name != "batch"}
