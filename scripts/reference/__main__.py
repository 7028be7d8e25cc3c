"""Write the pages that are made from the code: docs/reference/ and docs/model-cards/.

    python -m scripts.reference [--check]

Tests make every page anew and compare, so a page that is behind its source does not stay unnoticed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from scripts.reference import cards, command_line, http, python

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGES: Final[dict[str, Callable[[], str]]] = {
    "reference/python.md": python.page,
    "reference/http.md": http.page,
    "reference/cli.md": command_line.page,
}


def pages() -> Iterator[tuple[Path, str]]:
    """Every page that is made, with its content."""
    for name, make in PAGES.items():
        yield DOCS / name, make()
    for name, text in cards.pages().items():
        yield DOCS / "model-cards" / name, text


def is_current(path: Path, text: str) -> bool:
    """Whether a page says what its source says."""
    return path.is_file() and path.read_text(encoding="utf-8") == text


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or with ``--check`` say which are old; the exit code."""
    old = [(path, text) for path, text in pages() if not is_current(path, text)]
    check = "--check" in (sys.argv[1:] if arguments is None else arguments)
    for path, text in old:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{'old' if check else 'written'}: {path.relative_to(DOCS.parent)}\n")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
