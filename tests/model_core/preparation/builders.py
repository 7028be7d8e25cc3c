"""Heads made in code: four contrasts of one shape that no turn or mirror leaves as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model_core.imaging.grid import Grid
from model_core.imaging.resample import resample
from model_core.imaging.volume import Volume
from model_core.preparation.rigid import Matrix, moved_grid
from model_core.types import CONTRASTS, Contrast, Shape3
from tests.model_core.imaging.builders import rotation

SHAPE: Final[Shape3] = (54, 62, 50)
SPACING_MM: Final = 3.5
"""So that the head is as large as a head and the arrays are small."""
_TISSUES: Final = {
    # air, scalp, bone, fluid, grey, white, lesion
    "t1": (0, 700, 60, 120, 380, 520, 260),
    "t1ce": (0, 720, 60, 130, 400, 540, 760),
    "t2": (0, 500, 40, 900, 520, 380, 700),
    "flair": (0, 520, 50, 90, 480, 360, 780),
}


def head_affine(shape: Shape3 = SHAPE, spacing: float = SPACING_MM) -> NDArray[np.float64]:
    """LPS axes, the middle of the array at the world's origin."""
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def tissues() -> NDArray[np.uint8]:
    """0 air, 1 scalp, 2 bone, 3 fluid, 4 grey, 5 white, 6 lesion; a head some 180 mm long."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
    x, y, z = x / 0.78, y / 0.86, (z - 0.05) / 0.88
    wobble = 0.05 * np.sin(9 * x + 2 * y) * np.cos(7 * y - 3 * z) + 0.03 * np.sin(11 * z + 4 * x)
    radius = np.sqrt(x**2 + (y + 0.06 * x) ** 2 + z**2 + 0.15 * z * y)
    labels = np.zeros(SHAPE, np.uint8)
    for value, limit in ((1, 1.0), (2, 0.92), (3, 0.85), (4, 0.8)):
        labels[radius < limit] = value
    labels[radius + 2 * wobble < 0.66] = 5
    labels[(x / 0.2) ** 2 + ((y - 0.05) / 0.4) ** 2 + ((z - 0.1) / 0.2) ** 2 < 1] = 3
    labels[((x - 0.3) / 0.2) ** 2 + ((y - 0.3) / 0.25) ** 2 + ((z - 0.25) / 0.2) ** 2 < 1] = 6
    return labels


def head(contrast: Contrast, *, skull: bool = True, seed: int = 0) -> Volume:
    """One contrast, with noise and partial volume; without skull, 0 outside the brain."""
    labels = tissues()
    values = np.array(_TISSUES[contrast], np.float32)[labels]
    values = ndimage.gaussian_filter(values, 0.6)
    noise = np.random.default_rng(seed + CONTRASTS.index(contrast)).normal(0, 12, SHAPE)
    values = np.maximum(values + noise.astype(np.float32), 1)
    if not skull:
        values[labels < 3] = 0
    return Volume(values, head_affine())


def heads(*, skull: bool = True) -> dict[Contrast, Volume]:
    """All four."""
    return {contrast: head(contrast, skull=skull) for contrast in CONTRASTS}


def movement(degrees: tuple[float, float, float], shift: tuple[float, float, float]) -> Matrix:
    """A rigid movement about the origin, 4 × 4 in RAS+ mm."""
    matrix = np.eye(4)
    for axis, angle in enumerate(degrees):
        matrix[:3, :3] = rotation(angle, axis) @ matrix[:3, :3]
    matrix[:3, 3] = shift
    return matrix


def acquired(volume: Volume, movement: Matrix, grid: Grid | None = None) -> Volume:
    """A scan of the same head after it moved: `movement` takes where it was to where it is.

    The scan lies on ``grid`` (else on the volume's own). Registered to the volume, it has to come
    back by the inverse.
    """
    target = grid or volume.grid
    values = resample(volume.array, moved_grid(volume.grid, movement), target)
    return Volume(values, target.affine)


def thick(grid: Grid, axis: int, thickness_mm: float) -> Grid:
    """The same box in thick slices along one array axis."""
    from model_core.preparation.grids import covering

    spacing = list(grid.spacing_mm)
    spacing[axis] = thickness_mm
    x, y, z = spacing
    return covering(grid, (x, y, z))


def write_tool(folder: Path, name: str, body: str) -> Path:
    """A program on a PATH of its own, in Python; `body` sees the arguments as `args`."""
    import sys

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport sys\nargs = sys.argv[1:]\n{body}\n")
    path.chmod(0o755)
    return path


BRIGHT_BRAIN_TOOL: Final = """
import nibabel, numpy, scipy.ndimage
image = nibabel.load(args[args.index("-i") + 1])
values, affine = numpy.asarray(image.dataobj), image.affine.copy()
labels, count = scipy.ndimage.label(values < 200)
air = labels == labels[0, 0, 0]
depth = round(13 / float(image.header.get_zooms()[0]))
inside = scipy.ndimage.binary_erosion(~air, iterations=depth)
mask = inside.astype(numpy.uint8)
# change
nibabel.save(nibabel.Nifti1Image(mask, affine), args[args.index("-m") + 1])
"""
"""Stands in for SynthStrip on the heads of this module: what lies some way within the scalp."""
