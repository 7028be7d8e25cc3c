"""One picture of a subject's results: how the scan scales, or bars of how long each way takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.results import Results, Row, groups
from benchmarks.table import significant

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#666666")
"""Okabe and Ito's palette, told apart with any common colour vision."""
_MARKERS: Final = "osD^vPX"
_UNITS: Final = {"memory": "peak memory (MB)"}


def draw(results: Results, path: Path) -> None:
    """Write the picture as PNG; nothing is drawn from no rows."""
    rows = [row for row in results.rows if row.seconds]
    if not rows:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    scaling = [row for row in rows if "length" in row.extra]
    if scaling:
        figure = plt.figure(figsize=(8, 5), layout="constrained")
        _lines(figure.gca(), scaling, results.peaks)
    else:
        height = 0.9 + sum(0.34 * len(some) + 0.6 for some in groups(rows).values())
        figure = plt.figure(figsize=(9, height), layout="constrained")
        shares = [len(some) + 1 for some in groups(rows).values()]
        axes = figure.subplots(len(shares), 1, height_ratios=shares, squeeze=False)[:, 0]
        for place, (group, some) in zip(axes, groups(rows).items(), strict=True):
            _bars(place, group, some, results.subject)
        axes[-1].set_xlabel(_UNITS.get(results.subject, "seconds (median)"))
    figure.suptitle(_title(results), fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _title(results: Results) -> str:
    about = results.to_json()["machine"]
    quick = "QUICK TRY-OUT, numbers mean nothing: " if results.quick else ""
    return (
        f"{quick}{results.subject} on {about['cpu']} {about['generation']}, {about['cores']} cores"
    )


def _lines(place: Axes, rows: Sequence[Row], peaks: Mapping[str, float]) -> None:
    """Nanoseconds per element over the length, one line per way and thread count."""
    rows = [row for row in rows if row.extra["channels"] == rows[0].extra["channels"]]
    ways = list(dict.fromkeys(row.way for row in rows))
    for way, threads in dict.fromkeys((row.way, row.threads) for row in rows):
        mine = [row for row in rows if (row.way, row.threads) == (way, threads)]
        number = ways.index(way)
        place.plot(
            *_points(mine),
            color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKERS[number % len(_MARKERS)],
            linestyle="-" if threads > 1 else ":",
            label=f"{way}, {threads} thread{'s' if threads > 1 else ''}",
        )
    floor = [_at_peak(row, peaks) for row in rows if row.reference and row.peak in peaks]
    if floor:
        label = f"least memory traffic at the measured {rows[0].peak} rate"
        place.axhline(max(floor), color="#999999", linestyle="--", label=label)
    place.set(yscale="log", xlabel=f"tokens L (D {rows[0].extra['channels']})")
    place.set_ylabel("ns per element (d·n·l), median")
    place.set_xscale("log", base=2)
    place.grid(visible=True, alpha=0.3)
    place.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _points(rows: Sequence[Row]) -> tuple[list[int], list[float]]:
    ordered = sorted(rows, key=lambda row: int(row.extra["length"]))
    lengths = [int(row.extra["length"]) for row in ordered]
    return lengths, [float(row.extra["ns_per_element"]) for row in ordered]


def _at_peak(row: Row, peaks: Mapping[str, float]) -> float:
    """What the row's traffic would take per element if only memory counted."""
    assert row.typical is not None
    assert row.gbyte is not None
    per_second = float(row.extra["ns_per_element"]) / row.typical
    return row.gbyte / peaks[row.peak] * per_second


def _bars(place: Axes, group: str, rows: Sequence[Row], subject: str) -> None:
    values = [_value(row, subject) for row in rows]
    names = [row.way for row in rows]
    bars = place.barh(range(len(rows)), values, color=[_colour(row) for row in rows])
    reference = next((v for v, row in zip(values, rows, strict=True) if row.reference), None)
    labels = [_label(row, value, reference) for row, value in zip(rows, values, strict=True)]
    place.bar_label(bars, labels=labels, fontsize=7)
    place.set_yticks(range(len(rows)))
    place.set_yticklabels(names, fontsize=7)
    place.tick_params(axis="x", labelsize=7)
    place.set_xlim(0, max(values) * 1.25)
    place.invert_yaxis()
    place.set_title(group, fontsize=8, loc="left")


def _colour(row: Row) -> str:
    if not row.way.startswith("this project"):
        return _COLOURS[2]
    return _COLOURS[0] if row.reference else _COLOURS[1]


def _label(row: Row, value: float, reference: float | None) -> str:
    mark = {"lower": "> ", "scaled": "~ "}.get(row.bound, "")
    times = f"  ({mark}{significant(value / reference)}×)" if reference else ""
    return f" {mark}{significant(value)}{times}"


def _value(row: Row, subject: str) -> float:
    return (row.peak_rss_mb if subject == "memory" else row.typical) or 0.0
