"""Bias field correction of one contrast, where a caller asks for it.

Tustison et al., N4ITK: improved N3 bias correction, IEEE TMI 29 (2010) 1310-1320, by sitk. The
field is estimated on a coarser image, as it is smooth, and divided out of the full one.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_core.imaging.grid import Grid
from model_core.imaging.resample import resample
from model_core.imaging.volume import Volume
from model_core.preparation.grids import covering
from model_core.preparation.itk import from_itk, library, to_itk
from model_core.preparation.similarity import foreground

ESTIMATE_MM: Final = 6.0
"""Voxels of the image on which the field is estimated; thicker axes stay as they are."""
ITERATIONS: Final = (20, 20, 20)
"""On three ever finer nets. At 4 mm and 50 each it took five times as long and left as much."""
_SMALLEST: Final = 0.1
_LARGEST: Final = 10.0
"""A coil's field stays within; beyond lies air, where nothing is known."""


def correct_bias(volume: Volume) -> tuple[Volume, float]:
    """Divide out the bias field.

    Args:
        volume: one contrast, with or without skull; values of 0 stay 0.

    Returns:
        The corrected volume on the same grid, float32, and the spread of the field over the head:
        its 95th percentile divided by its 5th.
    """
    field = _field(volume)
    head = foreground(volume.array)
    low, high = np.percentile(field[head], (5, 95)) if head.any() else (1.0, 1.0)
    return Volume(volume.array / field, volume.affine, volume.header, volume.warnings), high / low


def _field(volume: Volume) -> NDArray[np.float32]:
    """The field on the volume's own grid, 1 on average."""
    sitk = library()
    coarse = _coarse(volume.grid)
    values = resample(volume.array.astype(np.float32), volume.grid, coarse)
    mask = Volume(foreground(values).astype(np.uint8), coarse.affine)
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetNumberOfThreads(1)
    corrector.SetNumberOfWorkUnits(1)  # the same sums every time
    corrector.SetMaximumNumberOfIterations(list(ITERATIONS))
    image = to_itk(Volume(np.maximum(values, 0), coarse.affine))
    corrector.Execute(image, sitk.Cast(to_itk(mask), sitk.sitkUInt8))
    log_field = from_itk(corrector.GetLogBiasFieldAsImage(image))
    fine = resample(log_field.array, coarse, volume.grid)
    field: NDArray[np.float32] = np.clip(np.exp(fine), _SMALLEST, _LARGEST).astype(np.float32)
    return field


def _coarse(grid: Grid) -> Grid:
    x, y, z = (max(mm, ESTIMATE_MM) for mm in grid.spacing_mm)
    return covering(grid, (x, y, z))
