"""The report of a comparison: the change map in pictures, and what changed in millilitres."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from model_core.findings import measure
from model_core.findings.structures import Structure
from model_core.imaging.resample import resample
from model_core.imaging.volume import Volume
from model_core.labels import LabelArray, Mask, region_mask
from model_core.report.account import Account, facts_of
from model_core.report.compare import Comparison, Timepoint, laid_over
from model_core.report.cuts import (
    PLANES,
    Head,
    Plane,
    View,
    grey_panel,
    head_of,
    letter,
    mask_panel,
    sheet,
    slice_of,
)
from model_core.report.page import render
from model_core.report.paint import Colour, Pixels, outline, tint
from model_core.report.pictures import PICTURED, Picture, picture_of, told_place, view_of
from model_core.report.words import (
    LIMITS,
    NOTHING,
    Row,
    Table,
    colour_of,
    diameters,
    longest,
    millilitres,
)
from model_core.types import Contrast, Label

NEW, GONE, STABLE = 1, 2, 3
CHANGE_COLOURS: Final[tuple[Colour, ...]] = ((213, 94, 0), (86, 180, 233), (0, 158, 115))
"""Of new, gone and stable: vermilion, sky blue and bluish green of Okabe and Ito's palette. The
earlier tumour's outline has the colour of what is gone, the later one's that of what is new."""
COMPARED: Final[Contrast] = "t1ce"
_EITHER: Final = Label.ED
"""The label of what is tumour at either time, to find its parts."""


def change_report(
    before: Timepoint,
    after: Timepoint,
    comparison: Comparison,
    accounts: tuple[Account, Account] = (Account(), Account()),
) -> str:
    """The comparison of two time points as HTML.

    Args:
        before: the earlier one.
        after: the later one.
        comparison: of these two.
        accounts: what else is known of each.
    """
    return render(
        "compare",
        {
            "warnings": comparison.warnings,
            "volumes": _volume_table(comparison),
            "change": _change_table(comparison),
            "sizes": _size_table(comparison),
            "pictures": change_pictures(before, after, comparison),
            "registration": _registration(comparison),
            "points": [
                ("Earlier", [*facts_of(accounts[0]), ("Grid", before.labels.grid.describe())]),
                ("Later", [*facts_of(accounts[1]), ("Grid", after.labels.grid.describe())]),
            ],
            "same_model": _models(accounts),
            "limits": LIMITS,
        },
    )


def change_pictures(before: Timepoint, after: Timepoint, comparison: Comparison) -> list[Picture]:
    """For each of the largest parts of both tumours together: before, now, and the change map."""
    labels = after.labels
    both = region_mask(comparison.carried, "WT") | region_mask(labels.array, "WT")
    union = Volume(np.where(both, _EITHER, 0).astype(np.uint8), labels.affine)
    whole = measure(union.array, union.grid)["WT"]
    if not whole.lesions:
        return []
    heads = _heads(before, after, comparison)
    pictures = []
    for number, lesion in enumerate(whole.lesions[:PICTURED], start=1):
        view = view_of(heads[1], union, lesion)
        name = f"Place {number} of {whole.components}"
        centre = told_place(lesion.place.centroid_mm)
        caption = f"{name}, centre at {centre} mm: earlier, later, and the change of the tumour."
        told = (
            f"{name}: axial, coronal and sagittal cuts; above the earlier session with its "
            "outline, in the middle the later one with its outline, below the later one with "
            "new, gone and stable tumour tinted."
        )
        pixels = _sheet(heads, view)
        pictures.append(picture_of(pixels, CHANGE_COLOURS, told=told, caption=caption))
    return pictures


def _heads(before: Timepoint, after: Timepoint, comparison: Comparison) -> tuple[Head, Head]:
    """Both sessions on the later grid, each with its own labels."""
    here = after.labels.grid
    earlier = laid_over(before, comparison)[COMPARED]
    placed = Volume(resample(earlier.array, earlier.grid, here), here.affine)
    old = Volume(comparison.carried, here.affine)
    return (
        head_of({COMPARED: placed}, old),
        head_of({COMPARED: after.images[COMPARED]}, after.labels),
    )


def _sheet(heads: tuple[Head, Head], view: View) -> Pixels:
    rows: list[list[Pixels]] = [[], [], []]
    for plane in PLANES:
        old, new = (_tumour(head, plane, view) for head in heads)
        panels = [_grey(head, plane, view) for head in (*heads, heads[1])]
        outline(panels[0], old, GONE)
        outline(panels[1], new, NEW)
        for number, where in ((NEW, new & ~old), (GONE, old & ~new), (STABLE, old & new)):
            tint(panels[2], where, number)
        for row, panel, title in zip(rows, panels, ("earlier", "later", "change"), strict=True):
            letter(panel, plane, f"{title} {plane.name}", view)
            row.append(panel)
    return sheet(rows)


def _grey(head: Head, plane: Plane, view: View) -> Pixels:
    return grey_panel(head, COMPARED, plane, view)


def _tumour(head: Head, plane: Plane, view: View) -> Mask:
    part: LabelArray = slice_of(head.labels, plane, view.centre)
    return mask_panel(part > 0, view.box(plane, head.spacing_mm))


def _volume_table(comparison: Comparison) -> Table:
    pairs = zip(comparison.before.structures, comparison.after.structures, strict=True)
    return Table(
        caption="Volumes on each session's own grid",
        columns=("Earlier (mL)", "Later (mL)", "Difference (mL)", "Difference (%)"),
        rows=tuple(_volume_row(old, new) for old, new in pairs),
    )


def _volume_row(old: Structure, new: Structure) -> Row:
    difference = new.volume_ml - old.volume_ml
    share = f"{difference / old.volume_ml:+.0%}" if old.volume_ml else NOTHING
    return Row(
        heading=f"{new.name}, {new.meaning}",
        swatch=colour_of(new.name),
        cells=(
            millilitres(old.volume_ml),
            millilitres(new.volume_ml),
            f"{difference:+.2f}" if abs(difference) < 1 else f"{difference:+.1f}",
            share,
        ),
    )


def _change_table(comparison: Comparison) -> Table:
    names = {"WT": "Whole tumour", "TC": "Tumour core", "ET": "Enhancing tumour"}
    return Table(
        caption="Change where both label maps meet, on the later grid",
        columns=("New (mL)", "Gone (mL)", "Stable (mL)"),
        rows=tuple(
            Row(
                heading=names[region],
                cells=(millilitres(one.new), millilitres(one.gone), millilitres(one.stable)),
            )
            for region, one in comparison.changes.items()
        ),
    )


def _size_table(comparison: Comparison) -> Table:
    pairs = zip(comparison.before.structures, comparison.after.structures, strict=True)
    return Table(
        caption="Parts and diameters",
        columns=(
            "Parts, earlier", "later", "Longest (mm), earlier", "later",
            "Axial (mm), earlier", "later",
        ),
        rows=tuple(
            Row(
                heading=new.name,
                swatch=colour_of(new.name),
                cells=(
                    str(old.components), str(new.components), longest(old), longest(new),
                    diameters(old), diameters(new),
                ),
            )
            for old, new in pairs
        ),
    )  # fmt: skip


def _registration(comparison: Comparison) -> list[tuple[str, str]]:
    one = comparison.alignment
    movement = f"{one.displacement_mm:.1f} mm, {one.rotation_deg:.1f}°"
    return [
        ("Movement", "none: left where the headers put it" if one.kept else movement),
        ("Common information", f"{one.before:.3f} by the headers, {one.after:.3f} registered"),
        ("Lost when pushed 8 mm apart", f"{one.loss:.0%} of it"),
        ("Head shown by both", f"{one.covered:.0%}"),
        ("Began from", one.start),
    ]


def _models(accounts: tuple[Account, Account]) -> bool | None:
    """Whether both label maps come from the same weights; None where that is not known."""
    sums: list[Any] = []
    for account in accounts:
        model: Mapping[str, Any] = account.run.get("model", {})
        sums.append(model.get("weights_sha256", account.report.get("weights_sha256")))
    return None if None in sums else sums[0] == sums[1]
