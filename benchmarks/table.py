"""Results as a Markdown page: what was measured on what, one table, how to read it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.results import Results, Row, fraction, groups, ratio
from benchmarks.timing import spread

TITLES: Final = {
    "scan": "The selective scan",
    "window": "One window through a network",
    "case": "One case, from files to a label map",
    "training": "Training steps",
    "memory": "Peak memory",
    "load": "Many callers at once",
    "dispatch": "From a waiting job to its start",
    "throughput": "Jobs of ten seconds",
    "scale_out": "More and more workers",
    "serving": "Beside other model servers",
    "registration": "Rigid registration",
}
READING: Final = (
    "*min*, *median* and *p90* are seconds of *n* runs. *÷ ref* is the row's median divided by "
    "that of the group's reference row (marked ●): 10 means ten times as long. *of peak* is the "
    "share of the machine's measured peak that is named beside it, with the work counted as the "
    "column before it says. `>` marks a run that was cut off: it takes longer than that. `~` marks "
    "a time scaled from a part, as its remark says. *error* is the relative L2 distance of the "
    "output from the reference row's."
)
_IN_THE_TITLE: Final = ("channels", "length")
_HEAD: Final = (
    "", "way", "threads", "precision", "n", "min", "median", "p90", "÷ ref", "work", "of peak",
    "memory MB", "error", "remark",
)  # fmt: skip


def markdown(results: Results) -> str:
    """The whole page."""
    content = results.to_json()
    stored = json.loads(results.path.read_text(encoding="utf-8")) if results.path.is_file() else {}
    about = {key: stored.get(key, content[key]) for key in ("date", "machine", "versions")}
    lines = [
        f"# {TITLES.get(results.subject, results.subject)}",
        "",
        *([f"![how it scales]({results.path.stem}.png)", ""]),
        *_about(about, results),
        "",
        READING,
        "",
        *(f"- {note}" for note in results.notes),
        *([""] if results.notes else []),
    ]
    for group, rows in groups(results.rows).items():
        lines += [f"## {group}", "", *_table(rows, results.peaks), ""]
    return "\n".join(lines).rstrip() + "\n"


def _about(content: Mapping[str, Any], results: Results) -> list[str]:
    box, peaks = content["machine"], results.peaks
    caches = ", ".join(f"{level} {size}" for level, size in box["caches"].items())
    software = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    quick = [
        "**A quick try-out on tiny sizes: these numbers mean nothing.**", ""
    ] if results.quick else []  # fmt: skip
    best = ", ".join(f"{_peak(name)} {value:g}" for name, value in peaks.items())
    return [
        *quick,
        f"Measured {content['date']} with `{results.command}`.",
        "",
        f"- machine: {box['cpu']} ({box['generation'] or box['architecture']}), {box['cores']} "
        f"cores, {caches}, {box['memory_gb']} GB, {', '.join(box['instruction_sets'])}; native "
        f"kernels built for {box['native_build'] or 'nothing'}",
        f"- software: {software}",
        *([f"- measured peaks: {best}"] if best else []),
    ]


def _peak(name: str) -> str:
    unit = "GB/s" if name in ("copy", "triad") else "GFLOP/s"
    return f"{name.replace('_', ' ')} ({unit})"


def _table(rows: Sequence[Row], peaks: Mapping[str, float]) -> list[str]:
    """A table without the columns that no row fills."""
    names = dict.fromkeys(name for row in rows for name in row.extra)
    extras = [name for name in names if name not in _IN_THE_TITLE]
    head = [*_HEAD[:-1], *(name.replace("_", " ") for name in extras), _HEAD[-1]]
    body = [_cells(row, rows, peaks, extras) for row in rows]
    filled = [i for i in range(len(head)) if any(cells[i] for cells in body)]
    align = ["---" if head[i] in ("", "way", "precision", "remark") else "--:" for i in filled]
    return [
        _line([head[i] for i in filled]),
        _line(align),
        *(_line([cells[i] for i in filled]) for cells in body),
    ]


def _cells(
    row: Row, rows: Sequence[Row], peaks: Mapping[str, float], extras: Sequence[str]
) -> list[str]:
    numbers = spread(row.seconds) if row.seconds else {}
    mark = {"lower": "> ", "scaled": "~ "}.get(row.bound, "")
    times = [
        mark + duration(numbers[name]) if numbers else "–" for name in ("min", "median", "p90")
    ]
    share = fraction(row, peaks)
    relative = ratio(row, rows)
    return [
        "●" if row.reference else "",
        row.way,
        str(row.threads),
        row.precision,
        str(numbers.get("count", "–")),
        *times,
        "" if relative is None else mark + significant(relative),
        _work(row),
        "" if share is None else f"{share:.0%} of {row.peak.replace('_', ' ')}",
        "" if row.peak_rss_mb is None else f"{row.peak_rss_mb:,.0f}".replace(",", " "),
        "" if row.error is None else f"{row.error:.1e}" if row.error else "0",
        *(_extra(row.extra.get(name)) for name in extras),
        row.remark,
    ]


def _work(row: Row) -> str:
    parts = (("GFLOP", row.gflop), ("GB", row.gbyte))
    return ", ".join(f"{significant(value)} {unit}" for unit, value in parts if value is not None)


def _extra(value: object) -> str:
    return "" if value is None else significant(value) if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds with three significant digits."""
    return significant(seconds)


def significant(value: float) -> str:
    """Three significant digits, never in powers of ten for ordinary sizes."""
    if value == 0 or not 1e-6 <= abs(value) < 1e6:
        return f"{value:.3g}"
    digits = max(0, 3 - len(str(int(abs(value))))) if abs(value) >= 1 else 3
    return f"{value:.{digits}f}" if abs(value) >= 1 else f"{value:.{digits}g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
