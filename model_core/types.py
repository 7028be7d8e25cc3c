"""The few words that every room shares: contrasts, labels, regions, schemes, progress.

Labels are held in BraTS 2023 numbering everywhere inside the project (`Label`); the numbering
that a caller sees is chosen by a `LabelScheme` at the border and nowhere else
(`model_core.labels`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Literal, get_args

Contrast = Literal["t1", "t1ce", "t2", "flair"]
"""BraTS names: native T1, contrast-enhanced T1, T2, T2-FLAIR (2023: t1n, t1c, t2w, t2f)."""
CONTRASTS: Final[tuple[Contrast, ...]] = get_args(Contrast)

LabelScheme = Literal["brats2021", "brats2023"]
"""``brats2021``: enhancing tumour is 4. ``brats2023``: enhancing tumour is 3."""
LABEL_SCHEMES: Final[tuple[LabelScheme, ...]] = get_args(LabelScheme)

Region = Literal["WT", "TC", "ET"]
"""Whole tumour, tumour core, enhancing tumour: nested, ET ⊂ TC ⊂ WT."""

Tta = Literal["none", "fast", "full"]
"""Test-time augmentation by mirroring: 1 pass; identity + 3 single flips; all 8 combinations."""
TTA_MODES: Final[tuple[Tta, ...]] = get_args(Tta)

WindowChoice = Literal["card", "whole"]
"""``card``: the window of the model card. ``whole``: one window over the brain box."""
WINDOW_CHOICES: Final[tuple[WindowChoice, ...]] = get_args(WindowChoice)

Shape3 = tuple[int, int, int]
Spacing = tuple[float, float, float]
"""Millimetres along the three array axes."""

Progress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)``; must return quickly and must not raise."""
CancelCheck = Callable[[], bool]
"""Asked between windows; a true answer ends the work with `model_core.errors.Cancelled`."""


class Label(IntEnum):
    """Voxel classes in the internal (BraTS 2023) numbering."""

    BACKGROUND = 0
    NCR = 1  # necrotic and non-enhancing tumour core
    ED = 2  # peritumoural oedema and infiltrated tissue
    ET = 3  # enhancing tumour


REGION_LABELS: Final[Mapping[Region, tuple[Label, ...]]] = MappingProxyType(
    {
        "WT": (Label.NCR, Label.ED, Label.ET),
        "TC": (Label.NCR, Label.ET),
        "ET": (Label.ET,),
    }
)
"""The labels that make up each BraTS evaluation region."""
