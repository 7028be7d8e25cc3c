"""The series in a set of DICOM files, each with its grid, or with the reasons why it has none.

`list_series` reads headers only. A series that holds several volumes (`model_core.dicom.parts`) is
listed as so many, ``uid#1``, ``uid#2`` and so on. Nothing is hidden: what makes no volume is listed
with its problems, so that people can be told what they sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from model_core.dicom.facts import SeriesFacts
from model_core.dicom.frames import Frame
from model_core.dicom.headers import Header, read_header
from model_core.dicom.limits import DEFAULT_LIMITS, DicomLimits, refuse
from model_core.dicom.parts import Part, parts_of
from model_core.dicom.stack import Stack, stacked
from model_core.errors import ImageError
from model_core.imaging.grid import Grid
from model_core.types import Shape3, Spacing


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """One volume to be: its slices in order, and what is known without a look at a pixel.

    Attributes:
        uid: SeriesInstanceUID (0020,000E), with ``#1``, ``#2`` … where it holds several volumes.
        series_uid: the UID alone, for references.
        study_uid: StudyInstanceUID (0020,000D).
        frame_of_reference_uid: (0020,0052): series of one frame share their world; may be empty.
        sop_class_uid: what kind of objects the files are.
        facts: how it was made.
        frames: the slices, ordered by place along their normal; in any order where there is no
            grid.
        grid: the lattice of the voxels, RAS+ mm; None where there are problems.
        problems: why it makes no volume, for people; empty if it does.
        warnings: what is odd and tolerated, for people.
    """

    uid: str
    series_uid: str
    study_uid: str
    frame_of_reference_uid: str
    sop_class_uid: str
    facts: SeriesFacts
    frames: tuple[Frame, ...]
    grid: Grid | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the slices, each once, in the order of the slices."""
        return tuple(dict.fromkeys(frame.path for frame in self.frames))

    @property
    def shape(self) -> Shape3 | None:
        """Voxels along a row, down a column, and slices; None where there is no grid."""
        return self.grid.shape if self.grid else None

    @property
    def spacing_mm(self) -> Spacing | None:
        """Distance between neighbouring voxels along the three array axes, in mm."""
        return self.grid.spacing_mm if self.grid else None

    @property
    def axcodes(self) -> str | None:
        """The closest orientation of the array axes, e.g. ``"LPS"``."""
        return self.grid.axcodes if self.grid else None


def list_series(files: Iterable[Path], *, limits: DicomLimits = DEFAULT_LIMITS) -> list[Series]:
    """Read the headers of files and sort their slices into series.

    Args:
        files: DICOM files in any order; objects without an image (reports) are left out.
        limits: what is still accepted.

    Returns:
        One entry for every volume, by series number and then UID, whatever the order of the files.

    Raises:
        ImageError: a file is unusable (see `read_header`; it is told by its number in ``files``),
            or there are too many files.
    """
    paths = tuple(files)
    if len(paths) > limits.files:
        raise refuse(
            f"at most {limits.files} files", f"{len(paths)}", "Hand over one study at a time."
        )
    groups: dict[tuple[str, str], list[Header]] = {}
    for number, path in enumerate(paths, start=1):
        header = _header(path, f"file {number} of {len(paths)}", limits)
        if header.frames:
            groups.setdefault((header.study_uid, header.series_uid), []).append(header)
    found = [series for headers in groups.values() for series in _series_of(headers, limits)]
    return sorted(found, key=_order)


def _order(series: Series) -> tuple[bool, int, str, str, int]:
    number = series.facts.number
    part = int(series.uid.removeprefix(series.series_uid).lstrip("#") or 0)
    return number is None, number or 0, series.study_uid, series.series_uid, part


def _header(path: Path, which: str, limits: DicomLimits) -> Header:
    try:
        return read_header(path, limits=limits)
    except ImageError as error:
        raise refuse(error.expected, f"{error.got} ({which})", error.way_out) from None


def _series_of(headers: Sequence[Header], limits: DicomLimits) -> list[Series]:
    by_path = {header.path: header for header in headers}
    parts = parts_of([frame for header in by_path.values() for frame in header.frames])
    return [
        _series(part, by_path, _Numbered(number, len(parts)), limits)
        for number, part in enumerate(parts, start=1)
    ]


@dataclass(frozen=True)
class _Numbered:
    """Which part of how many."""

    number: int
    total: int

    def uid(self, series_uid: str) -> str:
        return f"{series_uid}#{self.number}" if self.total > 1 else series_uid

    def words(self, part: Part) -> tuple[str, ...]:
        if self.total == 1:
            return ()
        told_by = ", ".join(part.told_by)
        return (f"volume {self.number} of {self.total} in its series, told apart by {told_by}",)


def _series(
    part: Part, by_path: dict[Path, Header], numbered: _Numbered, limits: DicomLimits
) -> Series:
    headers = [by_path[path] for path in dict.fromkeys(frame.path for frame in part.frames)]
    stack = stacked(part.frames)
    problems = (*_unique(header.problems for header in headers), *_mixed(headers))
    if not problems:
        problems = stack.problems or _too_large(stack, limits)
    first = headers[0]
    return Series(
        uid=numbered.uid(first.series_uid),
        series_uid=first.series_uid,
        study_uid=first.study_uid,
        frame_of_reference_uid=first.frame_of_reference_uid,
        sop_class_uid=first.sop_class_uid,
        facts=_facts(first.facts, stack),
        frames=stack.frames,
        grid=None if problems else stack.grid,
        problems=problems,
        warnings=(
            *numbered.words(part),
            *_unique(header.warnings for header in headers),
            *stack.warnings,
        ),
    )


def _unique(groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words for group in groups for words in group))


def _mixed(headers: Sequence[Header]) -> tuple[str, ...]:
    """What must be one in all files of a volume and is not."""
    kinds = {
        "frames of reference": {header.frame_of_reference_uid for header in headers},
        "kinds of objects": {header.sop_class_uid for header in headers},
    }
    return tuple(f"slices of {len(v)} {kind}" for kind, v in kinds.items() if len(v) > 1)


def _too_large(stack: Stack, limits: DicomLimits) -> tuple[str, ...]:
    rows, columns = stack.frames[0].size
    voxels = rows * columns * len(stack.frames)
    return (f"{voxels} voxels, more than {limits.voxels}",) if voxels > limits.voxels else ()


def _facts(facts: SeriesFacts, stack: Stack) -> SeriesFacts:
    """The facts of one volume: what its slices say themselves comes before the file's word."""
    traits = stack.frames[0].traits
    along_row, down_column, between = stack.grid.spacing_mm if stack.grid else (0.0, 0.0, 0.0)
    return replace(
        facts,
        image_type=traits.image_type or facts.image_type,
        echo_time_ms=_first(traits.echo_time_ms, facts.echo_time_ms),
        b_value=_first(traits.b_value, facts.b_value),
        inversion_time_ms=_first(traits.inversion_time_ms, facts.inversion_time_ms),
        flip_angle_deg=_first(traits.flip_angle_deg, facts.flip_angle_deg),
        images=len(stack.frames),
        spacing_mm=(down_column, along_row, between) if stack.grid else None,
    )


def _first(own: float | None, other: float | None) -> float | None:
    return other if own is None else own
