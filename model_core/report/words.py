"""Numbers and accounts in words: tables, pairs of a term and its value, sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from model_core.findings.structures import Statistics, Structure
from model_core.labels import LABEL_COLOURS, LABEL_NAMES
from model_core.types import Label

STATEMENT: Final = (
    "For research use only. Not a medical device. A person has to look at every result."
)
LIMITS: Final = (
    "The outlines were drawn by a network. It can miss tumour, call healthy tissue tumour, and be "
    "wrong about everything it was not trained on.",
    "Volumes and diameters are those of the outlines: they are as right or as wrong as these are.",
    "Volumes count whole voxels. Diameters are measured within one connected part; the two axial "
    "ones lie at right angles on the slice where their product is largest, as RANO 2.0 measures.",
)
SEVERITIES: Final[Mapping[str, str]] = {
    "fail": "Must not be used as it is",
    "review": "Look at it",
    "info": "Good to know",
}
NOTHING: Final = "–"

Pairs = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a table; `swatch` is the colour of the label that it is about."""

    heading: str
    cells: tuple[str, ...]
    swatch: str | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of words; `columns` head the cells."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Remark:
    """One thing that a person should know, with how grave it is in words."""

    severity: str
    grade: str
    reason: str


def millilitres(value: float) -> str:
    """To a tenth; below that to a hundredth."""
    return f"{value:.1f}" if value >= 1 or value == 0 else f"{value:.2f}"


def diameters(structure: Structure) -> str:
    """The two axial diameters of the part where their product is largest."""
    axial = structure.axial
    return f"{axial.long.length_mm:.0f} × {axial.short.length_mm:.0f}" if axial else NOTHING


def longest(structure: Structure) -> str:
    """The longest diameter in any direction."""
    return f"{structure.diameter.length_mm:.0f}" if structure.diameter else NOTHING


def colour_of(name: str) -> str | None:
    """The drawn colour of a label; a region that is no label has none."""
    found = {LABEL_NAMES[label]: LABEL_COLOURS[label] for label in Label if label}.get(name)
    return None if found is None else "#{:02x}{:02x}{:02x}".format(*found)


def volume_table(statistics: Statistics) -> Table:
    """Every region and label in millilitres, parts and diameters."""
    return Table(
        caption="Volumes and diameters",
        columns=(
            "Volume (mL)", "Parts", "Largest part (mL)", "Longest diameter (mm)",
            "Axial diameters (mm)", "Both 10 mm or more",
        ),
        rows=tuple(_volume_row(one) for one in statistics.structures),
    )  # fmt: skip


def remarks_of(flags: Sequence[Mapping[str, Any]]) -> list[Remark]:
    """Quality flags in words, as they came: the gravest first."""
    return [
        Remark(
            severity=str(flag["severity"]),
            grade=SEVERITIES.get(str(flag["severity"]), str(flag["severity"])),
            reason=str(flag["reason"]),
        )
        for flag in flags
    ]


def listed(values: Mapping[str, Any]) -> str:
    """Names and values in one line."""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)


def told(pairs: Pairs) -> Pairs:
    """Those pairs that have a value."""
    return [(term, words) for term, words in pairs if words]


def _volume_row(one: Structure) -> Row:
    axial = one.axial
    return Row(
        heading=f"{one.name}, {one.meaning}",
        swatch=colour_of(one.name),
        cells=(
            millilitres(one.volume_ml),
            str(one.components),
            millilitres(one.lesions[0].volume_ml) if one.lesions else NOTHING,
            longest(one),
            diameters(one),
            NOTHING if axial is None else "yes" if axial.reaches_rano else "no",
        ),
    )
