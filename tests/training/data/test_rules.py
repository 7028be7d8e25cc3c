"""The rules of planning, on numbers that can be checked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.rules import (
    first_patch,
    largest_batch,
    resampled_shapes,
    shrink,
    slice_axis,
    target_spacing,
)

sizes = st.integers(16, 600)
lengths = st.floats(0.3, 8)


def test_the_spacing_is_the_median_along_each_axis() -> None:
    spacing, reason = target_spacing(
        [(100, 100, 100)] * 3, [(1.0, 0.5, 2.0), (1.2, 0.6, 2.0), (3.0, 0.7, 2.5)]
    )
    assert spacing == (1.2, 0.6, 2.0)
    assert "10th" not in reason


def test_thick_slices_are_resampled_to_the_thinner_among_them() -> None:
    spacings = [(mm, 0.5, 0.5) for mm in (1.5, 5.0, 5.0, 5.0, 5.0, 6.0, 6.0, 6.0, 6.0, 6.0, 6.0)]
    spacing, reason = target_spacing([(30, 512, 512)] * 11, spacings)
    assert spacing == (5.0, 0.5, 0.5)  # the 10th percentile of eleven is the second
    assert "10th percentile" in reason


def test_thick_slices_never_become_thinner_than_the_pixels_are_wide() -> None:
    spacings = [(0.1, 0.5, 0.5), (0.1, 0.5, 0.5), *[(5.0, 0.5, 0.5)] * 4]
    spacing, _ = target_spacing([(30, 512, 512)] * 6, spacings)
    assert spacing == (0.5, 0.5, 0.5)


def test_a_coarse_axis_with_many_voxels_keeps_the_median() -> None:
    spacing, reason = target_spacing([(400, 512, 512)] * 3, [(2.0, 0.5, 0.5)] * 3)
    assert spacing == (2.0, 0.5, 0.5)
    assert "10th" not in reason


def test_slices_are_cut_where_the_voxels_are_thick() -> None:
    assert slice_axis((1.0, 1.0, 5.0)) == 2
    assert slice_axis((5.0, 1.0, 1.0)) == 0
    assert slice_axis((1.0, 1.02, 1.0)) == 0


def test_resampled_shapes_keep_the_extent() -> None:
    assert resampled_shapes([(10, 20, 30)], [(2.0, 1.0, 0.5)], (1.0, 1.0, 1.0)) == [(20, 20, 15)]
    assert resampled_shapes([(1, 4, 4)], [(1.0, 1.0, 1.0)], (9.0, 1.0, 1.0)) == [(1, 4, 4)]


def test_the_first_patch_has_equal_sides_in_millimetres() -> None:
    assert first_patch((999,) * 3, (1.0, 1.0, 1.0), multiple=16, dims=3) == (256, 256, 256)
    assert first_patch((999,) * 3, (4.0, 1.0, 1.0), multiple=16, dims=3) == (112, 416, 416)
    assert first_patch((40, 999, 999), (1.0, 0.5, 0.5), multiple=8, dims=2) == (1, 1000, 1000)


@given(median=st.tuples(sizes, sizes, sizes), spacing=st.tuples(lengths, lengths, lengths))
def test_a_patch_is_in_multiples_and_hardly_larger_than_the_image(
    median: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    patch = first_patch(median, spacing, multiple=16, dims=3)
    for size, whole in zip(patch, median, strict=True):
        assert size % 16 == 0
        assert 0 < size < whole + 16


@given(
    median=st.tuples(sizes, sizes, sizes),
    budget=st.integers(2 * 32**3, 2 * 300**3),
    dims=st.sampled_from([2, 3]),
)
def test_a_shrunk_patch_fits_and_one_step_more_would_not(
    median: tuple[int, int, int], budget: int, dims: Any
) -> None:
    def fits(patch: tuple[int, int, int], batch: int) -> bool:
        return math.prod(patch) * batch <= budget

    wanted = first_patch(median, (1.0, 1.0, 1.0), multiple=16, dims=dims)
    patch = shrink(wanted, median, fits, multiple=16, dims=dims)
    assert patch is not None
    assert fits(patch, 2)
    assert all(size % 16 == 0 for size in patch[3 - dims :])
    assert all(size <= first for size, first in zip(patch, wanted, strict=True))
    if patch != wanted:
        larger = [
            tuple(size + 16 * (axis == grown) for axis, size in enumerate(patch))
            for grown in range(3 - dims, 3)
            if patch[grown] < wanted[grown]
        ]
        assert not all(fits(one, 2) for one in larger)  # type: ignore[arg-type]


def test_the_axis_that_covers_most_of_the_image_is_cut_first() -> None:
    def fits(patch: tuple[int, int, int], batch: int) -> bool:
        return math.prod(patch) <= 64 * 64 * 48

    assert shrink((64, 64, 64), (64, 640, 640), fits, multiple=16, dims=3) == (48, 64, 64)


def test_nothing_fits_is_told() -> None:
    assert shrink((64, 64, 64), (64, 64, 64), lambda *_: False, multiple=16, dims=3) is None


@pytest.mark.parametrize(
    ("voxels", "room", "batch", "why"),
    [
        (1e9, 2, 2, "memory goes into the patch"),
        (1e9, 7, 7, "fit into memory"),
        (10 * 20 * 1000, 99, 10, "as many as hold 5%"),
        (1000, 99, 2, "two patches hold 5%"),
    ],
)
def test_the_batch_is_what_memory_and_a_twentieth_of_the_data_allow(
    voxels: float, room: int, batch: int, why: str
) -> None:
    got, reason = largest_batch((10, 10, 10), voxels, lambda _, wanted: wanted <= room)
    assert got == batch
    assert why in reason
