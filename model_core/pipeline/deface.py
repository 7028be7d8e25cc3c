"""Faces found in a set of DICOM files, so that de-identification can take them out.

The series of one frame of reference share their world: the brain is looked for in the best of them,
and the plane in front of it cuts them all. That needs a brain that lies wholly within its image;
where no series has one, each is asked for its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from model_core.dicom.deface_series import Places, places_of, take_face_out
from model_core.dicom.headers import read_header
from model_core.dicom.series import Series, list_series
from model_core.dicom.volume import read_series
from model_core.errors import ImageError, InputError
from model_core.preparation.confined import Bounds
from model_core.preparation.deface import FacePlane, face_plane, touches_border
from model_core.preparation.skull import WHOLE_HEAD_MM, find_brain
from model_core.preparation.watch import Watch
from model_core.recognition.rules import is_derived, judge

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from model_core.dicom.deidentify import PixelChange
    from model_core.preparation.skull_tools import Tool

STAGE: Final = "faces"
_RANKS: Final = {"t1": 0, "t1ce": 0, "t2": 1, "flair": 1, None: 2}


@dataclass(frozen=True, kw_only=True, eq=False)
class Faces:
    """What is known about the faces in some files.

    Attributes:
        places: for each file, where its frames lie and what they lose.
        failures: files whose face cannot be told, and why.
    """

    places: Mapping[Path, Places]
    failures: Mapping[Path, ImageError]

    def change_for(self, path: Path) -> PixelChange:
        """Give what takes the face out of a file, or refuses it with an `ImageError`."""

        def change(dataset: Dataset) -> None:
            if path in self.failures:
                raise self.failures[path]
            take_face_out(dataset, self.places.get(path, {}))

        return change


@dataclass(frozen=True, eq=False)
class _Asking:
    """How series are asked for their brain, and what they said."""

    tool: Tool
    bounds: Bounds
    watch: Watch
    planes: dict[str, FacePlane] = field(default_factory=dict)
    failures: dict[str, ImageError] = field(default_factory=dict)


def find_faces(
    files: Sequence[Path], tool: Tool, *, bounds: Bounds | None = None, watch: Watch | None = None
) -> Faces:
    """Find the face in every series that makes a volume.

    Args:
        files: DICOM files in any order; what cannot be read is left to whoever cleans it.
        tool: what tells the brain, see `model_core.preparation.skull_tools.find_tool`.
        bounds: what the tool may use for one image; one thread if not said.
        watch: told how many of the series are done; may stop.

    Raises:
        Cancelled: the caller wants to stop.
    """
    asking = _Asking(tool, bounds or Bounds(), watch or Watch())
    found = list_series([path for path in files if _is_readable(path)])
    volumes = [series for series in found if series.grid is not None]
    done = 0
    for group in _sharing_a_world(volumes):
        asking.watch.tell(STAGE, done, len(volumes))
        _ask_group(group, asking)
        done += len(group)
    asking.watch.tell(STAGE, done, len(volumes))
    known = [(s, asking.planes[_key(s)]) for s in volumes if _key(s) in asking.planes]
    return Faces(places=places_of(known), failures=_failures(found, asking))


def _is_readable(path: Path) -> bool:
    try:
        read_header(path)
    except ImageError:
        return False
    return True


def _key(series: Series) -> str:
    return f"{series.study_uid} {series.uid}"


def _sharing_a_world(volumes: Sequence[Series]) -> list[list[Series]]:
    """Series by study and frame of reference; one that names none is alone."""
    groups: dict[tuple[str, str], list[Series]] = defaultdict(list)
    for series in volumes:
        frame = series.frame_of_reference_uid or f"none {series.uid}"
        groups[series.study_uid, frame].append(series)
    return list(groups.values())


def _ask_group(group: Sequence[Series], asking: _Asking) -> None:
    """Lay one plane for all, or one for each where no brain is wholly seen."""
    for series in sorted(group, key=_preference):
        asking.watch.stop_if_asked()
        try:
            plane, is_whole = _ask(series, asking)
        except InputError as error:
            asking.failures[_key(series)] = _no_brain(error)
            continue
        asking.planes[_key(series)] = plane
        if is_whole:
            asking.planes.update((_key(other), plane) for other in group)
            return


def _preference(series: Series) -> tuple[bool, int, bool, float]:
    """Less is better: a whole head, a T1, an original, thin slices."""
    assert series.grid is not None
    spacing = series.grid.spacing_mm
    reach = min(mm * size for mm, size in zip(spacing, series.grid.shape, strict=True))
    contrast = judge(series.facts).contrast
    return reach < WHOLE_HEAD_MM, _RANKS[contrast], is_derived(series.facts), max(spacing)


def _ask(series: Series, asking: _Asking) -> tuple[FacePlane, bool]:
    """The plane of one series, and whether its brain is wholly seen.

    Raises:
        InputError: its pixels cannot be read, or no brain was found.
    """
    image = read_series(series)
    brain = find_brain(image, asking.tool, bounds=asking.bounds, watch=asking.watch).mask
    return face_plane(brain, image.grid), not touches_border(brain)


def _no_brain(error: InputError) -> ImageError:
    return ImageError(
        "dicom",
        expected="a series whose brain can be found, so that its face can be told from it",
        got=error.got,
        way_out="Leave the series out, or look at it and try another skull-strip tool.",
    )


def _failures(found: Sequence[Series], asking: _Asking) -> dict[Path, ImageError]:
    """Why the face of a file cannot be told, for each file of which a part has none."""
    failures: dict[Path, ImageError] = {}
    for series in found:
        if _key(series) not in asking.planes:
            error = asking.failures.get(_key(series)) or _no_volume(series)
            failures.update(dict.fromkeys(series.files, error))
    return failures


def _no_volume(series: Series) -> ImageError:
    return ImageError(
        "dicom",
        expected="a series that makes one volume, so that its face can be told",
        got="; ".join(series.problems),
        way_out="Leave the series out, or export it again.",
    )
