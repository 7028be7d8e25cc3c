"""Connected parts against SciPy's labelling, in shapes from a line to a block."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from model_core.components import Connectivity, bounding_box, connected_components

RANKS = {6: 1, 18: 2, 26: 3}


@pytest.mark.parametrize("connectivity", [6, 18, 26])
@pytest.mark.parametrize("order", ["C", "F"])
@given(mask=hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=7)))
@settings(max_examples=60, deadline=None)
def test_parts_are_those_of_scipy(
    connectivity: Connectivity, order: str, mask: NDArray[np.bool_]
) -> None:
    ids, count = connected_components(np.asarray(mask, order=order), connectivity)
    expected, expected_count = ndimage.label(
        mask, ndimage.generate_binary_structure(3, RANKS[connectivity])
    )
    assert ids.shape == mask.shape
    assert count == expected_count == ids.max(initial=0)
    # the same partition, whatever the numbering: as many pairs of ids as ids
    pairs = set(zip(ids.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(expected))


def test_as_many_parts_as_a_block_can_hold_are_counted() -> None:
    for shape in product(range(1, 8), repeat=3):
        mask = np.zeros(shape, dtype=bool)
        mask[::2, ::2, ::2] = True
        assert connected_components(mask, 26)[1] == np.count_nonzero(mask), shape


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_other_voxel_of_a_line_is_a_part(axis: int) -> None:
    mask = np.moveaxis((np.arange(7) % 2 == 0)[:, None, None], 0, axis)
    ids, count = connected_components(np.ascontiguousarray(mask), 26)
    assert count == 4
    assert ids.ravel().tolist() == [1, 0, 2, 0, 3, 0, 4]


def test_the_bounding_box_is_the_smallest() -> None:
    mask = np.zeros((16, 16, 16), dtype=bool)
    mask[2:5, 0:3, 13:16] = True
    mask[3, 1, 14] = False
    assert bounding_box(mask) == (slice(2, 5), slice(0, 3), slice(13, 16))


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.tuples(st.integers(0, 5), st.integers(1, 5))] * 3),
)
def test_a_box_is_found_again(extent: tuple[tuple[int, int], ...]) -> None:
    box = tuple(slice(start, start + size) for start, size in extent)
    mask = np.zeros((10, 10, 10), dtype=bool)
    mask[box] = True
    assert bounding_box(mask) == box
