"""Rigid registration of one contrast to another of the same head.

Mattes mutual information (Mattes et al., PET-CT image registration in the chest using free-form
deformations, IEEE TMI 22 (2003) 120-128) is maximised over six parameters from coarse to fine, with
SimpleITK. What is particular here:

* Several starts: where the headers put the images, middle on middle, and head on head. Each goes
  down the coarsest level; the best goes on. Headers of one session are nearly right, those of
  anonymised or converted images may know nothing.
* The samples lie on a lattice of their own whose spacing fits neither image, so that no position is
  favoured because voxels meet voxels; no sample is drawn by chance.
* Images are smoothed to one resolution for each level, an axis along which the voxels are that
  thick already (5 mm slices) not at all.
* The coarsest level searches along one direction after the other (Powell), which cannot end worse
  than it began and needs no good beginning; the finer ones descend along the gradient, which is
  several times faster.
* Lengths are counted in units of `RADIAN_MM`, so that a step of a turn and a step of a shift move
  the brain about equally. Left in millimetres and radians, a descent whose shift had arrived took
  its whole step, meant in millimetres, in radians, and left the head.
* One thread for each registration: sums are made in the same order every time, so the same images
  give the same numbers. Registrations run side by side instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model_core.errors import Cancelled
from model_core.imaging.resample import resample
from model_core.imaging.volume import Volume
from model_core.preparation.grids import covering
from model_core.preparation.itk import (
    LPS_FROM_RAS,
    ItkTransform,
    itk_frame,
    library,
    moving_to_fixed,
    to_itk,
)
from model_core.preparation.rigid import Matrix, moved, moved_grid
from model_core.preparation.similarity import foreground, robust_range

BINS: Final = 32
THREADS: Final = 1
"""Of each registration; stated in the report, because another number gives other roundings."""
_FWHM: Final = 2.3548
"""Full width at half maximum of a Gaussian of σ = 1."""
RADIAN_MM: Final = 30.0
"""How many millimetres a radian counts. Larger values, up to the head's radius, made turns slow."""
IN_UNITS: Final[Matrix] = np.diag([1 / RADIAN_MM] * 3 + [1.0])
"""Millimetres to units; the world in which SimpleITK works here."""
_SAME: Final = 1e-5
"""Relative change of the metric below which a round of searches was the last."""
_SEARCHES: Final = 20
"""Evaluations along one direction, at most."""
_RELAXATION: Final = 0.6
_FLAT: Final = 1e-8
"""A gradient below this ends a level; far below what noise leaves, so that steps decide."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One resolution of the descent, all in millimetres.

    Attributes:
        lattice: distance of the samples.
        blur: σ of the Gaussian that both images have afterwards.
        step: the first one.
        least: the last one.
        rounds: of searches or steps, at most.
        descend: along the gradient, else search along one direction after the other.
    """

    lattice: float
    blur: float
    step: float
    least: float
    rounds: int
    descend: bool


LEVELS: Final = (
    Level(lattice=9.3, blur=4.0, step=4.0, least=0.2, rounds=10, descend=False),
    Level(lattice=5.3, blur=2.0, step=1.0, least=0.05, rounds=60, descend=True),
    Level(lattice=4.3, blur=1.0, step=0.3, least=0.02, rounds=60, descend=True),
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came out of a descent.

    Attributes:
        matrix: 4 × 4, a point of the moving image in RAS+ mm to that of the fixed image.
        start: which start led there: ``headers``, ``middles`` or ``heads``.
    """

    matrix: Matrix
    start: str


class NotFound(Exception):  # noqa: N818 - private to this package: becomes a StudyError
    """No start led anywhere: the images never met."""


def register(
    fixed: Volume,
    moving: Volume,
    *,
    levels: Sequence[Level] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Found:
    """Find the rigid movement that lays one image on another.

    Args:
        fixed: the image that stays; any grid, with or without skull.
        moving: the image to be moved; likewise.
        levels: from coarse to fine; `LEVELS` if left out.
        stop: asked after every round or step.

    Raises:
        Cancelled: `stop` answered yes.
        NotFound: the images do not meet from any start.
    """
    coarsest, *finer = levels or LEVELS
    transform, start = _best_start(fixed, moving, coarsest, stop)
    for level in finer:
        if _descend(_Pair(fixed, moving, level), transform, stop) is None:
            raise NotFound
    matrix = np.linalg.inv(IN_UNITS) @ moving_to_fixed(transform) @ IN_UNITS
    return Found(matrix=matrix, start=start)


class _Pair:
    """Both images as one level sees them, and where its samples lie."""

    def __init__(self, fixed: Volume, moving: Volume, level: Level) -> None:
        self.level = level
        self.fixed, self.moving = (
            to_itk(moved(_coarsened(volume, level.blur), IN_UNITS)) for volume in (fixed, moving)
        )
        self.lattice = moved_grid(covering(fixed.grid, (level.lattice,) * 3), IN_UNITS)


def _coarsened(volume: Volume, blur_mm: float) -> Volume:
    """Cut off odd values, smooth but for what the voxels have smoothed already, and thin out."""
    low, high = robust_range(volume.array)
    values = np.clip(volume.array.astype(np.float32), low, high)
    sigmas = [np.sqrt(max(0.0, blur_mm**2 - (mm / _FWHM) ** 2)) / mm for mm in volume.spacing_mm]
    smooth = ndimage.gaussian_filter(values, sigmas, mode="nearest")
    x, y, z = (max(mm, blur_mm) for mm in volume.spacing_mm)
    grid = covering(volume.grid, (x, y, z))
    return Volume(resample(smooth, volume.grid, grid), grid.affine)


def _best_start(
    fixed: Volume, moving: Volume, level: Level, stop: Callable[[], bool]
) -> tuple[ItkTransform, str]:
    """Go down the coarsest level from every start; keep the one that found most in common."""
    pair = _Pair(fixed, moving, level)
    found = []
    for name, transform in _starts(fixed, moving):
        value = _descend(pair, transform, stop)
        if value is not None:
            found.append((value, name, transform))
    if not found:
        raise NotFound
    _, name, transform = min(found, key=lambda entry: entry[0])
    return transform, name


def _starts(fixed: Volume, moving: Volume) -> Iterator[tuple[str, ItkTransform]]:
    """Movements to begin with, all turning about the middle of the fixed image's head."""
    here, there = _head(fixed), _head(moving)
    shifts = {
        "headers": np.zeros(3),
        "middles": _middle(moving) - _middle(fixed),
        "heads": there - here,
    }
    tried: list[NDArray[np.float64]] = []
    for name, shift in shifts.items():
        if any(np.linalg.norm(shift - other) < 1.0 for other in tried):
            continue
        tried.append(shift)
        transform = library().Euler3DTransform()
        transform.SetCenter(_lps(here))
        transform.SetTranslation(_lps(shift))
        yield name, transform


def _lps(vector: NDArray[np.float64]) -> list[float]:
    """A vector in RAS+ mm as the transform wants it: LPS+, in units."""
    turned: list[float] = (LPS_FROM_RAS[:3, :3] @ IN_UNITS[:3, :3] @ vector).tolist()
    return turned


def _middle(volume: Volume) -> NDArray[np.float64]:
    return _place(volume, (np.array(volume.shape) - 1) / 2)


def _head(volume: Volume) -> NDArray[np.float64]:
    """Centre of what is not air, in RAS+ mm."""
    mask = foreground(volume.array)
    return _place(volume, np.array(ndimage.center_of_mass(mask))) if mask.any() else _middle(volume)


def _place(volume: Volume, index: NDArray[np.float64]) -> NDArray[np.float64]:
    place: NDArray[np.float64] = volume.affine[:3, :3] @ index + volume.affine[:3, 3]
    return place


def _descend(pair: _Pair, transform: ItkTransform, stop: Callable[[], bool]) -> float | None:
    """Improve a transform in place at one level.

    Returns:
        The metric (the lower, the better), or None where the images do not meet.

    Raises:
        Cancelled: `stop` answered yes.
    """
    method = _method(pair, transform)
    stopped = False

    def ask() -> None:
        nonlocal stopped
        if not stopped and stop():
            stopped = True
            method.StopRegistration()

    method.AddCommand(library().sitkIterationEvent, ask)
    try:
        method.Execute(pair.fixed, pair.moving)
    except RuntimeError:  # what ITK throws when too few samples lie in the moving image
        return None
    if stopped:
        raise Cancelled("the registration was stopped")
    return float(method.GetMetricValue())


def _method(pair: _Pair, transform: ItkTransform) -> Any:
    level = pair.level
    sitk = library()
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(THREADS)
    method.SetNumberOfWorkUnits(THREADS)
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    method.MetricUseFixedImageGradientFilterOff()
    method.MetricUseMovingImageGradientFilterOff()
    method.SetInterpolator(sitk.sitkLinear)
    spacing, direction, origin = itk_frame(pair.lattice)
    method.SetVirtualDomain(list(pair.lattice.shape), origin, spacing, direction)
    step, least = level.step / RADIAN_MM, level.least / RADIAN_MM
    if level.descend:
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=step,
            minStep=least,
            numberOfIterations=level.rounds,
            relaxationFactor=_RELAXATION,
            gradientMagnitudeTolerance=_FLAT,
        )
    else:
        method.SetOptimizerAsPowell(
            numberOfIterations=level.rounds,
            maximumLineIterations=_SEARCHES,
            stepLength=step,
            stepTolerance=least,
            valueTolerance=_SAME,
        )
    method.SetOptimizerScales([1.0] * 6)
    method.SetInitialTransform(transform, inPlace=True)
    return method
