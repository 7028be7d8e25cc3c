"""Names in ``dataset.json`` decide which channel is which contrast and which value which tissue."""

from __future__ import annotations

from typing import Any

import pytest

from model_core.checkpoints.nnunet.labels import read_labels
from model_core.errors import OptionError
from tests.training.nnunet.folders import LABELS, REGIONS


def test_regions_are_outputs_in_the_order_of_the_file() -> None:
    meaning = read_labels(REGIONS)
    assert meaning.heads == "regions"
    assert meaning.outputs == ("WT", "TC", "ET")
    assert meaning.channels == ("t1", "t1ce", "t2", "flair")
    assert meaning.tissues == {1: "ED", 2: "NCR", 3: "ET"}


def test_labels_are_outputs_by_ascending_value() -> None:
    """nnU-Net gives channel k to the k-th value, whatever the order of the file."""
    shuffled = {"enhancing tumour": 3, "background": 0, "non-enhancing tumor": 2, "edema": 1}
    meaning = read_labels(LABELS | {"labels": shuffled})
    assert meaning.heads == "labels"
    assert meaning.outputs == ("background", "ED", "NCR", "ET")
    assert meaning.channels == ("flair", "t1", "t1ce", "t2")


@pytest.mark.parametrize(
    "names",
    [
        ("T1", "T1ce", "T2", "FLAIR"),
        ("t1n", "t1c", "t2w", "t2f"),
        ("T1w", "T1Gd", "T2w", "Flair"),
        ("T1-native", "T1 post-contrast", "T2", "T2-FLAIR"),
    ],
)
def test_every_usual_name_of_a_contrast_is_known(names: tuple[str, ...]) -> None:
    channels = {str(number): name for number, name in enumerate(names)}
    read = read_labels(REGIONS | {"channel_names": channels})
    assert read.channels == ("t1", "t1ce", "t2", "flair")


@pytest.mark.parametrize(
    "names",
    [
        ("NCR", "ED", "ET"),
        ("necrotic core", "peritumoral edema", "enhancing tumor"),
        ("NETC", "SNFH", "ET"),
        ("Necrosis/non-enhancing", "Oedema", "contrast-enhancing tumour"),
    ],
)
def test_every_usual_name_of_a_tissue_is_known(names: tuple[str, ...]) -> None:
    labels = {"background": 0} | {name: value for value, name in enumerate(names, start=1)}
    assert read_labels(LABELS | {"labels": labels}).outputs == ("background", "NCR", "ED", "ET")


def test_the_ignore_label_has_no_output() -> None:
    labels = LABELS["labels"] | {"ignore": 4}
    assert read_labels(LABELS | {"labels": labels}).outputs == ("background", "ED", "NCR", "ET")


def test_the_brats_2023_numbering_paints_in_another_order() -> None:
    regions = {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": 3}
    meaning = read_labels(REGIONS | {"labels": regions, "regions_class_order": [2, 1, 3]})
    assert meaning.tissues == {1: "NCR", 2: "ED", 3: "ET"}


FOUR = {"background": 0, "NCR": 1, "ED": 2, "ET": 3, "RC": 4}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"channel_names": {"0": "T1", "1": "T1ce", "2": "T2"}}, "channel_names"),
        ({"channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "ADC"}}, "T1, T1ce, T2, ADC"),
        ({"channel_names": {"0": "T1", "1": "T1", "2": "T2", "3": "FLAIR"}}, "T1, T1, T2, FLAIR"),
        ({"labels": FOUR}, "one label each for NCR, ED and ET"),
        ({"labels": {"background": 0, "liver": 1, "tumour": 2, "ET": 3}}, "liver"),
        ({"labels": {"background": 1, "NCR": 0}}, "background 0"),
        ({"labels": {"background": 0, "WT": [1, 2, 3], "TC": [1, 2], "ET": [3]}}, "WT ⊃|whole"),
        ({"labels": {"background": 0, "TC": [2, 3], "WT": [1, 2, 3], "ET": [3]}}, "so ordered"),
        ({"regions_class_order": [2, 1, 3]}, "regions_class_order"),
        ({"labels": {"background": 0, "WT": [1, "2"], "TC": [1], "ET": [2]}}, "labels: WT"),
    ],
)
def test_other_channels_and_labels_are_refused(change: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        read_labels(REGIONS | change)
