from __future__ import annotations

import numpy as np
import pytest

from model_core.imaging.volume import Volume
from model_core.preparation.rigid import moved
from model_core.preparation.similarity import Look, foreground, normalised_information
from tests.model_core.preparation.builders import head, head_affine, movement


def test_an_image_and_itself_have_everything_in_common() -> None:
    values = np.random.default_rng(0).uniform(0, 1, 20_000)
    assert normalised_information(values, values) == pytest.approx(2.0)


def test_unrelated_values_have_hardly_anything_in_common() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.uniform(0, 1, (2, 400_000))
    assert 1.0 <= normalised_information(first, second) < 1.001


def test_it_does_not_matter_what_the_values_are_called() -> None:
    first, second = head("t1").array.ravel(), head("t2").array.ravel()
    plain = normalised_information(first, second)
    assert normalised_information(1000 - 2 * first, second) == pytest.approx(plain, abs=5e-3)


def test_too_few_values_tell_nothing() -> None:
    assert normalised_information(np.arange(100.0), np.arange(100.0)) == 1.0


def test_a_head_tells_most_where_it_lies_on_itself() -> None:
    look, moving = Look(head("t1ce")), head("t2")
    here = look.information(moving)
    for shift in [(6, 0, 0), (0, -6, 0), (0, 0, 6)]:
        assert look.information(moved(moving, movement((0, 0, 0), shift))) < here - 0.02


def test_the_covered_share_is_that_of_the_head() -> None:
    look, moving = Look(head("t1ce")), head("t2")
    assert look.covered(moving) == 1.0
    half = Volume(moving.array[:, :, 25:], moving.grid.cropped((0, 0, 25), (54, 62, 25)).affine)
    assert look.covered(half) == pytest.approx(0.5, abs=0.05)
    assert look.covered(moved(moving, movement((0, 0, 0), (900, 0, 0)))) == 0.0


def test_the_foreground_is_the_head() -> None:
    mask = foreground(head("t1").array)
    assert not mask[0].any()
    assert mask[27, 31, 15]
    assert 0.2 < mask.mean() < 0.5


def test_a_constant_image_has_no_foreground() -> None:
    assert not foreground(np.full((4, 4, 4), 7.0)).any()
    flat = Volume(np.full((40, 40, 40), 7.0), head_affine((40, 40, 40)))
    assert Look(flat).covered(flat) == 0.0
