"""Training curves as one picture: loss, learning rate and validation Dice over the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DICE_COLOURS = {"WT": "#0072B2", "TC": "#E69F00", "ET": "#009E73"}
"""Okabe-Ito: told apart by colour-blind eyes."""


def draw_curves(folder: RunFolder) -> None:
    """Write ``plots/training_curves.png`` from ``metrics.jsonl``; nothing yet, no picture."""
    from matplotlib.figure import Figure

    steps, validations = folder.records("step"), folder.records("validation")
    if not steps:
        return
    figure = Figure(figsize=(9, 7), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    _draw_loss(above, steps)
    _draw_dice(below, validations)
    folder.curves.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder.curves, dpi=110)


def _draw_loss(axes: Axes, steps: list[dict[str, Any]]) -> None:
    at = [line["step"] for line in steps]
    losses = [line["loss"] for line in steps]
    axes.plot(at, losses, color="#BBBBBB", linewidth=0.8, label="loss")
    axes.plot(at, _smoothed(losses), color="black", label="loss, smoothed")
    axes.set_ylabel("Dice + cross-entropy loss")
    rate = axes.twinx()
    rate.plot(at, [line["learning_rate"] for line in steps], color="#CC79A7", linewidth=0.8)
    rate.set_ylabel("learning rate", color="#CC79A7")
    axes.legend(loc="upper right")


def _draw_dice(axes: Axes, validations: list[dict[str, Any]]) -> None:
    at = [line["step"] for line in validations]
    for region, colour in _DICE_COLOURS.items():
        means = [line["mean"][region] for line in validations]
        axes.plot(at, means, marker="o", color=colour, label=region)
    axes.set(xlabel="step", ylabel="validation Dice, mean of cases", ylim=(0, 1))
    axes.legend(loc="lower right")


def _smoothed(values: list[float]) -> list[float]:
    level, out = values[0], []
    for value in values:
        level = 0.9 * level + 0.1 * value
        out.append(level)
    return out
