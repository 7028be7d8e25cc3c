"""Which BraTS numbering a label map's file declares. Its values are never looked at.

A map that this project wrote says it in its header extension. The files of BraTS say it by their
names: those of the contrasts beside ``CASE_seg`` or ``seg``, or else ``CASE_seg`` itself (2022 and
before, ET is 4) and ``CASE-seg`` (2023 and later, ET is 3).
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from model_core.types import LABEL_SCHEMES, LabelScheme

SPELLED: Final[Mapping[LabelScheme, tuple[str, ...]]] = MappingProxyType(
    {
        "brats2021": ("t1", "t1ce", "t2", "flair"),
        "brats2023": ("t1n", "t1c", "t2w", "t2f"),
    }
)
"""How each naming spells the contrasts, in the order of `CONTRASTS`."""
_TRUTH: Final = re.compile(
    r"^(?P<start>|.+(?P<mark>[_-]))seg(?P<ending>\.nii(\.gz)?)$", re.IGNORECASE
)
_MARKS: Final[Mapping[str | None, LabelScheme]] = MappingProxyType(
    {"_": "brats2021", "-": "brats2023"}
)
_HEAD: Final = 2**13
"""Bytes that hold the header and the extension of our own maps."""
_HEADERS: Final = (348, 540)
"""Bytes of a NIfTI-1 and a NIfTI-2 header; they begin with that number."""
_GZIP: Final = b"\x1f\x8b"


def declared_scheme(source: Path | bytes) -> LabelScheme | None:
    """The numbering that a label map's file declares; None if it declares none.

    Args:
        source: the file's path or its bytes, which have no name.
    """
    said = _label_table(_head(source)).get("label_scheme")
    for scheme in LABEL_SCHEMES:
        if said == scheme:
            return scheme
    return _by_name(source) if isinstance(source, Path) else None


def _by_name(path: Path) -> LabelScheme | None:
    named = _TRUTH.match(path.name)
    if named is None:
        return None
    beside = {
        scheme
        for scheme, contrasts in SPELLED.items()
        for contrast in contrasts
        if path.with_name(f"{named['start']}{contrast}{named['ending']}").is_file()
    }
    if beside:
        return beside.pop() if len(beside) == 1 else None
    return _MARKS.get(named["mark"])


def _head(source: Path | bytes) -> bytes:
    """The beginning of the file, unpacked; empty where it cannot be read."""
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                source = file.read(_HEAD)
        if not source.startswith(_GZIP):
            return source[:_HEAD]
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(source[:_HEAD], _HEAD)
    except (OSError, zlib.error):
        return b""


def _label_table(head: bytes) -> Mapping[str, Any]:
    """The table in the first header extension; empty where there is none of ours."""
    try:
        (header,) = struct.unpack_from("<i", head)
        size, _code = struct.unpack_from("<ii", head, header + 4)
        if header not in _HEADERS or not head[header]:
            return {}
        table = json.loads(head[header + 12 : header + 4 + size].rstrip(b"\0"))
    except (struct.error, ValueError, IndexError, RecursionError):
        return {}
    return table if isinstance(table, dict) else {}
