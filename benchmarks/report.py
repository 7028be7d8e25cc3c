"""``python -m benchmarks.report``: every table and picture again, from the JSON that is there."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from benchmarks.commandline import OUT, say, write_page
from benchmarks.results import Results, read
from benchmarks.table import TITLES

DESCRIPTION: Final = """\
Rebuilds the Markdown page and the picture of every results file, and the index of all of them.
Nothing is measured. Run it after a results file was merged or the layout of the pages changed.
"""


def index(results: list[Results]) -> str:
    """One page that links all results, by subject."""
    links = [
        f"- [{title}: {some.path.stem}]({some.path.stem}.md)"
        for subject, title in TITLES.items()
        for some in results
        if some.subject == subject and not some.quick
    ]
    how = (
        "How to read and repeat them: [speed](../../docs/concepts/speed.md) and, of the service, "
        "[load](../../docs/concepts/load.md)."
    )
    lines = ["# Results", "", how, "", *(links or ["None yet."])]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Rebuild all pages of a folder."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.report",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--out", type=Path, default=OUT, help="folder of the results")
    folder: Path = made.parse_args().out
    found = [read(path) for path in sorted(folder.glob("*.json"))]
    for results in found:
        write_page(results)
        say(str(results.path.with_suffix(".md")))
    (folder / "README.md").write_text(index(found), encoding="utf-8")


if __name__ == "__main__":
    main()
