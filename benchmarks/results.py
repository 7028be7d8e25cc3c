"""What a subject leaves behind: rows with their spread and their machine, kept after every row.

A results file is ``<subject>_<machine>_<yyyymm>.json``, saved whole after every row, so that an
interruption loses nothing and a later call can measure the missing rows alone. Times are seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.machine import machine, versions
from benchmarks.timing import spread

SCHEMA: Final = "segmamba-benchmark/1"
Bound = Literal["exact", "lower", "scaled", "failed"]
"""``lower``: cut off at the limit, so the true time is longer; ``scaled``: measured on a part."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of doing one thing, measured.

    Attributes:
        group: what is done; rows of one group are compared with each other.
        way: how it is done, and by whom.
        seconds: every run that counts, in order; empty where the row failed.
        reference: whether the others of the group are divided by this row.
        threads: of PyTorch and of the kernels.
        precision: of the convolutions, e.g. ``"float32"``.
        bound: see `Bound`.
        gflop: arithmetic of one run (10⁹ operations, two per multiply-add), None where not counted.
        gbyte: least memory traffic of one run (10⁹ bytes), None where not counted.
        peak: the name of the measured peak to compare with, e.g. ``"conv3d_float32"``.
        peak_rss_mb: the most memory that the run's own process held (10⁶ bytes).
        error: relative L2 distance of the output from the reference row's.
        remark: what a reader has to know about this row.
        extra: further numbers of the subject, e.g. ``ns_per_element``.
    """

    group: str
    way: str
    seconds: tuple[float, ...]
    reference: bool = False
    threads: int = 1
    precision: str = "float32"
    bound: Bound = "exact"
    gflop: float | None = None
    gbyte: float | None = None
    peak: str = ""
    peak_rss_mb: float | None = None
    error: float | None = None
    remark: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """What makes the row the same one in a later measurement."""
        return self.group, self.way

    @property
    def typical(self) -> float | None:
        """The median, None for a failed row."""
        return float(spread(self.seconds)["median"]) if self.seconds else None

    def to_json(self) -> dict[str, Any]:
        """The row as plain JSON values, its spread written out."""
        values = asdict(self) | {"seconds": list(self.seconds), "extra": dict(self.extra)}
        return values | {"spread": spread(self.seconds) if self.seconds else None}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Row:
        """Inverse of `to_json`."""
        known = {key: value for key, value in values.items() if key != "spread"}
        return cls(**(known | {"seconds": tuple(known["seconds"])}))


@dataclass(kw_only=True)
class Results:
    """All rows of one subject on one machine."""

    subject: str
    path: Path
    peaks: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    quick: bool = False
    command: str = ""
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def open(
        cls, subject: str, folder: Path, *, quick: bool = False, fresh: bool = False
    ) -> Results:
        """The results of this subject, machine and month: those on disk, or none yet.

        Quick results never mix with real ones: their files begin with ``quick-``.
        """
        name = f"{'quick-' if quick else ''}{subject}_{machine()['slug']}_{_month()}"
        path = folder / f"{name}.json"
        results = cls(subject=subject, path=path, quick=quick)
        if path.is_file() and not fresh:
            stored = read(path)
            results.rows, results.peaks = stored.rows, stored.peaks
        return results

    def has(self, group: str, way: str) -> bool:
        """Whether a row is there."""
        return any(row.key == (group, way) for row in self.rows)

    def add(self, row: Row) -> None:
        """Keep a row in place of an earlier one of its key, and save."""
        places = [i for i, kept in enumerate(self.rows) if kept.key == row.key]
        if places:
            self.rows[places[0]] = row
        else:
            self.rows.append(row)
        self.save()

    def save(self) -> None:
        """Write the file whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        partial.replace(self.path)

    def to_json(self) -> dict[str, Any]:
        """The file's content."""
        return {
            "schema": SCHEMA,
            "subject": self.subject,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "quick": self.quick,
            "command": self.command,
            "machine": machine(),
            "versions": versions(),
            "peaks": self.peaks,
            "notes": list(self.notes),
            "rows": [row.to_json() for row in self.rows],
        }


def read(path: Path) -> Results:
    """Results from a file, for reports.

    Raises:
        ValueError: the file has another schema.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("schema") != SCHEMA:
        raise ValueError(f"{path.name}: expected schema {SCHEMA}, got {content.get('schema')!r}")
    return Results(
        subject=content["subject"],
        path=path,
        peaks=content["peaks"],
        notes=tuple(content["notes"]),
        quick=content["quick"],
        command=content["command"],
        rows=[Row.from_json(row) for row in content["rows"]],
    )


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by group, in the order of their first appearance."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return found


def ratio(row: Row, rows: Sequence[Row]) -> float | None:
    """How many times as long the row takes as its group's reference row, by medians."""
    reference = next(
        (other for other in rows if other.group == row.group and other.reference), None
    )
    if reference is None or row.typical is None or not reference.typical:
        return None
    return row.typical / reference.typical


def fraction(row: Row, peaks: Mapping[str, float]) -> float | None:
    """Share of the machine's measured peak that the row reaches at its median."""
    work = row.gbyte if row.peak in ("copy", "triad") else row.gflop
    if not row.typical or work is None or row.peak not in peaks or row.bound in ("lower", "failed"):
        return None
    return work / row.typical / peaks[row.peak]


def _month() -> str:
    return datetime.now(UTC).strftime("%Y%m")
