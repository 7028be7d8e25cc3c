from __future__ import annotations

import json

import numpy as np
import pytest

from model_core.errors import StudyError
from model_core.imaging.volume import Volume
from model_core.preparation import alignment as module
from model_core.preparation.alignment import align
from model_core.preparation.register import Found, NotFound
from model_core.preparation.rigid import moved
from tests.model_core.preparation.builders import SHAPE, acquired, head, head_affine, movement


def placed(monkeypatch: pytest.MonkeyPatch, matrix: np.ndarray) -> None:
    """Let the registration end at this place, so that its judge can be judged."""
    monkeypatch.setattr(module, "register", lambda *_, **__: Found(matrix=matrix, start="headers"))


def test_a_good_registration_is_used_and_told_in_numbers() -> None:
    truth = movement((6, -5, 8), (6, -4, 5))
    found = align(head("t1ce"), acquired(head("t2"), truth), contrast="t2")
    assert not found.kept
    assert found.after > found.before + 0.03
    assert found.covered > 0.95
    assert found.rotation_deg == pytest.approx(11.2, abs=0.5)
    assert found.loss > 0.3
    told = json.loads(json.dumps(found.figures()))
    np.testing.assert_allclose(told["moving_to_fixed_ras_mm"], found.matrix, atol=1e-6)
    assert told["normalised_mutual_information"]["after"] == round(found.after, 4)


def test_images_that_lie_on_each_other_already_are_left_alone() -> None:
    found = align(head("t1ce"), head("flair"), contrast="flair")
    assert found.kept
    np.testing.assert_array_equal(found.matrix, np.eye(4))
    assert found.displacement_mm < 0.5


def test_an_image_on_another_grid_is_placed_however_little_it_moves() -> None:
    moving = acquired(head("t2"), np.eye(4), head("t2").grid.cropped((1, 1, 1), (70, 82, 64)))
    assert not align(head("t1ce"), moving, contrast="t2").kept


def test_noise_is_no_image_of_the_same_head() -> None:
    noise = np.random.default_rng(0).uniform(0, 900, SHAPE).astype(np.float32)
    with pytest.raises(StudyError, match="flair: expected an image of the same head"):
        align(head("t1ce"), Volume(noise, head_affine()), contrast="flair")


@pytest.mark.parametrize(
    ("was", "told"),
    [
        (movement((0, 0, 60), (0, 0, 0)), "a turn of 60°"),
        (movement((0, 0, 0), (0, 0, 600)), "shows"),
    ],
)
def test_an_implausible_end_is_refused(
    was: np.ndarray, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image was far off; the registration takes it back, or nearly so far as to meet."""
    placed(
        monkeypatch, np.linalg.inv(was) if told != "shows" else movement((0, 0, 0), (0, 0, -450))
    )
    with pytest.raises(StudyError, match=told):
        align(head("t1ce"), moved(head("t2"), was), contrast="t2")


def test_headers_are_believed_where_registration_finds_nothing_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    placed(monkeypatch, movement((0, 0, 0), (0, 25, 0)))
    found = align(head("t1ce"), head("t2"), contrast="t2")
    assert found.kept
    assert found.after == found.before
    np.testing.assert_array_equal(found.matrix, np.eye(4))


def test_images_that_never_meet_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object, **__: object) -> Found:
        raise NotFound

    monkeypatch.setattr(module, "register", nowhere)
    with pytest.raises(StudyError, match="never meet"):
        align(head("t1ce"), head("t2"), contrast="t2")
