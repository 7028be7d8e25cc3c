"""DICOM studies of a phantom, as a scanner would name and time their series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from model_core.dicom.facts import SeriesFacts
from model_core.imaging.volume import Volume
from model_core.types import Contrast
from tests.dicom_series import T1_FACTS, SeriesRecipe, series_uid, write_enhanced, write_series

FACTS: Mapping[Contrast, SeriesFacts] = {
    "t1": replace(T1_FACTS, description="t1_mprage_sag nativ"),
    "t1ce": replace(
        T1_FACTS,
        description="t1_mprage_sag nach KM",
        contrast_agent="GADOVIST",
        number=9,
        acquired=38_000.0,
    ),
    "t2": replace(
        T1_FACTS,
        description="t2_tse_tra",
        scanning_sequence=("SE",),
        sequence_variant=("SK", "SP"),
        sequence_name="*tse2d1_15",
        echo_time_ms=96.0,
        repetition_time_ms=5000.0,
        inversion_time_ms=None,
        number=4,
    ),
    "flair": replace(
        T1_FACTS,
        description="t2_tirm_tra_dark-fluid",
        scanning_sequence=("SE", "IR"),
        sequence_name="*tir2d1_16",
        echo_time_ms=93.0,
        repetition_time_ms=9000.0,
        inversion_time_ms=2500.0,
        number=5,
    ),
}


def recipe(contrast: Contrast, study: str = "study") -> SeriesRecipe:
    """How the series of a contrast is written."""
    return SeriesRecipe(facts=FACTS[contrast], study=study, seed=contrast)


def uid(contrast: Contrast, study: str = "study") -> str:
    """The uid of that series."""
    return series_uid(recipe(contrast, study))


def write_study(
    folder: Path, volumes: Mapping[Contrast, Volume], study: str = "study"
) -> tuple[Path, ...]:
    """Write one series for each contrast that is given, slice by slice."""
    return tuple(
        path
        for contrast, volume in volumes.items()
        for path in write_series(folder, volume.array, volume.affine, recipe(contrast, study))
    )


def write_enhanced_study(
    folder: Path, volumes: Mapping[Contrast, Volume], study: str = "study"
) -> tuple[Path, ...]:
    """Write one file for each contrast that is given, named after it."""
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(
        write_enhanced(
            folder / f"{contrast}.dcm", volume.array, volume.affine, recipe(contrast, study)
        )
        for contrast, volume in volumes.items()
    )
