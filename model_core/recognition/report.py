"""The report of an inspection: every series, and the study that the chosen ones make.

It is made for people and for other programs (`Inspection.to_dict`). It holds no text out of a file:
series are named by their UID or their position, everything else is of a fixed vocabulary.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from model_core.imaging.skull import Skull
from model_core.types import CONTRASTS, Contrast, Shape3, Spacing

InputKind = Literal["dicom", "nifti"]


@dataclass(frozen=True, kw_only=True)
class SeriesReport:
    """One series or file.

    Attributes:
        uid: SeriesInstanceUID, with ``#n`` for one of several volumes; the position of a NIfTI
            file, from ``"1"``.
        contrast: what it was taken for if it is chosen, else what it is held to be; None for none
            of the four.
        confidence: 0 to 1.
        reason: the evidence, in fixed words.
        uncertain: a person should look.
        chosen: it is one of the study's four.
        shape: voxels along the array axes; None where it makes no volume.
        spacing_mm: distance of voxels along the same axes.
        orientation: the direction of the same axes, e.g. ``"LPS"``.
        images: how many slices or frames.
        problems: why it makes no volume, for people.
        warnings: what is odd about it and tolerated.
    """

    uid: str
    contrast: Contrast | None
    confidence: float
    reason: str
    uncertain: bool
    chosen: bool
    shape: Shape3 | None
    spacing_mm: Spacing | None
    orientation: str | None
    images: int
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """What the chosen series make together.

    Attributes:
        missing: contrasts without a series.
        uncertain: contrasts whose series a person should confirm.
        studies: how many studies were handed over; only one of them is chosen from.
        grids_equal: whether the chosen lie on one grid; None where fewer than two were read.
        skull: of the chosen together.
        prepared: complete, without skull, on one grid.
        suspicions: what the images say against their names.
        warnings: what was close, odd or tolerated.
        preparation: what an automatic preparation would do, step by step, in words.
    """

    missing: tuple[Contrast, ...]
    uncertain: tuple[Contrast, ...]
    studies: int
    grids_equal: bool | None
    skull: Skull
    prepared: bool
    suspicions: tuple[str, ...]
    warnings: tuple[str, ...]
    preparation: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether it may be segmented as it is: prepared, and nothing in doubt."""
        return self.prepared and not (self.missing or self.uncertain or self.suspicions)


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What an input holds.

    Attributes:
        kind: ``dicom`` or ``nifti``.
        series: every series or file, in order.
        study: what the chosen ones make.
    """

    kind: InputKind
    series: tuple[SeriesReport, ...]
    study: StudyReport

    @property
    def chosen(self) -> dict[Contrast, str]:
        """The uid of the series taken for each contrast."""
        taken = {entry.contrast: entry.uid for entry in self.series if entry.chosen}
        return {contrast: taken[contrast] for contrast in CONTRASTS if contrast in taken}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "kind": self.kind,
            "series": [_plain(asdict(entry)) for entry in self.series],
            "study": {**_plain(asdict(self.study)), "ready": self.study.ready},
        }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
    }
