"""A picture of slices in one palette: grey, tinted areas, outlines, letters and a scale bar.

Pixels are palette indices (rows, columns), uint8: one ramp of `LEVELS` greys, the same ramp under
each of three tints, then the three plain colours. A palette of few entries is what keeps the files
small. Nothing here knows anatomy.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

LEVELS: Final = 60
"""Greys of a ramp: four ramps and three colours fill a palette of 256."""
TINTS: Final = 3
_TINTED: Final = 0.45
"""Share of the colour in a tinted area."""
_HALO: Final = 0.25
"""What is left of the picture around letters."""
_BRIGHT: Final = LEVELS - 1
_ALL, _FIRST, _LAST = slice(None), slice(1, None), slice(None, -1)
_NEIGHBOURS: Final = (
    ((_FIRST, _ALL), (_LAST, _ALL)),
    ((_LAST, _ALL), (_FIRST, _ALL)),
    ((_ALL, _FIRST), (_ALL, _LAST)),
    ((_ALL, _LAST), (_ALL, _FIRST)),
)
"""Pixels, and those that share a side with them."""

Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8]
"""(rows, columns), palette indices."""
Box = tuple[float, float, float, float]
"""Left, top, right and bottom in source pixels; pixel i reaches from i to i + 1."""


@dataclass(frozen=True)
class Mark:
    """A text in a picture: where it is anchored, as in `PIL.ImageDraw`, and how high it is."""

    x: float
    y: float
    text: str
    anchor: str = "mm"
    size: int = 13


def enlarged(values: NDArray[Any], box: Box, side: int) -> NDArray[np.float32]:
    """A part of a slice as (side, side) float32, linearly; beyond the slice it is 0."""
    source = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    part = source.transform((side, side), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
    return np.asarray(part, dtype=np.float32)


def greys(values: NDArray[np.float32], ceiling: float) -> Pixels:
    """Values from 0 to the brightest shown one as a ramp."""
    scaled = np.clip(values / ceiling, 0.0, 1.0) * _BRIGHT
    levels: Pixels = np.rint(scaled).astype(np.uint8)
    return levels


def tint(pixels: Pixels, where: NDArray[np.bool_], number: int) -> None:
    """Lay a tint over grey pixels, in place; tints count from 1."""
    pixels[where] += LEVELS * number


def outline(pixels: Pixels, where: NDArray[np.bool_], number: int) -> None:
    """Draw the rim of an area in a plain colour, dark outside it, in place."""
    inner, outer = where.copy(), where.copy()
    for here, there in _NEIGHBOURS:
        inner[here] &= where[there]
        outer[here] |= where[there]
    shadow = outer & ~where & (pixels < LEVELS)
    pixels[shadow] = pixels[shadow] // 3
    pixels[where & ~inner] = (TINTS + 1) * LEVELS + number - 1


def write(pixels: Pixels, marks: Sequence[Mark]) -> None:
    """Write letters with a dark halo, in place."""
    mask = Image.new("L", (pixels.shape[1], pixels.shape[0]))
    halo = Image.new("L", mask.size)
    on_mask, on_halo = ImageDraw.Draw(mask), ImageDraw.Draw(halo)
    for one in marks:
        place = (one.x, one.y)
        on_mask.text(place, one.text, 255, font=_font(one.size), anchor=one.anchor)
        on_halo.text(place, one.text, 255, font=_font(one.size), anchor=one.anchor, stroke_width=2)
    _lay_over(pixels, np.asarray(mask), np.asarray(halo) > 0)


def bar(pixels: Pixels, right: int, bottom: int, length: int) -> None:
    """Draw a horizontal bar of so many pixels with a dark rim, in place."""
    rows, columns = slice(bottom - 3, bottom), slice(right - length, right)
    pixels[bottom - 4 : bottom + 1, right - length - 1 : right + 1] = 0
    pixels[rows, columns] = _BRIGHT


def png(pixels: Pixels, colours: Sequence[Colour]) -> bytes:
    """The picture as a PNG without metadata."""
    image = Image.fromarray(pixels)
    image.putpalette(_palette(tuple(colours)))
    packed = io.BytesIO()
    image.save(packed, "PNG", compress_level=6)
    return packed.getvalue()


def data_uri(picture: bytes) -> str:
    """A PNG as an address that holds it."""
    return f"data:image/png;base64,{base64.b64encode(picture).decode('ascii')}"


def _lay_over(pixels: Pixels, letters: NDArray[np.uint8], halo: NDArray[np.bool_]) -> None:
    dark = np.minimum(pixels, _BRIGHT)[halo] * _HALO
    bright = letters[halo] * (_BRIGHT / 255)
    pixels[halo] = np.maximum(dark, bright).astype(np.uint8)


@lru_cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


@lru_cache
def _palette(colours: tuple[Colour, ...]) -> bytes:
    assert len(colours) == TINTS, "as many colours as tints"
    ramp = np.linspace(0, 255, LEVELS)[:, None]
    tinted = [(1 - _TINTED) * ramp + _TINTED * np.array(colour) for colour in colours]
    rows = np.concatenate([np.repeat(ramp, 3, axis=1), *tinted, np.array(colours, np.float64)])
    return bytes(np.rint(rows).astype(np.uint8))
