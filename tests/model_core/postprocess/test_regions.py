"""Corrections of label maps that are not BraTS: their own regions, and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_core.errors import OptionError
from model_core.labels import region_mask
from model_core.postprocess import (
    GLIOMA,
    RegionRule,
    RegionRules,
    apply_steps,
    fill_holes,
    keep_largest,
    parse_steps,
    relabel_small_et,
    remove_small_components,
)

MM = (1.0, 1.0, 1.0)
LIVER, TUMOUR, SPLEEN = 1, 2, 3
ABDOMEN = RegionRules(
    labels=("liver", "tumour", "spleen"),
    regions={
        "organ": RegionRule(labels=(LIVER, TUMOUR), joining=LIVER),
        "tumour": RegionRule(labels=(TUMOUR,), leaving=LIVER, joining=TUMOUR, fillable=(0, LIVER)),
        "spleen": RegionRule(labels=(SPLEEN,), joining=SPLEEN),
    },
    flat=True,
)


def line(*values: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.array(values, dtype=np.uint8).reshape(-1, 1, 1)


def picture(*rows: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A map (1, H, W) drawn with digits."""
    return np.array([[int(value) for value in row] for row in rows], np.uint8)[None]


def test_what_leaves_an_inner_region_joins_the_one_around_it() -> None:
    labels = line(1, 2, 1, 2, 2, 0, 3, 2)
    kept = remove_small_components(labels, MM, ABDOMEN, region="tumour", min_voxels=2)
    assert kept.ravel().tolist() == [1, 1, 1, 2, 2, 0, 3, 1]
    kept = keep_largest(labels, MM, ABDOMEN, region="organ")
    assert kept.ravel().tolist() == [1, 2, 1, 2, 2, 0, 3, 0]


def test_a_hole_is_never_filled_over_a_structure_that_does_not_enclose_it() -> None:
    labels = picture("11111", "10301", "11111")
    filled = fill_holes(labels, MM, ABDOMEN, region="organ")
    np.testing.assert_array_equal(filled, picture("11111", "11311", "11111"))


def test_a_picture_has_holes_in_its_plane_and_a_slice_of_a_volume_has_none() -> None:
    ring = picture("02220", "02120", "02220")
    filled = fill_holes(ring, MM, ABDOMEN, region="tumour")
    np.testing.assert_array_equal(filled, picture("02220", "02220", "02220"))
    sheet = picture("02220", "02020", "02220")
    np.testing.assert_array_equal(fill_holes(sheet, MM, GLIOMA, region="WT"), sheet)


def test_a_cavity_at_the_edge_of_a_picture_stays() -> None:
    labels = picture("2020", "2222")
    np.testing.assert_array_equal(fill_holes(labels, MM, ABDOMEN, region="tumour"), labels)


def test_steps_are_checked_against_the_regions_they_are_for() -> None:
    stored = [{"name": "keep_largest", "params": {"region": "spleen"}}]
    (step,) = parse_steps(stored, rules=ABDOMEN)
    assert step.model_dump() == stored[0]
    with pytest.raises(OptionError, match="one of WT, TC, ET, got 'spleen'") as caught:
        parse_steps(stored)
    assert caught.value.argument == "postprocess[0].params.region"
    with pytest.raises(OptionError, match="one of organ, tumour, spleen, got 'ET'"):
        relabel_small_et(line(1), MM, ABDOMEN, min_voxels=2)


def test_the_report_names_the_task_s_own_labels() -> None:
    steps = parse_steps([{"name": "keep_largest", "params": {"region": "spleen"}}], rules=ABDOMEN)
    _, (report,) = apply_steps(line(3, 3, 0, 3, 1), (1.0, 2.0, 5.0), steps, ABDOMEN)
    assert report.voxels_before == {"liver": 1, "tumour": 0, "spleen": 3}
    assert report.ml_after == {"liver": 0.01, "tumour": 0.0, "spleen": 0.02}


@pytest.mark.parametrize("region", ["WT", "TC", "ET"])
def test_the_glioma_rules_mean_the_regions_of_brats(region: Any) -> None:
    labels = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    np.testing.assert_array_equal(GLIOMA.mask(labels, region), region_mask(labels, region))
