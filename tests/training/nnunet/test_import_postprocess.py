"""nnU-Net's correction is translated; another function is left out aloud."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_core.checkpoints.nnunet.postprocess import read_postprocessing
from model_core.errors import OptionError
from model_core.postprocess import apply_steps, parse_steps
from tests.training.nnunet.folders import corrections

TISSUES = {1: "ED", 2: "NCR", 3: "ET"}


@pytest.mark.parametrize("whole", [[1, 2, 3], [[1, 2, 3]], [3, 1, 2], [[1], [2, 3]]])
def test_all_of_the_tumour_is_all_its_labels(whole: list[Any]) -> None:
    steps, warnings = read_postprocessing(corrections(whole), TISSUES)
    assert steps == ({"name": "keep_largest_of", "params": {"names": ["ED", "ET", "NCR"]}},)
    assert warnings == ()


def test_the_step_does_what_nnunet_does() -> None:
    """The largest component by 26 neighbours stays, the rest becomes background."""
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[1:3, 1:3, 1:3] = 2
    labels[3, 3, 3] = 3  # touches by a corner only
    labels[6, 6, 6] = 1
    steps, _ = read_postprocessing(corrections([1, 2, 3]), TISSUES)
    kept, _ = apply_steps(labels, (1.0, 1.0, 1.0), parse_steps(steps))
    labels[6, 6, 6] = 0
    assert np.array_equal(kept, labels)


@pytest.mark.parametrize(
    ("part", "left"),
    [
        (3, [1, 2, 0, 2, 3, 3]),
        ([2, 3], [0, 2, 0, 2, 3, 3]),
        ([[2, 3]], [0, 2, 0, 2, 3, 3]),
        (1, [1, 2, 3, 2, 3, 3]),  # equals stay
    ],
)
def test_a_part_of_the_tumour_leaves_holes_as_in_nnunet(part: Any, left: list[int]) -> None:
    labels = np.array([1, 2, 3, 2, 3, 3], np.uint8).reshape(-1, 1, 1)  # 1 NCR, 2 ED, 3 ET
    steps, warnings = read_postprocessing(corrections(part), TISSUES)
    kept, _ = apply_steps(labels, (1.0, 1.0, 1.0), parse_steps(steps))
    assert kept.ravel().tolist() == left
    assert warnings == ()


def test_an_unknown_function_is_left_out_with_its_name() -> None:
    content = corrections([1, 2, 3], function="my_trick")
    steps, warnings = read_postprocessing(content, TISSUES)
    assert steps == ()
    assert "my_trick" in warnings[0]


def test_no_correction_is_no_step() -> None:
    assert read_postprocessing(corrections(), TISSUES) == ((), ())


@pytest.mark.parametrize(
    "content",
    [{}, {"postprocessing_fns": [], "postprocessing_kwargs": [{}]}, corrections([1, 2, 9])],
)
def test_another_file_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"postprocessing\.json"):
        read_postprocessing(content, TISSUES)
