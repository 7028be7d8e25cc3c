"""The three scan orders visit every voxel once, in the published order."""

from __future__ import annotations

import pytest
import torch

from model_core.errors import ShapeError
from model_core.ops import SCAN_DIRECTIONS, inverse_order, scan_order


@pytest.mark.parametrize("direction", SCAN_DIRECTIONS)
def test_every_token_is_visited_once(direction: str) -> None:
    order = scan_order(direction, 24, 4)  # type: ignore[arg-type]
    visited = torch.arange(24) if order is None else order
    assert visited.sort().values.tolist() == list(range(24))


def test_inter_slice_reads_through_the_slices_at_each_position() -> None:
    order = scan_order("inter_slice", 2 * 3, 2)  # two slices of three voxels
    assert order is not None
    assert order.tolist() == [0, 3, 1, 4, 2, 5]


def test_reverse_reads_backwards() -> None:
    order = scan_order("reverse", 4)
    assert order is not None
    assert order.tolist() == [3, 2, 1, 0]


def test_inverse_undoes_the_order() -> None:
    order = scan_order("inter_slice", 30, 5)
    assert order is not None
    assert order[inverse_order(order)].tolist() == list(range(30))


def test_tokens_must_divide_into_slices() -> None:
    with pytest.raises(ShapeError, match="30 tokens and num_slices=4"):
        scan_order("inter_slice", 30, 4)


def test_an_order_first_asked_for_in_inference_may_be_trained_with() -> None:
    with torch.inference_mode():
        order = scan_order("reverse", 7919)
    assert order is not None
    assert not order.is_inference()
