"""Four contrasts of one head on one grid: what a network is given to look at.

The *reference* contrast decides the grid: results come back on it, in its own axis order. The other
contrasts are turned to it exactly where that is enough, and resampled (with a warning) where not.
What cannot be a brain study is refused; what is only odd is said in `Study.warnings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from model_core.errors import OptionError, StudyError
from model_core.imaging.nifti import ReadLimits, read_nifti
from model_core.imaging.orientation import turn
from model_core.imaging.resample import LINEAR, resample
from model_core.imaging.skull import is_stripped
from model_core.imaging.study_files import StudyFiles, find_studies
from model_core.imaging.volume import Volume
from model_core.types import CONTRASTS, Contrast

__all__ = ["Study", "StudyFiles", "check_complete", "find_studies", "load_study", "make_study"]

SPACING_RANGE_MM: Final = (0.2, 10.0)
"""Spacing of any scanner image of a head, thick slices included."""
SMALLEST_EXTENT_MM: Final = 8.0
"""Less than this along an axis is no head, and leaves a network nothing to look at."""
FARTHEST_MM: Final = 1e5
"""Farther from the origin, the 32-bit numbers of a header no longer resolve a hundredth of a mm."""
_COMMON: Final = "RAS"
_SAMPLE: Final = 16


@dataclass(frozen=True, eq=False)
class Study:
    """Four co-registered volumes on one grid.

    Args:
        volumes: every contrast, all on the grid of `native`.
        reference: the contrast that gave the grid.
        native: the reference's volume as it was handed over.
        warnings: what was odd and tolerated, for people.

    Raises:
        StudyError: a contrast is missing or lies on another grid.
    """

    volumes: Mapping[Contrast, Volume]
    reference: Contrast
    native: Volume
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_complete(self.volumes)
        for contrast, volume in self.volumes.items():
            if not volume.grid.matches(self.native.grid):
                raise StudyError(
                    contrast,
                    expected=f"the grid of {self.reference}: {self.native.grid.describe()}",
                    got=volume.grid.describe(),
                    way_out="Resample it, or let `load_study` do so.",
                )
        object.__setattr__(self, "volumes", MappingProxyType(dict(self.volumes)))


def load_study(
    sources: Mapping[Contrast, Path | bytes],
    *,
    reference: Contrast = "t1",
    limits: ReadLimits | None = None,
) -> Study:
    """Read four images and make a study of them.

    Args:
        sources: a path or the file's bytes for each of t1, t1ce, t2, flair.
        reference: the contrast on whose grid results are wanted.
        limits: what is still accepted of each file.

    Raises:
        StudyError: a contrast is missing or implausible.
        ImageError: a file is unusable; names the contrast.
        OptionError: the reference is not a contrast.
    """
    check_complete(sources)
    limits = limits or ReadLimits()
    return make_study(read_images(sources, limits), reference=reference)


def read_images(
    sources: Mapping[Contrast, Path | bytes], limits: ReadLimits
) -> dict[Contrast, Volume]:
    """Read the contrasts side by side: inflating and converting let other threads run.

    Raises:
        ImageError: a file is unusable; names the contrast.
    """

    def read(contrast: Contrast) -> Volume:
        return read_nifti(sources[contrast], argument=contrast, limits=limits)

    with ThreadPoolExecutor(len(CONTRASTS)) as pool:
        return dict(zip(CONTRASTS, pool.map(read, CONTRASTS), strict=True))


def make_study(volumes: Mapping[Contrast, Volume], *, reference: Contrast = "t1") -> Study:
    """Make a study of volumes in memory; see `load_study`."""
    check_complete(volumes)
    if reference not in CONTRASTS:
        raise OptionError(
            "reference",
            expected=f"one of {', '.join(CONTRASTS)}",
            got=repr(reference),
            way_out="Name the contrast on whose grid the result is wanted.",
        )
    warnings = [f"{c}: {text}" for c in CONTRASTS for text in volumes[c].warnings]
    for contrast in CONTRASTS:
        _check_plausible(contrast, volumes[contrast])
    warnings += _skull_warnings(volumes) + _twin_warnings(volumes)
    native = volumes[reference]
    aligned: dict[Contrast, Volume] = {}
    for contrast in CONTRASTS:
        aligned[contrast], text = _on_grid_of(native, volumes[contrast])
        if text:
            warnings.append(f"{contrast}: {text} {reference}")
            _check_not_empty(contrast, aligned[contrast])
    return Study(aligned, reference, native, tuple(warnings))


def check_complete(given: Mapping[Contrast, object]) -> None:
    """Refuse a mapping that lacks a contrast or holds something else.

    Raises:
        StudyError: naming the first contrast at fault.
    """
    for contrast in CONTRASTS:
        if contrast not in given:
            raise StudyError(
                contrast,
                expected=f"all of {', '.join(CONTRASTS)}",
                got=f"only {', '.join(given) or 'none'}",
                way_out="Hand over the missing image; none can be replaced by another.",
            )
    for name in given:
        if name not in CONTRASTS:
            raise StudyError(
                "study",
                expected=f"the contrasts {', '.join(CONTRASTS)} and no other",
                got="another name",
                way_out="Name every image by its contrast.",
            )


def _check_plausible(contrast: Contrast, volume: Volume) -> None:
    least, most = SPACING_RANGE_MM
    spacing = volume.spacing_mm
    if not (least <= min(spacing) and max(spacing) <= most):
        raise StudyError(
            contrast,
            expected=f"voxels of {least:g} to {most:g} mm",
            got=f"{'×'.join(f'{mm:.3g}' for mm in spacing)} mm",
            way_out="Check the unit and the spacing in the header.",
        )
    extent = min(mm * size for mm, size in zip(spacing, volume.shape, strict=True))
    if extent < SMALLEST_EXTENT_MM:
        raise StudyError(
            contrast,
            expected=f"at least {SMALLEST_EXTENT_MM:g} mm along every axis",
            got=f"{extent:.3g} mm",
            way_out="Hand over the whole head.",
        )
    if np.abs(volume.affine[:3, 3]).max() > FARTHEST_MM:
        raise StudyError(
            contrast,
            expected=f"an origin within {FARTHEST_MM / 1000:g} m of the scanner's centre",
            got="one farther away",
            way_out="The header is damaged: export the image again.",
        )
    if volume.array.min() == volume.array.max():
        raise StudyError(
            contrast,
            expected="an image of a head",
            got="the same value everywhere",
            way_out="Check that this contrast was exported correctly.",
        )


def _on_grid_of(reference: Volume, volume: Volume) -> tuple[Volume, str]:
    """Bring a volume onto the reference's grid; the text is empty if no value was changed."""
    turned = volume.reoriented(reference.axcodes)
    if turned.grid.matches(reference.grid):
        return turned, ""
    # In one common orientation, so that the same study gives the same numbers in any.
    source, target = volume.reoriented(_COMMON), reference.grid.reoriented(_COMMON)
    values = resample(source.array, source.grid, target, order=LINEAR, fill=0.0)
    aligned = turn(values, _COMMON, reference.axcodes)
    return Volume(aligned, reference.affine), "resampled, as its grid differs from that of"


def _check_not_empty(contrast: Contrast, volume: Volume) -> None:
    if not volume.array.any():
        raise StudyError(
            contrast,
            expected="an image of the same place as the reference contrast",
            got="no overlap with it",
            way_out="Co-register the four images first.",
        )


def _skull_warnings(volumes: Mapping[Contrast, Volume]) -> list[str]:
    if all(is_stripped(volume) for volume in volumes.values()):
        return []
    return [
        "the images do not look skull-stripped: models trained on BraTS "
        "expect skull-stripped, co-registered images, and the result may be wrong"
    ]


def _twin_warnings(volumes: Mapping[Contrast, Volume]) -> list[str]:
    return [
        f"{first} and {second} hold the same image: was one file given twice?"
        for first, second in combinations(CONTRASTS, 2)
        if _same_values(volumes[first], volumes[second])
    ]


def _same_values(first: Volume, second: Volume) -> bool:
    a, b = first.array, second.array
    # The thin sample settles nearly every pair at once.
    return (
        a.shape == b.shape
        and np.array_equal(a[..., ::_SAMPLE], b[..., ::_SAMPLE])
        and np.array_equal(a, b)
    )
