"""The reference of the command line, as typer writes it, with links and whole first sentences."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from scripts.reference.markdown import anchor, first_sentence

HEAD: Final = """# The command line

Made by `make reference` from the commands themselves. `segmamba COMMAND --help` says the same.
Exit codes: 0 done · 1 done with failures · 2 wrong input or usage · 130 stopped by the user.

"""
ROOT: Final = Path(__file__).parents[2]
WRITE: Final = ("-m", "typer", "model_core.cli.main", "utils", "docs", "--name", "segmamba")
SECTION: Final = re.compile(r"^#+ `(?P<name>segmamba[^`]*)`\n\n(?P<text>.*?)(?=\n\n)", re.M | re.S)
LISTED: Final = re.compile(r"^\* `(?P<word>[a-z-]+)`: [^\n]*$", re.M)


def page() -> str:
    """Every command with its arguments and options."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SEGMAMBA_")}
    written = subprocess.run(  # noqa: S603 - this interpreter, and words that stand above
        [sys.executable, *WRITE], cwd=ROOT, env=environment | {"COLUMNS": "100"},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    body = written.partition("\n\n")[2]
    body = body.replace(
        "```console\n$ ", "```text\n"
    )  # what to type, and nothing that can be typed
    return HEAD + _with_links(body).rstrip() + "\n"


def _with_links(body: str) -> str:
    """Lists of commands lead to their sections, and say their whole first sentence."""
    texts = {match["name"]: match["text"] for match in SECTION.finditer(body)}
    place = "segmamba"

    def entry(match: re.Match[str]) -> str:
        name = f"{place} {match['word']}"
        if name not in texts:
            return match[0]
        return f"* [`{match['word']}`](#{anchor(name)}): {first_sentence(texts[name])}"

    lines = []
    for line in body.split("\n"):
        heading = re.match(r"^#+ `([^`]+)`$", line)
        place = heading[1] if heading else place
        lines.append(LISTED.sub(entry, line))
    return "\n".join(lines)
