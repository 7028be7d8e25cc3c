"""What a case sheet shows, before anything is drawn: turned arrays, the cuts, the visible box.

Volumes are turned to `model_core.preview.VIEW_ORIENTATION` (radiological convention); pictures
(1, H, W) stay as they are. Sizes are millimetres, of pictures pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_core.errors import InputError
from model_core.imaging.grid import Grid
from model_core.imaging.volume import Volume
from model_core.preview import PLANES, VIEW_ORIENTATION, Plane, mask_box, section
from training.task import LabelArray

Cut = tuple[int, int, int]
Box = list[tuple[int, int]]

PICTURE: Final = Plane("picture", 0, 1, 2, ("", "", "", ""), "LR")
"""A 2-D image as it lies in its file: nothing is known of the patient's sides."""
_SOFT_TISSUE_HU: Final = (-160.0, 240.0)
_MARGIN_MM: Final = 9.0
_SHOWN_CHANNELS: Final = 4
_TITLES: Final[Mapping[str, str]] = {
    "t1": "T1", "t1ce": "T1 with contrast", "t2": "T2", "flair": "FLAIR",
}  # fmt: skip
_COLOUR: Final = ({"r", "g", "b"}, {"red", "green", "blue"})


@dataclass(frozen=True)
class Row:
    """One slice: how it is cut, where, and what it is called."""

    plane: Plane
    cut: Cut
    title: str


@dataclass(frozen=True)
class Panel:
    """One column of images: grey values with their window, or 8-bit colour (X, Y, Z, 3)."""

    title: str
    array: NDArray[Any]
    low: float
    high: float


@dataclass(frozen=True)
class Scene:
    """Everything a sheet is drawn from.

    Attributes:
        panels: the image columns.
        under: index of the panel that lies under the label columns.
        maps: label maps by kind (``truth``, ``raw``, ``postprocessed``), turned as the images.
        rows: the slices.
        box: first and last visible index of each array axis.
        spacing: millimetres (pixels: 1) along the array axes.
        picture: whether this is a 2-D image without a known physical size.
    """

    panels: tuple[Panel, ...]
    under: int
    maps: Mapping[str, LabelArray]
    rows: tuple[Row, ...]
    box: Box
    spacing: tuple[float, float, float]
    picture: bool


def arrange(
    images: Sequence[Volume], channels: Sequence[str], maps: Mapping[str, LabelArray]
) -> Scene:
    """Turn everything, choose the slices and find the box of the head that will be visible.

    Raises:
        InputError: a label map that is not on the images' grid.
    """
    native = images[0].grid
    _require_one_grid(images, maps)
    picture = _is_picture(images[0])
    axcodes = native.axcodes if picture else VIEW_ORIENTATION
    arrays = [image.reoriented(axcodes).array for image in images]
    turned = {
        kind: Volume(labels, native.affine).reoriented(axcodes).array
        for kind, labels in maps.items()
    }
    grid = native.reoriented(axcodes)
    box = mask_box(np.logical_or.reduce([array != 0 for array in arrays]))
    shown, under = _panels(arrays, channels, picture=picture)
    return Scene(
        panels=shown,
        under=under,
        maps=turned,
        rows=(Row(PICTURE, (0, 0, 0), ""),) if picture else _rows(turned, box, native, grid),
        box=[(0, size - 1) for size in grid.shape] if picture else _widened(box, grid),
        spacing=grid.spacing_mm,
        picture=picture,
    )


def _require_one_grid(images: Sequence[Volume], maps: Mapping[str, LabelArray]) -> None:
    shape = images[0].shape
    others = {"images": {image.shape for image in images}} | {
        kind: {labels.shape} for kind, labels in maps.items()
    }
    for argument, shapes in others.items():
        if shapes != {shape}:
            raise InputError(
                argument,
                expected=f"the images' shape {shape}",
                got=f"{next(iter(shapes - {shape}))}",
                way_out="Hand over images and label maps of one case on one grid.",
            )


def _is_picture(image: Volume) -> bool:
    """Whether a volume was a PNG: one slice, no header, pixels of no physical size."""
    flat = image.shape[0] == 1 and image.header is None
    return flat and np.array_equal(image.affine, np.eye(4))


# ---------------------------------------------------------------- panels


def _panels(
    arrays: list[NDArray[Any]], channels: Sequence[str], *, picture: bool
) -> tuple[tuple[Panel, ...], int]:
    """The image columns, and which of them the labels are drawn over."""
    names = [channel.casefold() for channel in channels]
    if picture and len(names) == 3 and set(names) in _COLOUR:
        return (Panel("image", _colour(arrays), 0, 255),), 0
    shown = tuple(
        Panel(_TITLES.get(name, name), array, *_window(array, name))
        for name, array in list(zip(channels, arrays, strict=True))[:_SHOWN_CHANNELS]
    )
    under = names.index("t1ce") if "t1ce" in names[:_SHOWN_CHANNELS] else 0
    return shown, under


def _window(array: NDArray[Any], name: str) -> tuple[float, float]:
    """Darkest and brightest shown value.

    Zero to nearly the highest of the head, so that one voxel cannot rule; where values fall below
    zero, nearly the lowest to nearly the highest. CT: soft tissue.
    """
    if name.casefold().startswith("ct"):
        return _SOFT_TISSUE_HU
    values = array[array != 0]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, (0.3, 99.7)))
    low = low if low < 0 else 0.0
    return low, high if high > low else low + 1.0


def _colour(arrays: list[NDArray[Any]]) -> NDArray[np.uint8]:
    stacked = np.stack(arrays, axis=-1).astype(np.float32)
    scale = 255 if stacked.max() <= 255 else float(stacked.max())
    return np.asarray(np.clip(stacked / scale * 255, 0, 255), np.uint8)


# ---------------------------------------------------------------- rows


def _rows(maps: Mapping[str, LabelArray], box: Box, native: Grid, grid: Grid) -> tuple[Row, ...]:
    """Most tumour in each plane, and the axial slice that the corrections changed most."""
    cut = _largest(maps, box)
    rows = [Row(plane, cut, _title(plane, cut, native, grid)) for plane in _thick(grid)]
    if "postprocessed" in maps and "raw" in maps:
        changed = maps["postprocessed"] != maps["raw"]
        z = int(changed.sum(axis=(0, 1)).argmax())
        if changed.any() and z != cut[2]:
            axial, there = PLANES[0], (cut[0], cut[1], z)
            title = f"most changed: {_title(axial, there, native, grid)}"
            rows.append(Row(axial, there, title))
    return tuple(rows)


def _thick(grid: Grid) -> list[Plane]:
    """The planes in which the volume has an area; the axial one at least."""
    planes = [
        plane for plane in PLANES if min(grid.shape[plane.rows], grid.shape[plane.columns]) > 1
    ]
    return planes or [PLANES[0]]


def _largest(maps: Mapping[str, LabelArray], box: Box) -> Cut:
    """Along each axis the slice with most foreground: of the truth, else of what was predicted."""
    for kind in ("truth", "postprocessed", "raw"):
        foreground = maps[kind] > 0 if kind in maps else np.zeros((1, 1, 1), np.bool_)
        if foreground.any():
            x, y, z = (
                int(foreground.sum(axis=tuple(a for a in range(3) if a != axis)).argmax())
                for axis in range(3)
            )
            return x, y, z
    x, y, z = ((low + high) // 2 for low, high in box)
    return x, y, z


def _title(plane: Plane, cut: Cut, native: Grid, grid: Grid) -> str:
    """Name of the plane and which slice of the file it is, counted from 1."""
    axis = next(a for a, code in enumerate(native.axcodes) if code in plane.normal)
    where = grid.affine @ np.array([*cut, 1.0])
    index = round(float(np.linalg.solve(native.affine, where)[axis]))
    return f"{plane.name}, slice {index + 1} of {native.shape[axis]}"


def _widened(box: Box, grid: Grid) -> Box:
    """The box with a margin, cut at the volume's edge."""
    return [
        (max(0, low - round(_MARGIN_MM / mm)), min(size - 1, high + round(_MARGIN_MM / mm)))
        for (low, high), size, mm in zip(box, grid.shape, grid.spacing_mm, strict=True)
    ]


def cut_of(array: NDArray[Any], row: Row) -> NDArray[Any]:
    """The slice of a row as rows and columns of the picture (colour stays last)."""
    if array.ndim == 4:
        return np.stack([section(array[..., c], row.plane, row.cut) for c in range(3)], axis=-1)
    return section(array, row.plane, row.cut)
