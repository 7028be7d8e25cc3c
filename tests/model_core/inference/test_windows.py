"""Placement of windows: coverage, containment, and agreement with MONAI."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import dense_patch_slices

from model_core.errors import OptionError
from model_core.inference.windows import WindowPlan, padding_to, plan_windows, window_starts

sizes = st.integers(1, 300)
overlaps = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.625, 0.75, 0.9, 0.999])


@settings(deadline=None)
@given(size=sizes, window=sizes, overlap=overlaps)
def test_every_voxel_lies_in_a_window_and_no_window_leaves_the_image(size, window, overlap):
    window = min(window, size)
    starts = window_starts(size, window, overlap)
    assert starts[0] == 0
    assert starts[-1] == size - window
    steps = [b - a for a, b in pairwise(starts)]
    assert all(1 <= step <= window for step in steps)


@pytest.mark.parametrize(
    ("size", "window", "overlap", "expected"),
    [
        (10, 10, 0.5, (0,)),
        (11, 10, 0.5, (0, 1)),
        (10, 4, 0.5, (0, 2, 4, 6)),
        (11, 4, 0.5, (0, 2, 4, 6, 7)),
        (10, 4, 0.0, (0, 4, 6)),
        (8, 4, 0.0, (0, 4)),
        (5, 2, 0.99, (0, 1, 2, 3)),
    ],
)
def test_starts_are_equal_steps_with_the_last_window_moved_back(size, window, overlap, expected):
    assert window_starts(size, window, overlap) == expected


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 50)] * 3),
    window=st.tuples(*[st.integers(8, 40)] * 3),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
)
def test_placement_and_order_equal_monai(shape, window, overlap):
    sides = tuple(min(w, s) for w, s in zip(window, shape, strict=True))
    steps = [
        w if w == s else max(int(w * (1 - overlap)), 1) for w, s in zip(sides, shape, strict=True)
    ]
    expected = dense_patch_slices(shape, sides, steps)
    assert list(plan_windows(shape, window, overlap)) == expected


def test_padding_keeps_the_image_in_the_middle():
    assert padding_to((10, 7, 4), (8, 8, 8)) == ((0, 0), (0, 1), (2, 2))


@pytest.mark.parametrize(
    ("multiple", "expected"),
    [(1, (20, 32, 33)), (16, (32, 32, 48)), ((8, 16, 1), (24, 32, 33))],
)
def test_windows_are_raised_to_the_networks_multiple(multiple, expected):
    plan = WindowPlan(window=(20, 32, 33), overlap=0.25, batch=3, blend="constant")
    raised = plan.rounded_up(multiple)
    assert raised == WindowPlan(window=expected, overlap=0.25, batch=3, blend="constant")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("window", ()),
        ("window", (4, 0, 4)),
        ("overlap", 1.0),
        ("overlap", -0.1),
        ("overlap", float("nan")),
        ("batch", 0),
        ("blend", "hann"),
    ],
)
def test_a_plan_that_exists_is_valid(argument, value):
    with pytest.raises(OptionError) as error:
        WindowPlan(**{"window": (4, 4, 4), argument: value})
    assert error.value.argument == argument
