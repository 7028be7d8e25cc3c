"""The files of the page, ready to be sent: compressed, named by their content, typed.

Only what lies in ``static`` when it is first asked for can be sent: no name becomes a path.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

STATIC: Final = Path(__file__).parent / "static"
HOME: Final = "index.html"
REFERENCE: Final = "docs.html"
_MEDIA_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_VENDORED: Final = "vendor/"
_FOR_A_YEAR: Final = "public, max-age=31536000, immutable"
_ASK_AGAIN: Final = "no-cache"


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file.

    Attributes:
        content: as it lies there.
        compressed: by gzip.
        etag: a strong tag of the content; that of the compressed form ends otherwise.
        media_type: of the content.
        cache_control: a year for what has its release in its name, else to be asked for again.
    """

    content: bytes
    compressed: bytes
    etag: str
    media_type: str
    cache_control: str

    def tag(self, *, compressed: bool) -> str:
        """The entity tag of one of the two forms."""
        return f'"{self.etag}-gzip"' if compressed else f'"{self.etag}"'


@cache
def names() -> Mapping[str, Path]:
    """Every file that can be sent, by its name below ``/page/``."""
    return {
        path.relative_to(STATIC).as_posix(): path
        for path in sorted(STATIC.rglob("*"))
        if path.suffix in _MEDIA_TYPES
    }


@cache
def _asset(name: str) -> Asset:
    path = names()[name]
    content = path.read_bytes()
    return Asset(
        content=content,
        compressed=gzip.compress(content, mtime=0),
        etag=hashlib.sha256(content).hexdigest()[:32],
        media_type=_MEDIA_TYPES[path.suffix],
        cache_control=_FOR_A_YEAR if name.startswith(_VENDORED) else _ASK_AGAIN,
    )


def asset(name: str) -> Asset | None:
    """One file of the page; None where there is none of that name."""
    return _asset(name) if name in names() else None
