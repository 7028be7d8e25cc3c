"""Finding the files of a run again: by their content, whatever they are called now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_core.errors import StudyError
from model_core.provenance.digests import sha256_of
from model_core.provenance.manifest import FileRecord, RunManifest
from model_core.types import CONTRASTS, Contrast


@dataclass(frozen=True)
class FoundFiles:
    """What was found of a run.

    Args:
        inputs: the files of each contrast.
        label_map: the result's file, if it was among them.
    """

    inputs: Mapping[Contrast, tuple[Path, ...]]
    label_map: Path | None


def find_files(
    manifest: RunManifest, given: Sequence[Path], *, beside: Sequence[Path] = ()
) -> FoundFiles:
    """Find a run's inputs, and its result, among files and in folders with all that is below.

    Only files of a size that is sought are opened.

    Args:
        manifest: of the run.
        given: files and folders to look through.
        beside: files that may be the result, and are looked at for nothing else.

    Raises:
        StudyError: an input is not among them; names the contrast and how many files it lacks.
    """
    wanted = [file for record in manifest.inputs.values() for file in record.files]
    inputs = _by_content(_files(given), wanted)
    result = manifest.result.file
    results = _by_content([*_files(given), *beside], [result])
    return FoundFiles(
        {
            contrast: _all_of(contrast, manifest.inputs[contrast].files, inputs)
            for contrast in CONTRASTS
            if contrast in manifest.inputs
        },
        results.get(result.sha256),
    )


def _by_content(paths: Iterable[Path], wanted: Sequence[FileRecord]) -> dict[str, Path]:
    sizes = {file.bytes for file in wanted}
    sought = {file.sha256 for file in wanted}
    found: dict[str, Path] = {}
    for path in paths:
        if path.stat().st_size in sizes and (digest := sha256_of(path)) in sought:
            found.setdefault(digest, path)
    return found


def _files(given: Sequence[Path]) -> Iterator[Path]:
    for path in given:
        places = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (place for place in places if place.is_file())


def _all_of(
    contrast: Contrast, wanted: Sequence[FileRecord], found: Mapping[str, Path]
) -> tuple[Path, ...]:
    missing = sum(file.sha256 not in found for file in wanted)
    if missing:
        raise StudyError(
            contrast,
            expected="every file of the run, under any name",
            got=f"none with the content of {missing} of its {len(wanted)}",
            way_out="Hand over the very files that were segmented: an image exported or packed "
            "again is another file.",
        )
    return tuple(found[file.sha256] for file in wanted)
