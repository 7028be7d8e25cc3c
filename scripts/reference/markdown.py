"""Small parts of Markdown that the pages share: anchors, table cells, docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Final

SECTIONS: Final = {
    "Args:": "Arguments",
    "Attributes:": "Attributes",
    "Raises:": "Raises",
    "Returns:": "Returns",
    "Yields:": "Yields",
}
"""Headings of Google's docstrings, and what they become."""


def anchor(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a line or is followed by a capital, on one line."""
    line = " ".join(text.split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", line, maxsplit=1)[0]


def cell(text: str) -> str:
    """Text for a table: one line, and no bar that would end the cell."""
    return " ".join(text.split()).replace("|", "\\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with its trailing newline."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell(text) for text in line)} |\n" for line in lines)


def from_docstring(docstring: str | None) -> str:
    """A docstring in Google's style as Markdown."""
    parts: list[str] = []
    paragraphs = inspect.cleandoc(docstring or "").replace("``", "`").split("\n\n")
    code = False
    for paragraph in paragraphs:
        head, _, rest = paragraph.partition("\n")
        if head in SECTIONS:
            parts.append(f"**{SECTIONS[head]}**\n\n{_items(inspect.cleandoc(rest))}")
        elif code and paragraph.startswith("    "):
            parts.append(_fenced(paragraph, parts))
        else:
            code = paragraph.endswith("::")
            parts.append(paragraph.removesuffix("::").rstrip())
            continue
        code = code and head not in SECTIONS
    return "\n\n".join(part for part in parts if part)


def _fenced(paragraph: str, parts: list[str]) -> str:
    """Indented code in a fence; what a blank line divides stays one block."""
    text = re.sub(r"^ {4}", "", paragraph, flags=re.MULTILINE)
    if parts and parts[-1].startswith("```"):
        before = parts.pop().removesuffix("\n```")
        return f"{before}\n\n{text}\n```"
    return f"```python\n{text}\n```"


def _items(block: str) -> str:
    """``name: text`` lines as a list; a section without names stays a paragraph."""
    items: list[list[str]] = []
    for line in block.split("\n"):
        if line.startswith(" ") and items:
            items[-1].append(line.strip())
        else:
            items.append([line.strip()])
    lines = [" ".join(words) for words in items]
    if not all(re.match(r"^[\w.*]+:", line) for line in lines):
        return "\n".join(lines)
    return "\n".join(re.sub(r"^([\w.*]+):", r"- `\1`:", line) for line in lines)
