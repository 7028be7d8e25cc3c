"""How large a compressed frame says it is, read before anything is decompressed.

A JPEG of 1 kB may claim 65535 × 65535 pixels, whatever the file around it says, and a decoder
makes room for them. Markers: ITU-T T.81 (JPEG), T.87 (JPEG-LS), T.800 (JPEG 2000).
"""

from __future__ import annotations

import struct
from typing import Final

_JPEG_START: Final = b"\xff\xd8"
_JPEG2000_START: Final = b"\xff\x4f\xff\x51"
_BOX_BYTES: Final = 512
"""A JPEG 2000 codestream may lie in a JP2 box; the box is shorter than this."""
_FRAME_MARKERS: Final = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
"""Start of a frame: all kinds of JPEG, and JPEG-LS; between them lie tables."""
_BARE_MARKERS: Final = frozenset({0x01, *range(0xD0, 0xD9)})


def claimed_size(encoded: bytes) -> tuple[int, int, int] | None:
    """Give rows, columns and samples of a JPEG, JPEG-LS or JPEG 2000 frame.

    None where the bytes do not say: then they are no such frame.
    """
    try:
        if encoded.startswith(_JPEG_START):
            return _jpeg_size(encoded)
        start = encoded.find(_JPEG2000_START, 0, _BOX_BYTES)
        return _jpeg2000_size(encoded, start) if start >= 0 else None
    except struct.error:
        return None


def _jpeg_size(encoded: bytes) -> tuple[int, int, int] | None:
    at = len(_JPEG_START)
    while True:
        mark, code = struct.unpack_from(">BB", encoded, at)
        if mark != 0xFF:
            return None
        if code == 0xFF:  # fill bytes may precede any marker
            at += 1
            continue
        if code in _FRAME_MARKERS:
            rows, columns, samples = struct.unpack_from(">HHB", encoded, at + 5)
            return rows, columns, samples
        at += 2
        if code not in _BARE_MARKERS:
            at += max(2, *struct.unpack_from(">H", encoded, at))


def _jpeg2000_size(encoded: bytes, start: int) -> tuple[int, int, int]:
    right, bottom, left, top = struct.unpack_from(">4I", encoded, start + 8)
    (samples,) = struct.unpack_from(">H", encoded, start + 40)
    return bottom - top, right - left, samples
