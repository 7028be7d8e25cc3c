"""Brain masks: asked of a tool, checked, and brought back to our own voxels.

A tool's answer is taken only if it lies on the image's grid and holds about as much as a brain. The
largest piece counts, holes filled; everything else is set to 0 in every contrast.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model_core.errors import ImageError, StudyError
from model_core.imaging.skull import LARGEST_BRAIN_ML
from model_core.imaging.volume import Volume
from model_core.preparation.confined import Bounds, run_confined
from model_core.preparation.needs import FIXED
from model_core.preparation.skull_tools import Tool
from model_core.preparation.watch import Watch

SMALLEST_BRAIN_ML: Final = 800.0
"""Of an adult with its fluid; an image that shows only a part of the head may hold less."""
WHOLE_HEAD_MM: Final = 130.0
"""A brain's height: an image that reaches less far along its shortest side shows a part of it."""
STAGE: Final = "strip"


@dataclass(frozen=True, kw_only=True)
class Brain:
    """A checked brain mask.

    Attributes:
        mask: (X, Y, Z) on the grid of the image that was asked about.
        volume_ml: what it holds.
        tool: who said so, with version.
    """

    mask: NDArray[np.bool_]
    volume_ml: float
    tool: str


def find_brain(image: Volume, tool: Tool, *, bounds: Bounds, watch: Watch) -> Brain:
    """Ask a tool where the brain is.

    Args:
        image: a head with skull; any grid.
        tool: see `model_core.preparation.skull_tools`.
        bounds: what the tool may use.
        watch: who is told, and who may stop.

    Raises:
        StudyError: the tool failed, or its answer is no brain mask of this image.
        Cancelled: the caller wants to stop; the tool is gone, and so are its files.
    """
    with TemporaryDirectory(prefix="segmamba-skull-") as name:
        folder = Path(name)
        tool.write(image, folder)
        try:
            ending = run_confined(
                tool.command(folder, bounds.threads), folder=folder, bounds=bounds, watch=watch
            )
        except OSError as error:
            raise _failed(tool, "one that could not be started") from error
        if not ending.well:
            raise _failed(tool, ending.describe())
        mask = _main_piece(_answer(image, tool, folder))
    volume_ml = float(mask.sum()) * image.grid.voxel_ml
    _check_size(volume_ml, image, tool)
    return Brain(mask=mask, volume_ml=volume_ml, tool=tool.label)


def _answer(image: Volume, tool: Tool, folder: Path) -> NDArray[Any]:
    """What the tool left behind, if it lies on the image's grid."""
    try:
        mask = tool.read(image, folder)
    except (OSError, ValueError, EOFError, ImageError) as error:
        raise _failed(tool, "no mask, or one that cannot be read") from error
    if not mask.grid.matches(image.grid):
        raise _failed(tool, "a mask on another grid than its image")
    return mask.array


def _main_piece(answer: NDArray[Any]) -> NDArray[np.bool_]:
    """The largest connected piece, holes filled; empty stays empty."""
    pieces, count = ndimage.label(answer > 0)
    if count == 0:
        return np.zeros(answer.shape, np.bool_)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(pieces == sizes.argmax())
    return filled


def _check_size(volume_ml: float, image: Volume, tool: Tool) -> None:
    reach = min(mm * size for mm, size in zip(image.spacing_mm, image.shape, strict=True))
    least = SMALLEST_BRAIN_ML * min(1.0, reach / WHOLE_HEAD_MM)
    if not least <= volume_ml <= LARGEST_BRAIN_ML:
        raise StudyError(
            FIXED,
            expected=f"a head whose brain holds {least:.0f} to {LARGEST_BRAIN_ML:.0f} mL",
            got=f"{volume_ml:.0f} mL found by {tool.label}",
            way_out="Look at the image; try another skull_strip tool, or hand over skull-stripped "
            "images.",
        )


def _failed(tool: Tool, got: str) -> StudyError:
    return StudyError(
        "skull_strip",
        expected=f"a brain mask from {tool.label}",
        got=got,
        way_out="Try another skull_strip tool, or hand over skull-stripped images.",
    )
