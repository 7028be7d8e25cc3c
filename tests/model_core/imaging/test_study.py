from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_core.errors import ImageError, OptionError, StudyError
from model_core.imaging.study import Study, load_study, make_study
from model_core.imaging.volume import Volume
from model_core.types import CONTRASTS
from tests.model_core.imaging.builders import (
    BRATS_AFFINE,
    ORIENTATIONS,
    nifti_bytes,
    oblique_affine,
    random_image,
)

SHAPE = (9, 10, 11)
FAR = np.array([[0, 0, 0, 1.0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])


def volumes(shape: Any = SHAPE, affine: Any = BRATS_AFFINE) -> dict[Any, Volume]:
    return {c: Volume(random_image(shape, n), affine) for n, c in enumerate(CONTRASTS)}


def test_four_files_make_a_study_with_each_contrast_in_its_place() -> None:
    sources = {c: nifti_bytes(v.array, v.affine) for c, v in volumes().items()}
    study = load_study(sources)
    assert study.warnings == ()
    assert study.reference == "t1"
    assert study.native is study.volumes["t1"]
    for contrast, volume in volumes().items():
        np.testing.assert_array_equal(study.volumes[contrast].array, volume.array)


@pytest.mark.parametrize("missing", CONTRASTS)
def test_a_missing_contrast_is_named(missing: Any) -> None:
    given = volumes()
    del given[missing]
    with pytest.raises(StudyError, match=f"{missing}: expected all of t1, t1ce, t2, flair"):
        make_study(given)


def test_an_unknown_contrast_is_refused() -> None:
    with pytest.raises(StudyError, match="no other"):
        make_study({**volumes(), "dwi": volumes()["t1"]})  # type: ignore[dict-item]


def test_an_unknown_reference_is_refused() -> None:
    with pytest.raises(OptionError, match="reference"):
        make_study(volumes(), reference="dwi")  # type: ignore[arg-type]


def test_an_unusable_file_is_named_by_its_contrast() -> None:
    sources = {c: nifti_bytes(v.array, v.affine) for c, v in volumes().items()}
    with pytest.raises(ImageError, match="flair: "):
        load_study({**sources, "flair": b"no image"})


def test_of_several_unusable_files_the_first_contrast_is_named() -> None:
    """Though all are read at once."""
    sources: dict[Any, Any] = dict.fromkeys(("flair", "t2", "t1ce"), b"no image")
    sources["t1"] = nifti_bytes(random_image())
    for _ in range(5):
        with pytest.raises(ImageError, match=r"^t1ce: "):
            load_study(sources)


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (Volume(np.full(SHAPE, 3.0), BRATS_AFFINE), "the same value everywhere"),
        (Volume(np.zeros(SHAPE), BRATS_AFFINE), "the same value everywhere"),
        (Volume(random_image(), np.diag((0.001, 0.001, 0.001, 1))), "0.001×0.001×0.001 mm"),
        (Volume(random_image(), np.diag((1, 1, 11, 1))), "1×1×11 mm"),
        (Volume(random_image(), np.diag((0.5, 1, 1, 1))), "got 4.5 mm"),
        (Volume(random_image(), BRATS_AFFINE + 1e38 * FAR), "origin within 100 m"),
    ],
)
def test_what_cannot_be_a_head_is_refused(volume: Volume, message: str) -> None:
    with pytest.raises(StudyError, match="t2: ") as caught:
        make_study({**volumes(), "t2": volume})
    assert message in str(caught.value)


def test_one_file_given_twice_is_noticed() -> None:
    given = volumes()
    study = make_study({**given, "t1ce": given["t1"]})
    assert study.warnings == ("t1 and t1ce hold the same image: was one file given twice?",)


def test_images_with_skull_are_noticed() -> None:
    given = volumes()
    given["t2"] = Volume(given["t2"].array + 1, BRATS_AFFINE)
    (warning,) = make_study(given).warnings
    assert "skull-stripped" in warning


def test_warnings_of_one_image_name_its_contrast() -> None:
    sources = {c: nifti_bytes(v.array, v.affine) for c, v in volumes().items()}
    sources["t2"] = nifti_bytes(volumes()["t2"].array, qoffset_x=0.5)
    (warning,) = load_study(sources).warnings
    assert warning.startswith("t2: sform and qform differ")


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_a_contrast_in_another_orientation_is_turned_exactly(axcodes: str) -> None:
    given = volumes(affine=oblique_affine())
    study = make_study({**given, "t2": given["t2"].reoriented(axcodes)})
    assert study.warnings == ()
    np.testing.assert_array_equal(study.volumes["t2"].array, given["t2"].array)


def test_another_grid_is_resampled_through_the_world_with_a_warning() -> None:
    fine = np.diag((0.5, 0.5, 0.5, 1.0)) @ np.eye(4)
    fine[:3, 3] = (-9, 0, -1)
    given = volumes(shape=(20, 20, 20), affine=np.diag((1.0, 1, 1, 1)))
    ramp = np.zeros((60, 44, 46))
    ramp += np.arange(60)[:, None, None] * 0.5 - 9 + 100  # world x + 100
    study = make_study({**given, "flair": Volume(ramp, fine)}, reference="t1ce")
    assert study.warnings[-1] == "flair: resampled, as its grid differs from that of t1ce"
    aligned = study.volumes["flair"]
    assert aligned.grid.matches(study.native.grid)
    np.testing.assert_allclose(aligned.array[2:18, 3, 3], np.arange(2, 18) + 100, rtol=1e-5)


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_resampling_gives_the_same_numbers_in_any_orientation(axcodes: str) -> None:
    given = volumes(affine=oblique_affine())
    given["t2"] = Volume(random_image((12, 11, 10), 7), oblique_affine((1.0, 1.0, 2.5)))
    plain = make_study(given).volumes["t2"]
    turned = make_study({c: v.reoriented(axcodes) for c, v in given.items()}).volumes["t2"]
    np.testing.assert_array_equal(turned.array, plain.reoriented(axcodes).array)


def test_images_of_different_places_are_refused() -> None:
    away = BRATS_AFFINE.copy()
    away[0, 3] += 500
    with pytest.raises(StudyError, match="no overlap"):
        make_study({**volumes(), "t2": Volume(random_image(seed=2), away)})


def test_a_study_whose_volumes_do_not_lie_on_one_grid_cannot_exist() -> None:
    given = volumes()
    given["t2"] = Volume(random_image((9, 10, 12)), BRATS_AFFINE)
    with pytest.raises(StudyError, match="t2: expected the grid of t1"):
        Study(given, "t1", given["t1"])


def test_real_studies_need_no_warning(real_cases: Path) -> None:
    for case in ("BraTS2021_00006", "BraTS2021_01657"):
        study = load_study({c: real_cases / case / f"{case}_{c}.nii.gz" for c in CONTRASTS})
        assert study.warnings == ()
        assert study.native.grid.describe() == "240×240×155 voxels of 1×1×1 mm, LPS"
