"""How progress and results look in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from model_core.cli import err, out
from model_core.cli.engine import engine_line
from model_core.cli.outputs import Targets

if TYPE_CHECKING:
    from model_core.findings import Flag, Statistics
    from model_core.inference.segmenter import Segmentation

VOLUME_MEANINGS: Final[Mapping[str, str]] = {
    "WT": "whole tumour (NCR + ED + ET)",
    "TC": "tumour core (NCR + ET)",
    "ET": "enhancing tumour",
    "NCR": "necrotic and non-enhancing core",
    "ED": "oedema and infiltrated tissue",
}


STAGE_NAMES: Final[Mapping[str, str]] = {"infer": "windows"}
"""What a bar counts, where that says more than the stage's name."""


class _Count(MofNCompleteColumn):
    """``3/12``, and nothing while there is nothing to count."""

    def render(self, task: Task) -> Text:
        """One cell of the bar."""
        return super().render(task) if task.total else Text()


class _Left(TimeRemainingColumn):
    """The time left, and nothing while it cannot be told."""

    def render(self, task: Task) -> Text:
        """One cell of the bar."""
        if task.total is None or task.time_remaining is None:
            return Text()
        return Text.assemble(super().render(task), " left")


class StudyProgress:
    """Bars on stderr: the studies, if several, and the windows of the one being worked on.

    Nothing is drawn where stderr is no terminal. Use it as a context manager.
    """

    def __init__(self, *, total: int) -> None:
        console = err()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            _Count(),
            TimeElapsedColumn(),
            _Left(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._studies = self._bars.add_task("studies", total=total, visible=total > 1)
        self._work = self._bars.add_task("loading", total=None)
        self._stage = ""
        self._name = ""

    def __enter__(self) -> Self:
        """Start drawing."""
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the bars."""
        self._bars.stop()

    def start_study(self, name: str, doing: str = "read") -> None:
        """Show what is done with a study before its stages begin."""
        self._name, self._stage = name, ""
        self._begin(doing)

    def update(self, stage: str, done: int, total: int) -> None:
        """Show ``done`` of ``total`` in ``stage`` (`model_core.types.Progress`)."""
        if stage != self._stage:
            self._stage = stage
            self._begin(STAGE_NAMES.get(stage, stage))
        # a stage of one step has no progress to show: let the bar pulse
        self._bars.update(self._work, completed=done, total=total if total > 1 else None)

    def _begin(self, doing: str) -> None:
        """A new bar for the work: rich cannot take a total back once it is set."""
        self._bars.remove_task(self._work)
        self._work = self._bars.add_task(f"{self._name}: {doing}", total=None)

    def finish_study(self) -> None:
        """Count the study as done, whatever became of it."""
        self._bars.advance(self._studies)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A segmented study, and the seconds of each stage with reading and writing around it."""

    result: Segmentation
    seconds: Mapping[str, float]
    statistics: Statistics
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True)
class Row:
    """One line of the summary over many studies."""

    name: str
    volumes_ml: Mapping[str, float] | None = None
    seconds: float | None = None
    note: str = ""
    failed: bool = False


def show_outcome(outcome: Outcome, targets: Targets) -> None:
    """One study: what ran, the volumes, the time of each stage, where the files lie."""
    console, result = out(), outcome.result
    engine = engine_line(result)
    console.print(
        f"Model {result.model} {result.model_version}, {engine}, labels as {result.label_scheme}",
        soft_wrap=True,
    )
    console.print(volumes_table(result.volumes_ml))
    console.print(stages_line(outcome.seconds), soft_wrap=True)
    show_paths(console, targets)


def volumes_table(volumes_ml: Mapping[str, float]) -> Table:
    """Volumes in millilitres, regions first."""
    table = Table(box=None, padding=(0, 2))
    table.add_column("region")
    table.add_column("mL", justify="right")
    table.add_column("", style="dim")
    for name, meaning in VOLUME_MEANINGS.items():
        table.add_row(name, f"{volumes_ml[name]:.1f}", meaning)
    return table


def stages_line(stage_seconds: Mapping[str, float]) -> str:
    """``prepare 1.2 s · infer 20.1 s · … · total 22.0 s``."""
    parts = [f"{stage} {seconds:.1f} s" for stage, seconds in stage_seconds.items()]
    return " · ".join([*parts, f"total {sum(stage_seconds.values()):.1f} s"])


def show_paths(console: Console, targets: Targets) -> None:
    """Where each file lies, unbroken so that it can be copied."""
    named = (
        ("label map", targets.label_map),
        ("report", targets.report),
        ("preview", targets.preview),
    )
    for name, path in named:
        if path:
            console.print(f"{name:<11}{path}", soft_wrap=True, markup=False)


def show_summary(rows: Sequence[Row], *, total: int) -> None:
    """Many studies: one line each, failures in red, and how many were done."""
    table = Table(box=None, padding=(0, 2))
    table.add_column("study")
    for column in ("WT mL", "TC mL", "ET mL", "seconds"):
        table.add_column(column, justify="right")
    table.add_column("note")
    for row in rows:
        volumes = row.volumes_ml or {}
        table.add_row(
            row.name,
            *(f"{volumes[name]:.1f}" if name in volumes else "" for name in ("WT", "TC", "ET")),
            f"{row.seconds:.1f}" if row.seconds is not None else "",
            row.note,
            style="red" if row.failed else None,
        )
    console = out()
    console.print(table)
    failed = sum(row.failed for row in rows)
    console.print(f"{len(rows) - failed} of {total} studies done, {failed} failed")
