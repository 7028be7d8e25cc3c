"""A contact sheet: small copies of many case sheets in one picture, to see where to look."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from model_core.imaging.atomic import write_atomically

COLUMNS: Final = 3
WIDTH: Final = 640
"""Pixels of one small copy."""
MOST: Final = 60
"""More would make a picture that no viewer opens; the folder has them all."""
_CAPTION, _GAP, _SIZE = 26, 10, 17
_INK, _LINE = (242, 242, 242), (64, 64, 64)


def write_index(path: Path, sheets: Sequence[tuple[str, Path]]) -> None:
    """Write a contact sheet (PNG): whole, or not at all.

    Args:
        path: where it goes.
        sheets: a caption and the PNG of each sheet, `MOST` of them at most are shown.

    Raises:
        OSError: a sheet cannot be read or the folder not be written.
    """
    shown = [(caption, _small(sheet)) for caption, sheet in sheets[:MOST]]
    columns = min(COLUMNS, len(shown))
    height = max(copy.height for _, copy in shown) + _CAPTION
    rows = math.ceil(len(shown) / columns)
    size = (columns * (WIDTH + _GAP) + _GAP, rows * (height + _GAP) + _GAP)
    page = Image.new("RGB", size, "black")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(_SIZE)
    for number, (caption, copy) in enumerate(shown):
        row, column = divmod(number, columns)
        x, y = _GAP + column * (WIDTH + _GAP), _GAP + row * (height + _GAP)
        draw.text((x + 4, y + 2), caption, fill=_INK, font=font)
        page.paste(copy, (x, y + _CAPTION))
        draw.rectangle((x - 1, y - 1, x + WIDTH, y + height), outline=_LINE)
    buffer = io.BytesIO()
    page.save(buffer, format="PNG", optimize=True)
    write_atomically(path, buffer.getvalue())


def _small(path: Path) -> Image.Image:
    with Image.open(path) as sheet:
        height = round(sheet.height * WIDTH / sheet.width)
        return sheet.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
