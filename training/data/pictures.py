"""Pictures (PNG, BMP, TIFF) as volumes of shape (1, H, W): 8 or 16 bits, grey or colour.

A picture has no physical place or size: its affine is the identity and its spacing counts pixels.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_core.errors import ImageError
from model_core.imaging.atomic import write_atomically
from model_core.imaging.volume import Volume

_GREY: Final = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L")
_MOST_PIXELS: Final = 2**28


def read_picture(path: Path, *, argument: str) -> list[Volume]:
    """One float32 volume for a grey picture, three (R, G, B) for one in colour.

    Raises:
        ImageError: missing, damaged, transparent, or more than one page.
    """
    pixels, mode = _pixels(path, argument, as_labels=False)
    if pixels.ndim == 2:
        return [_volume(pixels.astype(np.float32))]
    if mode == "RGB":
        return [_volume(channel.astype(np.float32)) for channel in np.moveaxis(pixels, 2, 0)]
    raise ImageError(
        argument,
        expected="a grey or RGB picture",
        got=f"one of mode {mode}",
        way_out="Save it without transparency, as grey or RGB.",
    )


def read_picture_labels(path: Path, *, argument: str) -> Volume:
    """A label map: the pixel values, which in a palette picture are the palette's indices.

    Raises:
        ImageError: missing, damaged, or in colour.
    """
    pixels, mode = _pixels(path, argument, as_labels=True)
    if pixels.ndim != 2:
        raise ImageError(
            argument,
            expected="a grey or palette picture whose pixel values are the labels",
            got=f"one of mode {mode}",
            way_out="Save the label numbers themselves, not colours that stand for them.",
        )
    return _volume(pixels)


def write_picture_labels(path: Path, values: npt.NDArray[Any]) -> None:
    """Write (1, H, W) values of 8 or 16 bits: whole, or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    buffer = io.BytesIO()
    Image.fromarray(values[0]).save(buffer, format=Image.registered_extensions()[path.suffix])
    write_atomically(path, buffer.getvalue())


def _volume(pixels: npt.NDArray[Any]) -> Volume:
    return Volume(np.ascontiguousarray(pixels)[None], np.eye(4))


def _pixels(path: Path, argument: str, *, as_labels: bool) -> tuple[npt.NDArray[Any], str]:
    try:
        with Image.open(path) as picture:
            if (
                getattr(picture, "n_frames", 1) != 1
                or picture.width * picture.height > _MOST_PIXELS
            ):
                raise ValueError
            mode = picture.mode
            if mode == "P" and not as_labels:
                return np.asarray(picture.convert("RGB")), "RGB"
            pixels = np.asarray(picture)
    except FileNotFoundError:
        raise _unusable(argument, "none") from None  # the cause carries the path
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise _unusable(argument, "one that cannot be read, or with several pages") from None
    if mode not in (*_GREY, "P"):
        return pixels, mode
    return (pixels.astype(np.uint8) if pixels.dtype == np.bool_ else pixels), mode


def _unusable(argument: str, got: str) -> ImageError:
    return ImageError(
        argument,
        expected="a readable picture of one page",
        got=got,
        way_out="Check that the file exists and opens in a picture viewer.",
    )
