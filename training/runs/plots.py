"""Training curves as one picture: loss, validation Dice, pseudo-Dice, learning rate, step time."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from model_core.imaging.atomic import write_atomically
from training.runs.palette import LINES, line_style
from training.runs.run_folder import RunFolder, read_json
from training.runs.series import (
    Values,
    best_of,
    column,
    evaluations,
    pseudo_dice,
    smoothed,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RAW = "#A0A0A0"
_LOSS_NAMES = {"dice-ce": "Dice + cross-entropy", "ce": "cross-entropy"}
_Panel = tuple[float, "Callable[[Axes], None]"]


def draw_curves(folder: RunFolder) -> None:
    """Write ``plots/training_curves.png`` from ``metrics.jsonl``; nothing recorded, no picture."""
    panels = _panels(folder)
    if not panels:
        return
    from matplotlib.figure import Figure

    heights = [height for height, _ in panels]
    figure = Figure(figsize=(9, sum(heights) + 0.4), layout="constrained")
    grid = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)
    for axes, (_, draw) in zip(grid[:, 0], panels, strict=True):
        draw(axes)
        axes.grid(color="#E6E6E6", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    grid[-1, 0].set_xlabel("step")
    figure.align_ylabels()
    write_figure(figure, folder.curves)


def write_figure(figure: Figure, path: Any, **options: Any) -> None:
    """Write a figure as PNG, whole or not at all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None}, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def _panels(folder: RunFolder) -> list[_Panel]:
    """Height (inches) and drawer of each panel for which there are numbers."""
    steps = folder.records("step")
    found, pseudo = evaluations(folder), pseudo_dice(folder)
    loss, rate, seconds = (column(steps, name) for name in ("loss", "learning_rate", "seconds"))
    name = (read_json(folder.config) or {}).get("loss")
    panels: list[_Panel] = []
    if loss[0].size:
        panels.append((2.8, lambda axes: _draw_loss(axes, *loss, _LOSS_NAMES.get(str(name), ""))))
    if found:
        panels.append((2.8, lambda axes: draw_dice(axes, found)))
    if pseudo:
        panels.append((2.2, lambda axes: _draw_pseudo_dice(axes, pseudo)))
    if rate[0].size:
        panels.append((1.2, lambda axes: _draw_rate(axes, *rate)))
    if seconds[0].size:
        panels.append((1.2, lambda axes: _draw_seconds(axes, *seconds)))
    return panels


def _draw_loss(axes: Axes, at: Values, losses: Values, name: str) -> None:
    axes.plot(at, losses, color=RAW, linewidth=0.7, label="as recorded")
    axes.plot(at, smoothed(losses), color="black", linewidth=1.6, label="smoothed")
    axes.set_ylabel(f"training loss\n({name})" if name else "training loss")
    _limit_above(axes, losses)
    axes.legend(loc="upper right", frameon=False, ncols=2)


def draw_dice(axes: Axes, found: Any) -> None:
    """Dice per region and their mean over the steps, the best evaluation marked."""
    at = [one.step for one in found]
    regions = list(dict.fromkeys(name for one in found for name in one.mean))
    size = 5 if len(found) <= 40 else 2.5
    for index, region in enumerate(regions):
        means = [one.mean.get(region, np.nan) for one in found]
        axes.plot(at, means, label=region, markersize=size, linewidth=1.2, **line_style(index))
    if len(regions) > 1:
        scores = [one.score for one in found]
        axes.plot(at, scores, color="black", linewidth=1.8, linestyle="--", label="mean")
    best = best_of(found)
    assert best is not None, "there is an evaluation"
    axes.axvline(best.step, color="black", linewidth=0.8, linestyle=":")
    axes.plot(
        [best.step], [best.score], marker="*", markersize=14, color="black",
        markeredgecolor="white", linestyle="none", zorder=5,
        label=f"best: {best.score:.3f} at step {best.step}",
    )  # fmt: skip
    lowest = min(value for one in found for value in (*one.mean.values(), one.score))
    axes.set(ylabel="validation Dice\n(mean of cases)", ylim=(_floor(lowest), 1.0))
    axes.legend(loc="lower right", ncols=min(5, len(regions) + 2), framealpha=0.9)


def _draw_pseudo_dice(axes: Axes, pseudo: dict[str, tuple[Values, Values]]) -> None:
    classes = [name for name in pseudo if name]
    for index, name in enumerate(classes):
        at, values = pseudo[name]
        axes.plot(at, values, linewidth=0.8, color=LINES[index % len(LINES)], label=name)
    if "" in pseudo:
        axes.plot(*pseudo[""], color="black", linewidth=1.8, label="smoothed mean (EMA)")
    lowest = min(float(values.min()) for _, values in pseudo.values())
    axes.set(ylabel="pseudo-Dice\n(patches, pooled)", ylim=(_floor(lowest), 1.0))
    axes.legend(loc="lower right", ncols=min(4, len(pseudo)), framealpha=0.9)


def _draw_rate(axes: Axes, at: Values, rates: Values) -> None:
    axes.plot(at, rates, color=LINES[0], linewidth=1.4)
    axes.set(ylabel="learning\nrate", ylim=(0, float(rates.max()) * 1.08 or 1))
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)


def _draw_seconds(axes: Axes, at: Values, seconds: Values) -> None:
    middle = float(np.median(seconds))
    axes.plot(at, seconds, color=RAW, linewidth=0.7)
    axes.axhline(middle, color="black", linewidth=1.2, label=f"median {middle:.3g} s")
    axes.set_ylabel("seconds\nper step")
    _limit_above(axes, seconds, floor=0.0)
    axes.legend(loc="lower right", frameon=False)


def _limit_above(axes: Axes, values: Values, floor: float | None = None) -> None:
    """Leave a few outliers (the first step, a spike) above the frame: the rest keeps its shape."""
    most = float(np.percentile(values, 99))
    if values.max() > 1.5 * most > 0:
        axes.set_ylim(top=1.2 * most)
    if floor is not None:
        axes.set_ylim(bottom=floor)


def _floor(lowest: float) -> float:
    """0, unless everything lies so high that the upper half shows more."""
    return 0.0 if lowest < 0.55 else float(np.floor((lowest - 0.03) * 10) / 10)
