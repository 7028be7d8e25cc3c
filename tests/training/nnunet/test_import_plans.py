"""What nnU-Net's plans say becomes the card's geometry, or is refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from model_core.checkpoints.nnunet.plans import read_plans, resolve
from model_core.errors import OptionError
from tests.training.nnunet.folders import PLANS


def changed(where: str | None = None, **values: Any) -> dict[str, Any]:
    plans = copy.deepcopy(PLANS)
    target = plans if where is None else plans["configurations"][where]
    target.update(values)
    return plans


def test_a_configuration_inherits_what_it_does_not_say() -> None:
    planned = read_plans(PLANS, "3d_small")
    assert planned.window == (32, 48, 64)
    assert planned.spacing_mm == (1.0, 1.0, 1.0)
    assert planned.normalisation == "zscore-brain"


def test_the_files_axes_are_read_backwards() -> None:
    """SimpleITK hands over (z, y, x): of an LPS file, superior, posterior, left."""
    assert read_plans(PLANS, "3d_small").orientation == "SPL"
    assert read_plans(PLANS, "3d_small", stored="RAS").orientation == "SAR"
    assert read_plans(PLANS, "3d_small", stored="PIR").orientation == "RIP"


def test_the_transposition_permutes_the_axes_that_were_read() -> None:
    plans = changed(transpose_forward=[2, 0, 1])
    assert read_plans(plans, "3d_small").orientation == "LSP"


@pytest.mark.parametrize("reader", ["SimpleITKIOWithReorient", "NibabelIOWithReorient"])
def test_a_reader_that_turns_to_ras_decides_the_orientation(reader: str) -> None:
    plans = changed(image_reader_writer=reader)
    assert read_plans(plans, "3d_small").orientation == "SAR"
    with pytest.raises(OptionError, match="stored: expected RAS"):
        read_plans(plans, "3d_small", stored="LPS")


def test_without_a_mask_the_whole_box_is_normalised() -> None:
    plans = changed("3d_fullres", use_mask_for_norm=[False] * 4)
    assert read_plans(plans, "3d_small").normalisation == "zscore-box"


@pytest.mark.parametrize(
    ("plans", "configuration", "named"),
    [
        (PLANS, "2d", "a 3-D configuration"),
        (changed("3d_small", previous_stage="3d_lowres"), "3d_small", "a stage of a cascade"),
        (changed("3d_fullres", preprocessor_name="Mine"), "3d_small", "preprocessor_name.*Mine"),
        (
            changed("3d_fullres", normalization_schemes=["CTNormalization"] * 4),
            "3d_small",
            "CTNormalization",
        ),
        (
            changed("3d_fullres", use_mask_for_norm=[True, True, False, True]),
            "3d_small",
            "use_mask_for_norm",
        ),
        (changed("3d_fullres", spacing=[1.0, 0.0, 1.0]), "3d_small", "spacing"),
        (changed(image_reader_writer="Tiff3DIO"), "3d_small", "Tiff3DIO"),
        (changed(transpose_forward=[0, 0, 1]), "3d_small", "transpose_forward"),
        (changed(label_manager="MyLabels"), "3d_small", "label_manager.*MyLabels"),
        (PLANS, "3d_none", "3d_none, got 2d, 3d_fullres, 3d_small"),
        (changed("3d_fullres", inherits_from="3d_small"), "3d_small", "configuration"),
    ],
)
def test_what_a_bundle_cannot_do_is_refused_by_name(
    plans: dict[str, Any], configuration: str, named: str
) -> None:
    with pytest.raises(OptionError, match=named):
        read_plans(plans, configuration)


@pytest.mark.parametrize("stored", ["LP", "LPX", "LRS", "lps"])
def test_letters_that_are_no_orientation_are_refused(stored: str) -> None:
    with pytest.raises(OptionError, match="stored"):
        read_plans(PLANS, "3d_small", stored=stored)


def test_the_nearest_setting_wins() -> None:
    assert resolve(PLANS, "3d_small")["patch_size"] == [32, 48, 64]
    assert resolve(PLANS, "3d_small")["batch_size"] == 2
