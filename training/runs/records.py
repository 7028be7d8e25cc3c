"""Numbers of a run as JSON lines: appended while it goes, readable whatever killed it.

A line that a kill tore apart is ignored when it is read, and cut off before the next one is
written. Only a writer mends: to a reader the torn line may be one that is being written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model_core.imaging.atomic import write_atomically

Record = dict[str, Any]
"""One line; its ``kind`` says what it tells."""


def append_record(path: Path, record: Record) -> None:
    """Add one line; numbers that are not finite become null, which every JSON reader knows."""
    line = json.dumps(_plain(record), allow_nan=False)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def read_records(path: Path) -> list[Record]:
    """Every whole line, in order; no file, no lines."""
    return [record for _, record in _lines(path)]


def mend_records(path: Path) -> None:
    """Make the file end after a whole line, so that the next one begins on its own."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        if not content or content.endswith(b"\n"):
            return
        whole = content.rfind(b"\n") + 1
        if _parsed(content[whole:].decode(errors="replace")) is None:
            file.truncate(whole)
        else:
            file.write(b"\n")


def keep_records_until(path: Path, step: float) -> None:
    """Drop what was recorded after `step`, in one write; damaged lines go as well.

    A line without a step belongs to the step of the line before it. A run that goes on has not
    ended: lines of kind ``end`` are dropped whatever their step.
    """
    kept, at = [], 0
    for line, record in _lines(path):
        at = int(record.get("step") or at)
        if at <= step and record.get("kind") != "end":
            kept.append(f"{line}\n")
    if path.exists():
        write_atomically(path, "".join(kept).encode())


def _lines(path: Path) -> Iterator[tuple[str, Record]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            record = _parsed(line)
            if record is not None:
                yield line.rstrip("\n"), record


def _parsed(line: str) -> Record | None:
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _plain(value: Any) -> Any:
    """`value` in JSON's own types; scalars of NumPy and torch become numbers."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is not None and not isinstance(value, str | bool | int | float):
        value = value.item() if hasattr(value, "item") else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
