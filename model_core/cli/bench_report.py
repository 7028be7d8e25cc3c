"""The report of ``segmamba bench``: rows as JSON, and as a page that a person can read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from model_core.cli.bench_facts import facts_of
from model_core.cli.bench_plan import BenchPlan
from model_core.cli.bench_steps import Figure, Row
from model_core.imaging.atomic import write_atomically

SCHEMA_VERSION: Final = 1
TITLES: Final = {
    "kernels": "Scan kernels against the reference in float64",
    "scan": "One selective scan",
    "windows": "One window",
    "copies": "One image, and where it lies",
    "study": "One generated study, from images to a label map",
    "training": "One training step on one window",
}
SEND: Final = (
    "Please attach report.json and report.md to an issue in the project's repository, with a word "
    "on what kind of machine it is (a workstation, a cloud instance). They name no host, no person "
    "and no folder."
)
REHEARSAL: Final = (
    "A rehearsal without a GPU: it shows that the steps run. Nothing in it says anything about a "
    "GPU, so there is nothing to send."
)


@dataclass
class Report:
    """Rows, and the machine that gave them."""

    plan: dict[str, Any]
    rehearsal: bool
    facts: dict[str, Any]
    made: str
    planned: int = 0
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def begin(cls, plan: BenchPlan) -> Report:
        """An empty report of this machine."""
        sizes = {
            "quick": plan.quick,
            "rounds": plan.rounds,
            "model": f"{plan.bundle.card.name} {plan.bundle.card.version}",
            "window": list(plan.window),
            "phantom": list(plan.phantom),
        }
        made = datetime.now(UTC).date().isoformat()
        return cls(plan=sizes, rehearsal=plan.rehearsal, facts=facts_of(plan), made=made)

    def headline(self) -> str:
        """The device in one line."""
        device, chosen = self.facts["device"], self.facts["chosen"]
        parts = [device["name"]]
        if "capability" in device:
            parts += [f"capability {device['capability']}", f"driver {device['driver']}"]
        parts += [f"scan {chosen['backend']}", f"convolutions {chosen['precision']}"]
        return ", ".join(parts)

    def failed(self) -> list[Row]:
        """Rows that could not be measured, or are wrong."""
        return [row for row in self.rows if row.problem]

    def closing(self) -> str:
        """What is to be done with it."""
        return REHEARSAL if self.rehearsal else SEND

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "schema_version": SCHEMA_VERSION,
            "rehearsal": self.rehearsal,
            "made": self.made,
            "complete": len(self.rows) == self.planned,
            **self.facts,
            "plan": self.plan,
            "rows": [asdict(row) for row in self.rows],
        }

    def to_markdown(self) -> str:
        """The page."""
        lines = ["# GPU report" if not self.rehearsal else "# GPU report: a rehearsal", ""]
        lines += [self.closing(), "", f"Made {self.made}.", *self._about()]
        for part, title in TITLES.items():
            rows = [row for row in self.rows if row.part == part]
            if rows:
                lines += ["", f"## {title}", "", *_table(rows)]
        failed = [f"- {row.part}, {row.subject}, {row.way}: {row.problem}" for row in self.failed()]
        lines += ["", "## What failed", "", *(failed or ["Nothing."])]
        return "\n".join(lines) + "\n"

    def _about(self) -> list[str]:
        if len(self.rows) < self.planned:
            yet = f"Stopped after {len(self.rows)} of {self.planned} measurements."
        else:
            yet = "All measurements were made."
        lines = [yet]
        for title in ("device", "processor", "versions", "scan_backends", "chosen", "settings"):
            values = [f"{name} {value}" for name, value in self.facts[title].items()]
            lines += ["", f"**{title.replace('_', ' ')}**: {'; '.join(values) or 'none'}"]
        sizes = "; ".join(f"{name} {value}" for name, value in self.plan.items())
        return [*lines, "", f"**plan**: {sizes}"]


def write_report(report: Report, folder: Path) -> None:
    """Write ``report.json`` and ``report.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.to_json(), indent=2, default=str) + "\n"
    write_atomically(folder / "report.json", text.encode())
    write_atomically(folder / "report.md", report.to_markdown().encode())


def _cells(row: Row, names: Sequence[str]) -> list[str]:
    """Subject, way, milliseconds and figures as text."""
    times = [short(row.seconds[key] * 1e3) if row.seconds else "" for key in ("median", "p90")]
    figures = [short(row.figures[name]) if name in row.figures else "" for name in names]
    return [row.subject, row.way, *times, *figures, row.problem]


def _columns(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """The heading of a part's table, and the names of its figures."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    return ["subject", "way", "median ms", "p90 ms", *names, "note"], names


def _table(rows: Sequence[Row]) -> list[str]:
    heading, names = _columns(rows)
    lines = [heading, ["---"] * len(heading), *(_cells(row, names) for row in rows)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def short(value: Figure) -> str:
    """Four digits of a number, and text as it is."""
    if isinstance(value, str):
        return value
    return f"{value:.4g}"
