"""Between this project's volumes and SimpleITK's images: the one place where RAS+ meets LPS+.

SimpleITK puts voxels into LPS+ millimetres (x to the patient's left, y to posterior), this project
into RAS+ (see `model_core.imaging.grid`); both frames differ by the signs of x and y alone. Its
arrays are indexed (z, y, x), ours (x, y, z): the same memory seen from the other end.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_core.imaging.grid import Grid
from model_core.imaging.volume import Volume

LPS_FROM_RAS: Final[NDArray[np.float64]] = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Its own inverse."""
ItkImage = Any
ItkTransform = Any
"""The library's own types; its Python wrappers carry too few for a type checker."""


def library() -> Any:
    """SimpleITK, imported when it is first needed."""
    import SimpleITK

    return SimpleITK


def itk_version() -> str:
    """Name and version of the library, for reports."""
    return f"SimpleITK {library().Version.VersionString()}"


def to_itk(volume: Volume) -> ItkImage:
    """Copy a volume into an image of the same voxels at the same places, float32."""
    values = np.ascontiguousarray(volume.array.transpose(2, 1, 0), dtype=np.float32)
    image = library().GetImageFromArray(values)
    spacing, direction, origin = itk_frame(volume.grid)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    image.SetOrigin(origin)
    return image


def from_itk(image: ItkImage) -> Volume:
    """Copy an image into a volume of the same voxels at the same places."""
    lps = np.eye(4)
    lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    values: NDArray[Any] = library().GetArrayFromImage(image).transpose(2, 1, 0)
    return Volume(values, LPS_FROM_RAS @ lps)


def itk_frame(grid: Grid) -> tuple[list[float], list[float], list[float]]:
    """Spacing in mm, direction cosines (row by row) and origin in LPS+ mm of a grid."""
    lps = LPS_FROM_RAS @ grid.affine
    cosines = lps[:3, :3] / grid.spacing_mm
    return list(grid.spacing_mm), cosines.ravel().tolist(), lps[:3, 3].tolist()


def moving_to_fixed(transform: ItkTransform) -> NDArray[np.float64]:
    """Give a linear registration result as a matrix for volumes.

    Args:
        transform: as `ImageRegistrationMethod` leaves it: a point of the fixed image in LPS+ mm
            goes in, the point of the moving image that shows the same comes out.

    Returns:
        4 × 4: a point of the moving image in RAS+ mm goes in, that of the fixed image comes out.
    """
    corners = np.vstack([np.zeros(3), np.eye(3)])
    moved = np.array([transform.TransformPoint(point.tolist()) for point in corners])
    fixed_to_moving = np.eye(4)
    fixed_to_moving[:3, :3] = (moved[1:] - moved[0]).T
    fixed_to_moving[:3, 3] = moved[0]
    matrix: NDArray[np.float64] = np.linalg.inv(
        LPS_FROM_RAS @ fixed_to_moving @ LPS_FROM_RAS
    ).astype(np.float64)
    return matrix
