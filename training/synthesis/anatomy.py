"""Heads as tissue maps: an anatomical label map read, turned, its labels put into tissue classes.

The numbering is FreeSurfer's, which SynthSeg's label maps share; another numbering needs only
another table. Whatever the table does not name is outside the brain and disappears, as after skull
stripping.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model_core.errors import ImageError
from model_core.imaging.nifti import read_nifti

ORIENTATION: Final = "SPL"
MARGIN: Final = 8
"""Voxels kept around the brain, so that a deformed one still fits."""
CLOSING_MM: Final = 8.0
"""Sulci narrower than twice this lie inside a skull-stripped brain."""
RIM_MM: Final = 1.0
"""CSF that skull stripping leaves around the brain."""


class Tissue(IntEnum):
    """What a voxel consists of; the row of `training.synthesis.appearance`'s tables."""

    OUTSIDE = 0
    WHITE = 1
    CORTEX = 2
    DEEP = 3
    """Thalamus, caudate, putamen, hippocampus, amygdala, accumbens, ventral diencephalon."""
    PALLIDUM = 4
    CSF = 5
    CEREBELLAR_WHITE = 6
    CEREBELLAR_CORTEX = 7
    BRAIN_STEM = 8
    VESSEL = 9
    """Vessels and choroid plexus: they take up contrast agent."""


_SIDES: Final[Mapping[Tissue, tuple[int, ...]]] = {
    Tissue.WHITE: (2, 41, 25, 57, 77, 85),
    Tissue.CORTEX: (3, 42),
    Tissue.DEEP: (10, 49, 11, 50, 12, 51, 17, 53, 18, 54, 26, 58, 28, 60, 136, 137, 163, 164),
    Tissue.PALLIDUM: (13, 52),
    Tissue.CSF: (4, 43, 5, 44, 14, 15, 24, 72),
    Tissue.CEREBELLAR_WHITE: (7, 46),
    Tissue.CEREBELLAR_CORTEX: (8, 47),
    Tissue.BRAIN_STEM: (16,),
    Tissue.VESSEL: (30, 62, 31, 63),
}
FREESURFER: Final[Mapping[int, Tissue]] = MappingProxyType(
    {value: tissue for tissue, values in _SIDES.items() for value in values}
)
"""FreeSurfer's label values (FreeSurferColorLUT.txt) as tissues."""


@lru_cache(maxsize=32)
def read_head(path: Path) -> NDArray[np.uint8]:
    """A head's tissues (X, Y, Z), cropped to the brain with `MARGIN`; read once, not to be changed.

    Raises:
        ImageError: the file cannot be read, has voxels that are not 1 mm wide, or no brain.
    """
    volume = read_nifti(path, argument="labels").reoriented(ORIENTATION)
    if not np.allclose(volume.spacing_mm, 1.0, atol=0.05):
        raise ImageError(
            "labels",
            expected="an anatomical label map with voxels of 1 mm",
            got=f"{'×'.join(f'{mm:.3g}' for mm in volume.spacing_mm)} mm",
            way_out="Resample it to 1 mm with nearest-neighbour interpolation.",
        )
    tissues = cropped(to_tissues(np.asarray(volume.array), FREESURFER))
    tissues.flags.writeable = False
    return tissues


def to_tissues(values: NDArray[np.generic], numbering: Mapping[int, Tissue]) -> NDArray[np.uint8]:
    """`Tissue` of every voxel; CSF counts only where it fills or borders the brain."""
    whole = values.astype(np.int64)
    table = np.zeros(max(int(whole.max()), *numbering) + 1, np.uint8)
    for value, tissue in numbering.items():
        table[value] = tissue
    tissues = table[np.clip(whole, 0, len(table) - 1)]
    solid = (tissues != Tissue.OUTSIDE) & (tissues != Tissue.CSF)
    if not solid.any():
        raise ImageError(
            "labels",
            expected="labels of brain tissue in FreeSurfer's numbering",
            got="none",
            way_out="Hand over a table of your own numbering.",
        )
    inside = _filled(solid)
    tissues[~inside] = Tissue.OUTSIDE
    tissues[inside & (tissues == Tissue.OUTSIDE)] = Tissue.CSF
    return tissues


def cropped(tissues: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The box around everything that is not outside, with `MARGIN` voxels of outside around it."""
    box = ndimage.find_objects((tissues > 0).astype(np.uint8))[0]
    inner: NDArray[np.uint8] = np.pad(tissues[box], MARGIN)
    return inner


def _filled(solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The brain with its sulci, ventricles and a thin rim of CSF: closed by `CLOSING_MM`."""
    margin = round(CLOSING_MM) + 2
    padded = np.pad(solid, margin)
    wide = ndimage.distance_transform_edt(~padded) <= CLOSING_MM
    closed = ndimage.distance_transform_edt(wide) > CLOSING_MM - RIM_MM
    filled = ndimage.binary_fill_holes(closed | padded)
    inner: NDArray[np.bool_] = filled[margin:-margin, margin:-margin, margin:-margin]
    return inner
