"""Only public pseudonyms leave the run's own folder."""

from __future__ import annotations

import re

import pytest

from training.naming import all_brats_2021, all_brats_glioma, bundle_name, shown_names


def test_a_name_that_may_be_a_patients_is_replaced_by_its_position() -> None:
    names = ["BraTS2021_00006", "Miller^Anna", "BraTS2021_00006_Miller", "BraTS-GLI-00001-000"]
    assert shown_names(names) == ("BraTS2021_00006", "case 2", "case 3", "BraTS-GLI-00001-000")


def test_the_data_are_only_called_brats_when_all_of_them_are() -> None:
    assert all_brats_2021(["BraTS2021_00006", "BraTS2021_01476"])
    assert not all_brats_2021(["BraTS2021_00006", "local-1"])
    assert all_brats_glioma(["BraTS-GLI-00001-000"])
    assert not all_brats_glioma(["BraTS-GLI-00001-000", "BraTS-MEN-00001-000"])


@pytest.mark.parametrize(
    ("wanted", "name"),
    [("run", "run"), ("My Run 7", "my-run-7"), ("..x_Y.2", "x_y.2"), ("ééé", "model")],
)
def test_any_words_make_a_bundle_name(wanted: str, name: str) -> None:
    assert bundle_name(wanted) == name
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name)
