"""The table of real-looking series, and the rule that keeps a third of it aside."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from model_core.dicom.facts import SeriesFacts

TABLE = Path(__file__).with_name("series_table.json")


@cache
def table() -> dict[str, Any]:
    """The whole file: about, sources, rows."""
    loaded: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return loaded


def part(*, held_out: bool) -> list[dict[str, Any]]:
    """The rows that rules may be tuned on, or those kept aside."""
    return [row for row in table()["rows"] if row["held_out"] is held_out]


def facts_of(row: dict[str, Any]) -> SeriesFacts:
    """The facts of a row; JSON knows no tuples."""
    values = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in row["facts"].items()
    }
    return SeriesFacts(**values)


def is_kept_aside(row: dict[str, Any]) -> bool:
    """Every third row, by a hash of its facts and nothing else."""
    text = json.dumps(row["facts"], sort_keys=True, ensure_ascii=False)
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % 3 == 0
