"""From images to a network's input, and back again without losing a voxel.

Forward, in this order: turn to the model's orientation (exact), crop to the brain box (the smallest
box around every voxel that is not 0 in some channel), normalise each channel, and, only if the
spacing differs from the model's, resample (linear). `Prepared` remembers what was done and undoes
it. Everything before the resampling happens in the model's orientation on a C-contiguous array, so
a study handed over in another orientation gives the same numbers, bit for bit.

`prepare` takes a BraTS study, skull-stripped with 0 outside the brain; `prepare_volumes` takes any
channels that lie on one grid.

Frames: *native* is the study's own grid, axis order included; *box* is the brain box in the model's
orientation at native spacing; *model* is the box at the model's spacing (the same grid when nothing
was resampled). All are RAS+ mm through their affines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from model_core.errors import OptionError, StudyError
from model_core.imaging.grid import Grid
from model_core.imaging.normalise import (
    ChannelIntensity,
    Normalisation,
    brain_mask,
    check_intensities,
    normalise,
)
from model_core.imaging.orientation import check_orientation, turn
from model_core.imaging.resample import LINEAR, NEAREST, centre_offset, scale
from model_core.imaging.study import Study
from model_core.imaging.volume import Volume
from model_core.types import Shape3, Spacing

SPACING_TOLERANCE: Final = 1e-3
"""Relative difference of spacing below which nothing is resampled (0.3 mm over a whole head)."""

_STEP_DECIMALS: Final = 7
_SLAB_BYTES: Final = 64 * 2**20
Box = tuple[slice, slice, slice]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a network wants its input.

    Args:
        channels: the names of the network's input channels, in its order.
        orientation: array axes, e.g. ``"SPL"`` (see `model_core.imaging.orientation`).
        spacing_mm: along those axes; None: every image's own, nothing is resampled.
        normalisation: see `Normalisation`.
        intensities: one per channel, for ``ct``.

    Raises:
        OptionError: a value outside what is described here.
    """

    channels: tuple[str, ...]
    orientation: str
    spacing_mm: Spacing | None
    normalisation: Normalisation
    intensities: tuple[ChannelIntensity, ...] | None = None

    def __post_init__(self) -> None:
        check_orientation(self.orientation)
        _check_channels(self.channels)
        if self.spacing_mm is not None and not _three_lengths(self.spacing_mm):
            raise OptionError(
                "spacing_mm",
                expected="three positive lengths in mm",
                got=f"{self.spacing_mm}",
                way_out="Take the spacing that the network was trained at.",
            )
        if self.normalisation not in get_args(Normalisation):
            raise OptionError(
                "normalisation",
                expected=" or ".join(get_args(Normalisation)),
                got=repr(self.normalisation),
                way_out="Take the one that the network was trained with.",
            )
        if self.normalisation == "ct":
            check_intensities(self.intensities, len(self.channels))


@dataclass(frozen=True, eq=False)
class Prepared:
    """A network's input and the way back to the study's own grid.

    Args:
        image: (C, X, Y, Z) float32, normalised, on `model_grid`.
        brain: (X, Y, Z) bool on `model_grid`: some channel is not 0 there (``zscore-brain``: with
            holes filled; ``ct`` and ``none``: everywhere, for there 0 is a value like others).
        model_grid: grid of the image.
        box_grid: the brain box before any resampling.
        native_grid: grid of the study.
        box: where the box lies in the native array turned to `orientation`.
        orientation: the model's.
    """

    image: NDArray[np.float32]
    brain: NDArray[np.bool_]
    model_grid: Grid
    box_grid: Grid
    native_grid: Grid
    box: Box
    orientation: str

    @property
    def resampled(self) -> bool:
        """Tell whether the spacing had to change, so that the way back interpolates."""
        return self.model_grid is not self.box_grid

    def restore_labels(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Put labels on `model_grid` back on the native grid; 0 outside the box.

        Exact when nothing was resampled, else the nearest voxel (`restore_scores` is smoother).
        """
        _check_on_grid(labels, self.model_grid)
        return self.paste(self._to_box(labels, NEAREST))

    def restore_scores(
        self, scores: NDArray[np.floating[Any]], fill: Sequence[float]
    ) -> NDArray[np.float32]:
        """Put scores (K, X, Y, Z) back on the native grid, linearly, one class at a time.

        Args:
            scores: on `model_grid`.
            fill: per class, the score outside the box.

        Returns:
            (K, *native) float32.
        """
        native = np.empty((len(scores), *self.native_grid.shape), np.float32)
        for target, channel, outside in zip(native, scores, fill, strict=True):
            _check_on_grid(channel, self.model_grid)
            target.fill(outside)
            self._box_of(target)[...] = self._to_box(channel, LINEAR)
        return native

    def scores_on_box(self, scores: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Bring scores (K, X, Y, Z) to native spacing on the box; `paste` takes their labels.

        Deciding the labels here instead of on the native grid needs only the memory of the box.
        Without resampling this is the input itself.
        """
        if not self.resampled:
            return scores.astype(np.float32, copy=False)
        boxed = np.empty((len(scores), *self.box_grid.shape), np.float32)
        for target, channel in zip(boxed, scores, strict=True):
            target[...] = self._to_box(channel, LINEAR)
        return boxed

    def scores_by_slab(
        self, scores: NDArray[np.floating[Any]]
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Bring scores to native spacing a slab of the box at a time; see `scores_on_box`.

        Yields:
            rows of the box's first axis, in order, and their scores (K, rows, Y, Z).
        """
        shape = self.box_grid.shape
        steps = _steps(self.model_grid, self.box_grid.spacing_mm)
        if not self.resampled or steps.max() > 1:  # coarser: smoothed as a whole, and smaller
            yield slice(0, shape[0]), self.scores_on_box(scores)
            return
        depth = max(1, _SLAB_BYTES // (scores.shape[0] * 4 * shape[1] * shape[2]))
        for start in range(0, shape[0], depth):
            rows = slice(start, min(start + depth, shape[0]))
            boxed = np.empty((len(scores), rows.stop - start, *shape[1:]), np.float32)
            for target, channel in zip(boxed, scores, strict=True):
                target[...] = scale(channel, shape, step=steps, rows=rows)
            yield rows, boxed

    def paste(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Lay labels on `box_grid` into a native array of zeros; exact.

        The array's first axis runs fastest, as in the study's files.
        """
        _check_on_grid(labels, self.box_grid)
        native = np.zeros(self.native_grid.shape, np.uint8, order="F")
        self._box_of(native)[...] = labels
        return native

    def _to_box(self, array: NDArray[Any], order: int) -> NDArray[Any]:
        if not self.resampled:
            return array
        steps = _steps(self.model_grid, self.box_grid.spacing_mm)
        return scale(array, self.box_grid.shape, step=steps, order=order)

    def _box_of(self, native: NDArray[Any]) -> NDArray[Any]:
        return turn(native, self.native_grid.axcodes, self.orientation)[self.box]


def prepare(study: Study, spec: Preprocessing) -> Prepared:
    """Make the network's input from a study.

    Raises:
        StudyError: a channel is missing, nothing but zeros is left, or a contrast is constant.
    """
    return prepare_volumes([_contrast(study, name) for name in spec.channels], spec)


def prepare_volumes(volumes: Sequence[Volume], spec: Preprocessing) -> Prepared:
    """Make the network's input from one volume per channel, in the order of ``spec.channels``.

    Raises:
        StudyError: another number of channels, grids that differ, nothing but zeros, or a channel
            that is constant where its mean and deviation are taken.
    """
    native = _common_grid(volumes, spec.channels)
    views = [turn(volume.array, native.axcodes, spec.orientation) for volume in volumes]
    box = _brain_box(views)
    box_grid = native.reoriented(spec.orientation).cropped(
        _shape(part.start for part in box), _shape(part.stop - part.start for part in box)
    )
    image = np.empty((len(views), *box_grid.shape), np.float32)
    for channel, view in zip(image, views, strict=True):
        channel[...] = view[box]
    brain = brain_mask(image, spec.normalisation)
    normalise(image, brain, spec.normalisation, names=spec.channels, known=spec.intensities)
    model_grid = _model_grid(box_grid, spec.spacing_mm)
    if model_grid is not box_grid:
        image, brain = _to_model(image, brain, box_grid, model_grid)
    return Prepared(image, brain, model_grid, box_grid, native, box, spec.orientation)


def prepare_labels(labels: NDArray[np.uint8], prepared: Prepared) -> NDArray[np.uint8]:
    """Put a native label map where the image is: turned, cropped, and resampled by nearest voxel.

    Args:
        labels: (X, Y, Z) on the study's native grid.
        prepared: the image that it belongs to.

    Returns:
        (X, Y, Z) uint8 on ``prepared.model_grid``.
    """
    _check_on_grid(labels, prepared.native_grid)
    turned = turn(labels, prepared.native_grid.axcodes, prepared.orientation)
    boxed = np.ascontiguousarray(turned[prepared.box], dtype=np.uint8)
    if not prepared.resampled:
        return boxed
    steps = _steps(prepared.box_grid, prepared.model_grid.spacing_mm)
    return scale(boxed, prepared.model_grid.shape, step=steps, order=NEAREST)


def _contrast(study: Study, name: str) -> Volume:
    for contrast, volume in study.volumes.items():
        if contrast == name:
            return volume
    raise StudyError(
        name,
        expected="this contrast, which the model needs",
        got="none",
        way_out="Hand over the missing image.",
    )


def _common_grid(volumes: Sequence[Volume], channels: tuple[str, ...]) -> Grid:
    if len(volumes) != len(channels):
        raise StudyError(
            "images",
            expected=f"one for each of {', '.join(channels)}",
            got=f"{len(volumes)}",
            way_out="Hand over one volume per channel, in this order.",
        )
    first = volumes[0].grid
    for volume, name in zip(volumes, channels, strict=True):
        if not volume.grid.matches(first):
            raise StudyError(
                name,
                expected=f"the grid of {channels[0]}: {first.describe()}",
                got=volume.grid.describe(),
                way_out="Resample it to the first channel.",
            )
    return first


def _brain_box(views: Sequence[NDArray[Any]]) -> Box:
    filled = views[0] != 0
    for view in views[1:]:
        np.logical_or(filled, view, out=filled)
    return _bounds(filled, 0), _bounds(filled, 1), _bounds(filled, 2)


def _bounds(filled: NDArray[np.bool_], axis: int) -> slice:
    others = tuple(other for other in range(3) if other != axis)
    used = np.flatnonzero(filled.any(axis=others))
    if used.size == 0:
        raise StudyError(
            "study",
            expected="at least one voxel that is not 0",
            got="nothing but zeros",
            way_out="Check that the images were exported with their voxels.",
        )
    return slice(int(used[0]), int(used[-1]) + 1)


def _model_grid(box: Grid, spacing_mm: Spacing | None) -> Grid:
    """Give the box itself if its spacing will do, else a lattice of the same extent and centre."""
    if spacing_mm is None:
        return box
    steps = _steps(box, spacing_mm)
    if np.abs(steps - 1).max() <= SPACING_TOLERANCE:
        return box
    shape = _shape(max(1, round(size / step)) for size, step in zip(box.shape, steps, strict=True))
    affine = box.affine.copy()
    affine[:3, :3] *= steps
    affine[:3, 3] += box.affine[:3, :3] @ centre_offset(box.shape, shape, steps)
    return Grid(shape, affine)


def _to_model(
    image: NDArray[np.float32], brain: NDArray[np.bool_], box: Grid, model: Grid
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    steps = _steps(box, model.spacing_mm)
    scaled = np.empty((len(image), *model.shape), np.float32)
    for target, channel in zip(scaled, image, strict=True):
        target[...] = scale(channel, model.shape, step=steps, order=LINEAR)
    inside = scale(brain.astype(np.uint8), model.shape, step=steps, order=NEAREST)
    return scaled, inside.astype(bool)


def _steps(old: Grid, spacing_mm: Spacing) -> NDArray[np.float64]:
    """Give the new spacing in old voxels, free of the rounding of one header or another."""
    steps: NDArray[np.float64] = np.divide(spacing_mm, old.spacing_mm)
    return steps.round(_STEP_DECIMALS)


def _check_channels(channels: tuple[str, ...]) -> None:
    if not channels or not all(channels) or len(set(channels)) != len(channels):
        raise OptionError(
            "channels",
            expected="at least one name, each once",
            got=f"{channels}",
            way_out="Name each input channel of the network once, in its order.",
        )


def _three_lengths(spacing_mm: Spacing) -> bool:
    return len(spacing_mm) == 3 and all(0 < mm < np.inf for mm in spacing_mm)


def _check_on_grid(array: NDArray[Any], grid: Grid) -> None:
    if array.shape != grid.shape:
        raise StudyError(
            "array",
            expected=f"an array of {grid.shape}",
            got=f"{array.shape}",
            way_out="Hand over an array on the grid that this image was prepared on.",
        )


def _shape(sizes: Any) -> Shape3:
    x, y, z = (int(size) for size in sizes)
    return x, y, z
