"""A DICOM study of four contrasts, recognised for what they are, for tests of whole ways."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_core.dicom.facts import SeriesFacts
from model_core.types import CONTRASTS, Contrast
from tests.dicom_series import (
    PLANTED,
    T1_FACTS,
    SeriesRecipe,
    geometry_affine,
    series_uid,
    study_uid,
    write_series,
)

SHAPE = (40, 36, 24)
_SPIN_ECHO: dict[str, Any] = {
    "sequence_name": "*tse2d1", "scanning_sequence": ("SE",), "sequence_variant": ("SK",),
    "acquisition_type": "2D", "flip_angle_deg": 150.0, "echo_train_length": 15,
}  # fmt: skip
FACTS: Mapping[Contrast, SeriesFacts] = {
    "t1": replace(T1_FACTS, number=2),
    "t1ce": replace(
        T1_FACTS, description="t1 post gd", protocol="t1 post gd", contrast_agent="Gadovist",
        number=7, acquired=38_000.0,
    ),
    "t2": replace(
        T1_FACTS, description="t2 tse tra", protocol="t2 tse tra", echo_time_ms=95.0,
        repetition_time_ms=5200.0, inversion_time_ms=None, number=3, acquired=36_400.0,
        **_SPIN_ECHO,
    ),
    "flair": replace(
        T1_FACTS, description="flair tra", protocol="flair tra", echo_time_ms=110.0,
        repetition_time_ms=9000.0, inversion_time_ms=2500.0, number=4, acquired=36_800.0,
        **_SPIN_ECHO,
    ),
}  # fmt: skip


def recipe_of(contrast: Contrast, *, named: bool = True) -> SeriesRecipe:
    """Of one series of the study; `named`: with a patient in its headers."""
    return SeriesRecipe(facts=FACTS[contrast], seed=contrast, patient=PLANTED if named else {})


def uid_of_series(contrast: Contrast) -> str:
    return series_uid(recipe_of(contrast))


STUDY_UID = study_uid(recipe_of("t1"))


def values_of(contrast: Contrast) -> NDArray[np.int16]:
    """A blob in a margin of zeros, different for each contrast, without any symmetry."""
    number = CONTRASTS.index(contrast)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    centre = np.array([0.1, -0.2, 0.15 + 0.03 * number]).reshape(3, 1, 1, 1)
    near = np.exp(-4 * ((grid - centre) ** 2).sum(axis=0)) * (1 + 0.2 * grid[0])
    values = np.where(near > 0.2, 100 * near + 3 * number, 0)
    return values.astype(np.int16)


def affine_of(geometry: str = "axial", *, oblique: bool = True) -> NDArray[np.float64]:
    return geometry_affine(geometry, shape=SHAPE, spacing=(1.0, 1.0, 2.0), oblique=oblique)


def write_study(folder: Path, *, geometry: str = "axial", named: bool = True) -> list[Path]:
    """Every slice of the four series as a file of its own; their order tells nothing."""
    files: list[Path] = []
    for contrast in CONTRASTS:
        affine = affine_of(geometry)
        recipe = recipe_of(contrast, named=named)
        files += write_series(folder / contrast, values_of(contrast), affine, recipe)
    np.random.default_rng(0).shuffle(files)  # type: ignore[arg-type]
    return files


def zipped(files: list[Path]) -> bytes:
    """One archive with names that say nothing."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, path in enumerate(files):
            archive.write(path, f"IM{number:05d}")
    return packed.getvalue()
