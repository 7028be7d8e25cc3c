"""Flags: silent on what is sound, each raised by the fault it is for, and explained in the docs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_core.findings.agreement import LEAST_AGREEMENT
from model_core.findings.flags import CODES, SEVERITIES, Flag, by_severity
from model_core.findings.plausibility import Limits, check_plausible
from model_core.findings.quality import brain_of, check
from model_core.imaging.nifti import encode_label_map
from model_core.imaging.study import load_study
from tests.model_core.findings.studies import AFFINE, BRAIN, distance, images, study, tumour

VOXEL_ML = 0.027
Labels = NDArray[np.uint8]


def plausible(labels: Labels, brain: NDArray[np.bool_] = BRAIN) -> dict[str, Flag]:
    return {flag.code: flag for flag in check_plausible(labels, brain, VOXEL_ML, Limits())}


def test_a_tumour_in_a_brain_is_plausible() -> None:
    assert plausible(tumour()) == {}


def test_an_empty_map_is_told() -> None:
    assert set(plausible(np.zeros_like(tumour()))) == {"nothing-found"}


def test_a_third_of_the_brain_is_too_much() -> None:
    labels = np.where(BRAIN & (np.indices(BRAIN.shape)[0] < 21), 2, 0).astype(np.uint8)
    share = labels.astype(bool).sum() / BRAIN.sum()
    assert share > Limits().tumour_share
    flag = plausible(labels)["tumour-too-large"]
    assert flag.value == pytest.approx(share)


def test_labels_where_every_image_is_zero_are_told_with_their_share() -> None:
    labels = tumour()
    labels[0:4, 0:4, 0:4] = 2
    flag = plausible(labels)["outside-brain"]
    assert flag.value == pytest.approx(64 / np.count_nonzero(labels))
    assert "at-image-border" in plausible(labels)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", [0, -1])
def test_each_face_of_the_image_is_its_border(axis: int, end: int) -> None:
    labels = tumour()
    np.moveaxis(labels, axis, 0)[end, 20, 20] = 2
    assert plausible(labels)["at-image-border"].value == 1
    labels = tumour()
    np.moveaxis(labels, axis, 0)[1 if end == 0 else -2, 20, 20] = 2
    assert "at-image-border" not in plausible(labels)


def test_scattered_voxels_are_counted_as_parts() -> None:
    labels = tumour()
    labels[4:44:4, 26:34:4, 12:15:2] = 2
    labels[~BRAIN] = 0
    most = Limits().parts
    assert "many-parts" not in plausible(labels)
    labels[8:40:2, 14:40:2, 18] = 2
    flag = plausible(labels)["many-parts"]
    assert flag.value is not None
    assert flag.value > most


def test_enhancement_that_touches_nothing_is_told_and_a_rim_is_not() -> None:
    vessel = tumour()
    vessel[vessel == 3] = 2
    vessel[30:34, 36:39, 30:33] = 3
    flag = plausible(vessel)["lone-enhancement"]
    assert (flag.subject, flag.value) == ("ET", 1.0)
    beside = vessel.copy()
    beside[29, 35, 29] = 1  # touches it by a corner
    assert "lone-enhancement" not in plausible(beside)
    speck = tumour()
    speck[speck == 3] = 2
    speck[30, 36, 30] = 3
    assert "lone-enhancement" not in plausible(speck)


@pytest.mark.parametrize(("radius", "word"), [(19.0, "cut off"), (27.0, "skull")])
def test_a_brain_of_another_size_is_told_with_what_it_may_mean(radius: float, word: str) -> None:
    brain = distance((23.5, 26.5, 23.5)) < radius
    flag = plausible(tumour(), brain)["brain-volume"]
    assert word in flag.reason
    assert flag.value == pytest.approx(np.count_nonzero(brain) * VOXEL_ML)


def test_the_brain_is_where_some_contrast_is_not_zero() -> None:
    arrays = images()
    arrays["t1"][10:20, 20:30, 20:30] = 0
    np.testing.assert_array_equal(brain_of(study(arrays)), BRAIN)


def test_everything_is_joined_and_the_gravest_comes_first() -> None:
    here, labels = study(), tumour()
    mirrored = labels[::-1]
    encoded = encode_label_map(np.ascontiguousarray(mirrored), like=here.native, scheme="brats2021")
    unsure = {region: limit / 2 for region, limit in LEAST_AGREEMENT.items()}
    flags = check(here, labels, encoded=encoded, agreement=unsure)
    codes = [flag.code for flag in flags]
    assert codes[0] == "geometry-round-trip"
    assert codes.count("mirrored-passes-disagree") == 3
    sound = encode_label_map(labels, like=here.native, scheme="brats2021")
    assert "geometry-round-trip" not in {flag.code for flag in check(here, labels, encoded=sound)}


def test_a_flag_is_plain_json_without_infinities() -> None:
    flag = Flag(code="appearance", severity="review", reason="odd", value=float("inf"), limit=1.5)
    assert json.loads(json.dumps(flag.to_dict(), allow_nan=False))["value"] is None
    assert flag.to_dict()["limit"] == 1.5


def test_order_is_by_severity_and_otherwise_kept() -> None:
    flags = [
        Flag(code="appearance", severity=severity, reason=str(number))
        for number, severity in enumerate(["info", "review", "fail", "review"])
    ]
    assert [flag.reason for flag in by_severity(flags)] == ["2", "1", "3", "0"]
    assert SEVERITIES[0] == "fail"


def test_every_code_is_explained_in_the_guide() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "concepts" / "quality.md").read_text()
    assert not [code for code in CODES if f"`{code}`" not in guide]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["01481", "01485", "01659", "01660"])
def test_true_label_maps_of_cases_that_chose_nothing_raise_no_flag(
    real_cases: Path, case: str
) -> None:
    from model_core.imaging.nifti import read_label_map
    from model_core.imaging.study import find_studies

    (files,) = find_studies(next(real_cases.glob(f"*_{case}")))
    here = load_study(files.paths)
    assert files.truth is not None
    labels, _ = read_label_map(files.truth, argument="truth", on=here.native.grid)
    brain = brain_of(here)
    assert check_plausible(labels, brain, here.native.grid.voxel_ml, Limits()) == ()


def test_the_test_brain_is_on_the_grid_it_claims() -> None:
    assert study().native.grid.voxel_ml == pytest.approx(VOXEL_ML)
    assert abs(np.linalg.det(AFFINE[:3, :3])) == pytest.approx(27)
