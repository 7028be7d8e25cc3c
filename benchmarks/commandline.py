"""Options that every subject shares, and which rows they select."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from benchmarks.machine import cores
from benchmarks.peaks import measure_peaks
from benchmarks.picture import draw
from benchmarks.results import Results
from benchmarks.table import markdown
from benchmarks.timing import Plan

OUT: Final = Path(__file__).parent / "results"
_HIDDEN: Final = {"--out": "FOLDER", "--data": "FOLDER", "--postgres": "URL"}
_EPILOGUE: Final = """\
Rows are kept in OUT/<subject>_<machine>_<yyyymm>.json, saved after every one; a Markdown table and
a picture are written beside it. So a run may be interrupted and go on with --missing, and rows may
be measured again one by one with --only. Run on an otherwise idle machine: close everything else,
and look whether min and median agree. Peers need: benchmarks/setup.sh, then
.venv-bench/bin/python -m benchmarks.<subject>. Try everything first with --quick (tiny sizes).
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for on the command line."""

    quick: bool
    out: Path
    only: tuple[str, ...]
    missing: bool
    fresh: bool
    listing: bool
    threads: int
    plan: Plan
    limit_seconds: float

    def wants(self, results: Results, group: str, way: str) -> bool:
        """Whether this row is to be measured now."""
        name = f"{group}: {way}".lower()
        named = not self.only or any(text.lower() in name for text in self.only)
        wanted = named and not (self.missing and results.has(group, way))
        if wanted and self.listing:
            print(f"{group}: {way}")
        return wanted and not self.listing


def parser(subject: str, description: str, *, rounds: int) -> argparse.ArgumentParser:
    """A parser with the shared options; a subject may add its own."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{subject}",
        description=description,
        epilog=_EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--quick", action="store_true", help="tiny sizes, to see that everything works")
    add("--out", type=Path, default=OUT, help="folder of the results (default: %(default)s)")
    add("--only", action="append", default=[], metavar="TEXT",
        help="measure only rows whose 'group: way' holds this text; may be repeated")  # fmt: skip
    add("--missing", action="store_true", help="measure only rows that the results lack")
    add("--fresh", action="store_true", help="forget earlier results of this month")
    add("--list", action="store_true", dest="listing", help="name the rows and measure nothing")
    add("--threads", type=int, default=cores(), help="threads (default: all cores, %(default)s)")
    add("--rounds", type=int, default=rounds, help="runs that count, A B A B (default %(default)s)")
    add("--warmup", type=int, default=1, help="runs before the first that counts (default 1)")
    add("--seconds", type=float, default=60.0,
        help="no further round of a way once its rounds took so long (default %(default)g)",
    )  # fmt: skip
    add("--limit-seconds", type=float, default=300.0,
        help="kill a long row after this; its time is then a lower bound (default %(default)g)",
    )  # fmt: skip
    return made


def options(values: argparse.Namespace) -> Options:
    """The shared options of a parsed command line; sets PyTorch's threads."""
    torch.set_num_threads(values.threads)
    rounds = min(values.rounds, 2) if values.quick else values.rounds
    return Options(
        quick=values.quick,
        out=values.out,
        only=tuple(values.only),
        missing=values.missing,
        fresh=values.fresh,
        listing=values.listing,
        threads=values.threads,
        plan=Plan(warmup=values.warmup, rounds=rounds, seconds=values.seconds),
        limit_seconds=values.limit_seconds,
    )


def open_results(
    subject: str, chosen: Options, notes: Sequence[str], *, peaks: bool = True
) -> Results:
    """The subject's results; the machine's peaks are measured now unless nothing is to run.

    Args:
        subject: in the file's name.
        chosen: from the command line.
        notes: for the page.
        peaks: False where no row is compared with what the machine can do at best.
    """
    results = Results.open(subject, chosen.out, quick=chosen.quick, fresh=chosen.fresh)
    results.notes = tuple(notes)
    results.command = shlex.join(["python", "-m", f"benchmarks.{subject}", *_shown(sys.argv[1:])])
    if peaks and not chosen.listing:
        say("measuring what the machine can do at best …")
        now = measure_peaks(threads=chosen.threads, quick=chosen.quick)
        # A neighbour can only lower a peak: the best that was ever seen is the machine's.
        results.peaks = {
            name: max(value, results.peaks.get(name, 0.0)) for name, value in now.items()
        }
    return results


def _shown(arguments: Sequence[str]) -> list[str]:
    """The arguments without folders and addresses, which are nobody's business."""
    shown: list[str] = []
    instead = None
    for argument in arguments:
        name, _, value = argument.partition("=")
        joined = f"{name}={_HIDDEN[name]}" if value and name in _HIDDEN else argument
        shown.append(instead or joined)
        instead = _HIDDEN.get(argument)
    return shown


def close_results(results: Results, chosen: Options) -> None:
    """Write the table and the picture, and say where."""
    if chosen.listing:
        return
    results.save()
    write_page(results)
    say(f"\n{results.path.with_suffix('.md')}")


def write_page(results: Results) -> None:
    """The Markdown page and the picture beside the results' JSON."""
    results.path.with_suffix(".md").write_text(markdown(results), encoding="utf-8")
    draw(results, results.path.with_suffix(".png"))


def say(line: str) -> None:
    """One line for the person who waits."""
    print(line, flush=True)
