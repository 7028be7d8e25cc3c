"""What ``segmamba submit`` remembers of a run, so that a killed client goes on where it was.

It holds the server's address, the options and, for each study, the job's id, the key under which it
was handed in and where the results go: no key of the caller, no input path, no name of a study
beyond the output paths that the user chose. Paths are relative to the file's own folder, so that
the folder can be moved.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, Field, ValidationError

from model_core.cli.outputs import LABEL_MAP_SUFFIXES, Targets, all_or_nothing
from model_core.errors import OptionError
from service.client.job import SubmitOptions

_NAME: Final = "segmamba-submit.json"


class Entry(BaseModel):
    """One study of the run.

    Args:
        output: the label map to be.
        report: the report to be, if asked for.
        idempotency_key: under it the study is handed in, once or again.
        job: the job's id, as soon as the server has told it.
        written: the results are in place.
    """

    output: Path
    report: Path | None = None
    idempotency_key: str
    job: str | None = None
    written: bool = False

    @property
    def targets(self) -> Targets:
        """The files of the study."""
        return Targets(label_map=self.output, report=self.report)

    @property
    def name(self) -> str:
        """What to call the study on the user's screen."""
        name = self.output.name
        ending = next((s for s in LABEL_MAP_SUFFIXES if name.lower().endswith(s)), "")
        return name.removesuffix(name[len(name) - len(ending) :])


class RunState(BaseModel):
    """All of a run; ``own_batch`` where the batch's token was made for it and is in nobody's use.

    The options hold the batch.
    """

    schema_version: Literal[1] = 1
    server: str
    options: SubmitOptions
    own_batch: bool
    entries: list[Entry] = Field(default_factory=list)


@dataclass
class StateFile:
    """A run's state and the file that it is kept in."""

    path: Path
    run: RunState

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a state file.

        Raises:
            OptionError: it is none.
            OSError: it cannot be read.
        """
        try:
            run = RunState.model_validate_json(path.read_bytes())
        except ValidationError:
            raise OptionError(
                "--resume",
                expected="a file that segmamba submit wrote",
                got="another file, or one of another version",
                way_out="Look for the name that was shown when the run was left.",
            ) from None
        for entry in run.entries:
            entry.output = _joined(path, entry.output)
            entry.report = entry.report and _joined(path, entry.report)
        return cls(path, run)

    def save(self) -> None:
        """Write the state; a reader finds the old one or the new one, never a part.

        Raises:
            OSError: the folder cannot be written.
        """
        text = self.run.model_copy(update={"entries": self._portable()}).model_dump_json(indent=2)
        with all_or_nothing() as stage:
            staged = stage(self.path)
            staged.touch(mode=0o600)  # job ids are the only lock of a service without keys
            staged.write_text(text + "\n", encoding="utf-8")

    def remove(self) -> None:
        """The run is over: there is nothing to go on with."""
        self.path.unlink(missing_ok=True)

    def _portable(self) -> Sequence[Entry]:
        return [
            entry.model_copy(
                update={
                    "output": _relative(self.path, entry.output),
                    "report": entry.report and _relative(self.path, entry.report),
                }
            )
            for entry in self.run.entries
        ]


def usual_place(targets: Sequence[Targets]) -> Path:
    """Where the state of a run is kept if the user names no place: beside its results."""
    first = targets[0].label_map
    if len(targets) > 1:
        return first.with_name(_NAME)
    return first.with_name(f"{Entry(output=first, idempotency_key='').name}.{_NAME}")


def _joined(state: Path, path: Path) -> Path:
    return Path(os.path.normpath(state.parent.resolve() / path))


def _relative(state: Path, path: Path) -> Path:
    # of the folders' real places: the same file may be named through a link the next time
    return Path(os.path.relpath(path.parent.resolve(), state.parent.resolve())) / path.name


def plain_options(options: SubmitOptions) -> dict[str, Any]:
    """The options that were chosen, the batch aside: what must be equal when a run goes on."""
    return {name: text for name, text in options.form().items() if name != "batch"}
