"""Which images a folder of DICOM files gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_core.errors import ImageError
from model_core.pipeline.images import images_of_dicom
from model_core.types import CONTRASTS
from tests.dicom_series import SeriesRecipe, geometry_affine, uid_of, write_series
from tests.dicom_studies import write_study

SHAPE = (8, 9, 6)


def test_every_contrast_is_found(tmp_path: Path) -> None:
    images = images_of_dicom(write_study(tmp_path))
    assert set(images.volumes) == set(images.series) == set(CONTRASTS)
    assert len({series.uid for series in images.series.values()}) == 4


def test_one_uid_in_two_studies_is_refused(tmp_path: Path) -> None:
    image, affine = np.ones(SHAPE, dtype=np.int16), geometry_affine(shape=SHAPE)
    same = {"SeriesInstanceUID": uid_of("shared")}
    recipes = [SeriesRecipe(study=study, extra=same) for study in ("one", "two")]
    files = [
        path
        for recipe in recipes
        for path in write_series(tmp_path / recipe.study, image, affine, recipe)
    ]
    with pytest.raises(ImageError, match="one UID in two studies"):
        images_of_dicom(files)
