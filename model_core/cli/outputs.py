"""Where results go: names for one study or many, all files of a study in place or none."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_core.errors import OptionError

LABEL_MAP_SUFFIXES: Final = (".nii.gz", ".nii")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The output paths as the user gave them: files for one study, folders for many."""

    label_map: Path
    report: Path | None = None
    preview: Path | None = None
    run: Path | None = None
    archive: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The files of one study."""

    label_map: Path
    report: Path | None = None
    preview: Path | None = None
    run: Path | None = None
    archive: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that will be written."""
        wished = (self.label_map, self.report, self.preview, self.run, self.archive)
        return tuple(path for path in wished if path)

    @property
    def existing(self) -> tuple[Path, ...]:
        """Those that are there already."""
        return tuple(path for path in self.paths if path.exists())


def place(wish: Wish, name: str, *, alone: bool) -> Targets:
    """The files of the study ``name``.

    Raises:
        OptionError: a file is named for several studies.
    """
    return Targets(
        label_map=_file("--output", wish.label_map, name, LABEL_MAP_SUFFIXES, alone),
        report=wish.report and _file("--report", wish.report, name, (".json",), alone),
        preview=wish.preview and _file("--preview", wish.preview, name, (".png",), alone),
        run=wish.run and _file("--run", wish.run, f"{name}.run", (".json",), alone),
        archive=wish.archive and _file("--archive", wish.archive, name, (".zip",), alone),
    )


def _file(option: str, path: Path, name: str, suffixes: tuple[str, ...], alone: bool) -> Path:
    """``path`` itself if it names a file of the right kind, else ``<path>/<name><suffix>``."""
    if not path.name.lower().endswith(suffixes):
        return path / f"{name}{suffixes[0]}"
    if not alone:
        raise OptionError(
            option,
            expected="a folder, since there are several studies",
            got=f"a {suffixes[0]} file",
            way_out="Each study becomes a file of its own name in the folder.",
        )
    return path


@contextmanager
def all_or_nothing() -> Iterator[Callable[[Path], Path]]:
    """Hand out a hidden neighbour to write to for each path; at the end all move into place.

    After an exception the neighbours are removed and nothing at the real paths has changed.
    """
    staged: list[tuple[Path, Path]] = []

    def stage(target: Path) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        # the name stays whole at the end: writers choose a format by the suffix
        neighbour = target.with_name(f".{uuid.uuid4().hex[:8]}.{target.name}")
        staged.append((neighbour, target))
        return neighbour

    try:
        yield stage
        for neighbour, _ in staged:
            _flush_to_disk(neighbour)
        for neighbour, target in staged:
            neighbour.replace(target)
    finally:
        for neighbour, _ in staged:
            neighbour.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
