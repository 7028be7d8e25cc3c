"""Augmentation keeps image and labels together and the background where it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.augment import Augment, Plan
from training.config import Augmentation
from training.sampler import crop

NO_AUGMENTATION = Augmentation(flip=0, affine=0, intensity=0, noise=0, blur=0, low_resolution=0)


PATCH = (24, 24, 24)
STILL = Plan(rotation=None, zoom=1.0, flips=(), intensity_seed=0)


def ball(size: int = 64, radius: float = 7.0) -> np.ndarray:
    axis = np.arange(size) - (size - 1) / 2
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    return (x**2 + (y / 0.6) ** 2 + z**2 <= radius**2).astype(np.uint8)


def carried_out(plan: Plan, settings: Augmentation = NO_AUGMENTATION) -> tuple[torch.Tensor, ...]:
    """`plan` on a patch whose image is twice its labels."""
    augment, labels = Augment(settings, PATCH), ball()
    size, start = augment.source_region(plan, (20, 20, 20))
    region = crop(labels[None], start, size, fill=(0,))
    image = torch.from_numpy(np.repeat(region, 4, axis=0).astype(np.float32) * 2)
    return augment.apply(plan, image, torch.from_numpy(region[0]), background=(0.0,) * 4)


def test_a_still_plan_changes_nothing() -> None:
    image, labels = carried_out(STILL)
    np.testing.assert_array_equal(labels, ball()[20:44, 20:44, 20:44])
    assert torch.equal(image[1], labels * 2.0)


def test_flips_move_image_and_labels_alike() -> None:
    image, labels = carried_out(replace(STILL, flips=(0, 2)))
    assert torch.equal(image[0], labels * 2.0)
    assert torch.equal(labels, carried_out(STILL)[1].flip(0, 2))


@pytest.mark.parametrize("rotation", [(0.3, 0.0, 0.0), (0.1, -0.3, 0.2)])
def test_an_affine_moves_image_and_labels_alike(rotation: tuple[float, float, float]) -> None:
    image, labels = carried_out(replace(STILL, rotation=rotation))
    assert labels.shape == PATCH
    assert float(((image[0] > 1) != (labels > 0)).float().mean()) < 0.01
    assert not torch.equal(labels, carried_out(STILL)[1])


@pytest.mark.parametrize("zoom", [0.8, 1.25])
def test_zoom_above_one_enlarges(zoom: float) -> None:
    before = carried_out(STILL)[1].sum()
    after = carried_out(replace(STILL, rotation=(0.0, 0.0, 0.0), zoom=zoom))[1].sum()
    assert float(after / before) == pytest.approx(zoom**3, rel=0.1)


def test_a_quarter_turn_is_a_quarter_turn() -> None:
    turned = carried_out(replace(STILL, rotation=(float(np.pi / 2), 0.0, 0.0)))[1]
    expected = torch.rot90(carried_out(STILL)[1], 1, (1, 2))
    assert float((turned != expected).float().mean()) < 0.01


def test_a_rotated_patch_has_no_empty_corners() -> None:
    augment = Augment(NO_AUGMENTATION, PATCH)
    plan = replace(STILL, rotation=(0.35, -0.35, 0.35), zoom=0.8)
    size, _ = augment.source_region(plan, (0, 0, 0))
    image, labels = torch.ones(4, *size), torch.ones(size, dtype=torch.uint8)
    moved, moved_labels = augment.apply(plan, image, labels, background=(0.0,) * 4)
    torch.testing.assert_close(moved, torch.ones(4, *PATCH))
    assert bool((moved_labels == 1).all())


def test_intensities_change_inside_the_brain_only_and_per_contrast() -> None:
    loud = Augmentation(intensity=1.0, noise=1.0, blur=1.0, low_resolution=1.0)
    image, labels = carried_out(replace(STILL, intensity_seed=5), loud)
    untouched, _ = carried_out(STILL)
    inside = labels > 0
    assert torch.equal(image[:, ~inside], untouched[:, ~inside])
    assert not torch.equal(image[:, inside], untouched[:, inside])
    assert not torch.equal(image[0], image[1])
    assert type(image) is torch.Tensor


def test_equal_seeds_give_equal_intensities() -> None:
    loud = Augmentation(intensity=1.0, noise=1.0)
    plan = replace(STILL, intensity_seed=5)
    assert torch.equal(carried_out(plan, loud)[0], carried_out(plan, loud)[0])
    assert not torch.equal(
        carried_out(plan, loud)[0], carried_out(replace(plan, intensity_seed=6), loud)[0]
    )


def test_probabilities_are_kept() -> None:
    augment = Augment(Augmentation(affine=0.2, flip=0.5), PATCH)
    rng = np.random.default_rng(0)
    plans = [augment.draw(rng) for _ in range(1000)]
    assert np.mean([plan.rotation is not None for plan in plans]) == pytest.approx(0.2, abs=0.04)
    assert np.mean([len(plan.flips) for plan in plans]) == pytest.approx(1.5, abs=0.1)
