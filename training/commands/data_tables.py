"""How ``segmamba data`` shows what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from model_core.cli import out

if TYPE_CHECKING:
    from training.data.fingerprint import Fingerprint
    from training.data.plan import Plan
    from training.data.verify import Verification


def show_verification(result: Verification) -> None:
    """Every problem, errors in red, and how many cases can be used."""
    console = out()
    if result.problems:
        table = Table("case", "", "what is wrong", box=None, padding=(0, 2))
        for problem in result.problems:
            style = "red" if problem.error else "yellow"
            table.add_row(problem.case or "(data set)", problem.kind, problem.text, style=style)
        console.print(table)
    broken = {problem.case for problem in result.errors}
    warnings = len(result.problems) - len(result.errors)
    console.print(
        f"{result.cases} cases: {len(broken)} with errors, {warnings} warnings ({result.dataset}, "
        f"{result.layout})",
        style="green" if result.ok else "bold red",
        markup=False,
    )


def show_fingerprint(found: Fingerprint) -> None:
    """Sizes, intensities and labels."""
    console = out()
    spacing = " × ".join(f"{mm:.3g}" for mm in found.median_spacing_mm)
    shape = " × ".join(map(str, found.median_shape))
    console.print(
        f"{found.dataset} ({found.layout}): {found.cases} labelled cases, "
        f"{found.without_label} without a label map, {found.without_foreground} without foreground",
        markup=False,
    )
    console.print(
        f"median image {shape} voxels of {spacing} mm ({found.orientation}), cropped to "
        f"{found.cropped_share:.0%} of the voxels"
    )
    channels = Table("channel", "mean", "sd", "0.5 %", "median", "99.5 %", box=None)
    for name, one, median in zip(found.channels, found.intensities, found.medians, strict=True):
        numbers = (one.mean, one.sd, one.low, median, one.high)
        channels.add_row(name, *(f"{value:.4g}" for value in numbers))
    console.print(channels)
    unit = "kpx" if found.pictures else "mL"
    labels = Table("label", "cases", f"median {unit}", "smallest", "largest", "share", box=None)
    for label in found.labels:
        sizes = (label.median_ml, label.smallest_ml, label.largest_ml)
        volumes = (f"{size:.3g}" for size in sizes)
        labels.add_row(label.name, str(label.cases), *volumes, f"{label.frequency:.2%}")
    console.print(labels)


def show_plan(made: Plan) -> None:
    """Each choice and why it was made."""
    table = Table("", "", "why", box=None, padding=(0, 2))
    for name, entry in made.to_json().items():
        if not isinstance(entry, dict) or "reason" not in entry:
            continue
        value = entry["value"]
        shown = " × ".join(f"{n:g}" for n in value) if isinstance(value, list) else str(value)
        table.add_row(name, shown, entry["reason"])
    out().print(f"{made.dataset}: {made.network}, {made.dims}-D, {made.memory_gb:g} GB")
    out().print(table)
