"""What a process holds on to: open files, children, memory."""

from __future__ import annotations

import resource
from pathlib import Path

from service.reading import StudyReader


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def children_of(pid: int) -> list[int]:
    """Every child, those included that nobody has waited for."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:  # it has ended meanwhile
                continue
            if int(parent) == pid:
                found.append(int(entry.name))
    return found


def server_of(reader: StudyReader) -> int:
    pid = reader._nursery._server._forkserver_pid  # type: ignore[attr-defined]
    assert pid is not None
    return int(pid)
