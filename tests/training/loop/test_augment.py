"""Augmentation keeps image and labels together and the background where it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.config import Augmentation
from training.loop.augment import Augment, Plan
from training.loop.sampler import crop

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


def brain(channels: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """A patch of positive values with a background of 0, and labels."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.from_numpy(ball(24, 9.0))
    image = torch.rand(channels, *labels.shape, generator=draw) + 1
    return image * (labels > 0), labels


def recoloured(settings: Augmentation, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """The voxels inside the brain before and after."""
    image, labels = brain()
    plan = replace(STILL, intensity_seed=seed)
    changed, _ = Augment(settings, PATCH).apply(plan, image.clone(), labels, background=(0.0,) * 4)
    assert torch.equal(changed[:, labels == 0], image[:, labels == 0])
    return image[:, labels > 0], changed[:, labels > 0]


def test_contrast_spreads_values_by_one_factor_for_each_channel_and_keeps_their_range() -> None:
    before, after = recoloured(replace(NO_AUGMENTATION, contrast=1.0))
    factors = set()
    for old, new in zip(before, after, strict=True):
        rising = new[old.argsort()]
        assert bool((rising.diff() >= 0).all())
        assert float(new.max()) <= float(old.max()) + 1e-5
        middle = slice(len(old) * 2 // 5, len(old) * 3 // 5)  # clipping is at the ends
        ordered = old.sort().values
        spread = (rising[middle].max() - rising[middle].min()) / (
            ordered[middle].max() - ordered[middle].min()
        )
        assert 0.75 <= float(spread) <= 1.25
        factors.add(round(float(spread), 3))
    assert len(factors) == 4


def test_inverted_gamma_bends_the_negative_image() -> None:
    before, after = recoloured(replace(NO_AUGMENTATION, inverted_gamma=1.0))
    for old, new in zip(before, after, strict=True):
        assert not torch.allclose(old, new)
        assert torch.equal(new.argsort(), old.argsort())


def test_new_changes_leave_the_older_ones_as_they_were() -> None:
    """A transform that is off does not seed the others: old runs resume on the same patches."""
    loud = replace(NO_AUGMENTATION, intensity=1.0, noise=1.0)
    assert torch.equal(recoloured(loud)[1], recoloured(replace(loud, contrast=1e-12))[1])
    rng, other = np.random.default_rng(0), np.random.default_rng(0)
    plain, dropping = Augment(loud, PATCH), Augment(replace(loud, drop_channel=0.5), PATCH)
    first, second = plain.draw(rng), dropping.draw(other)
    assert replace(second, dropped=None) == first


def test_a_lost_contrast_is_background_everywhere_and_the_others_stay() -> None:
    image, labels = brain()
    plan = replace(STILL, dropped=2)
    changed, same = Augment(NO_AUGMENTATION, PATCH).apply(
        plan, image.clone(), labels, background=(0.0, 0.0, -1.5, 0.0)
    )
    assert bool((changed[2] == -1.5).all())
    assert torch.equal(changed[[0, 1, 3]], image[[0, 1, 3]])
    assert torch.equal(same, labels)


def test_contrasts_are_lost_as_often_as_was_asked_and_each_as_often() -> None:
    augment = Augment(replace(NO_AUGMENTATION, drop_channel=0.4), PATCH, channels=2)
    rng = np.random.default_rng(0)
    dropped = [augment.draw(rng).dropped for _ in range(2000)]
    assert np.mean([channel == 0 for channel in dropped]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([channel == 1 for channel in dropped]) == pytest.approx(0.2, abs=0.03)


def test_the_only_contrast_is_never_lost() -> None:
    augment = Augment(replace(NO_AUGMENTATION, drop_channel=1.0), PATCH, channels=1)
    assert augment.draw(np.random.default_rng(0)).dropped is None


SLICE = (1, 24, 40)


def test_a_slice_is_turned_and_mirrored_in_its_plane_only() -> None:
    augment = Augment(Augmentation(affine=1.0, flip=1.0), SLICE)
    plan = augment.draw(np.random.default_rng(0))
    assert plan.rotation is not None
    assert plan.rotation[0] != 0
    assert plan.rotation[1:] == (0, 0)
    assert plan.flips == (1, 2)
    size, start = augment.source_region(plan, (5, 0, 0))
    assert (size[0], start[0]) == (1, 5)
    assert size[1] > 24


def test_a_turned_slice_moves_image_and_labels_alike_without_empty_corners() -> None:
    settings = replace(NO_AUGMENTATION, affine=1.0)
    augment = Augment(settings, SLICE)
    for seed in range(3):
        plan = replace(augment.draw(np.random.default_rng(seed)), flips=(2,))
        size, _ = augment.source_region(plan, (0, 0, 0))
        labels = torch.zeros(size, dtype=torch.uint8)
        labels[:, size[1] // 3 :, size[2] // 3 :] = 1
        image = labels[None].repeat(2, 1, 1, 1) * 2.0 + 1
        moved, moved_labels = augment.apply(plan, image, labels, background=(0.0, 0.0))
        assert moved.shape == (2, *SLICE)
        assert moved_labels.shape == SLICE
        assert float(moved.min()) == pytest.approx(1.0)
        assert float(((moved[0] > 2) != (moved_labels > 0)).float().mean()) < 0.02


def test_a_slice_is_blurred_in_its_plane() -> None:
    """Along X there is nothing to mix with: a flat slice of one value keeps it."""
    loud = replace(NO_AUGMENTATION, blur=1.0, low_resolution=1.0)
    image = torch.rand(1, *SLICE, generator=torch.Generator().manual_seed(0)) + 1
    labels = torch.zeros(SLICE, dtype=torch.uint8)
    changed, _ = Augment(loud, SLICE, channels=1).apply(
        replace(STILL, intensity_seed=1), image.clone(), labels, background=(0.0,)
    )
    assert changed.shape == image.shape
    assert float(changed.std()) < 0.9 * float(image.std())
    assert float(changed.mean()) == pytest.approx(float(image.mean()), rel=0.05)


def test_a_long_patch_has_no_empty_corners_either() -> None:
    """Turned by a quarter, the long side is read along the short one."""
    long = (12, 12, 36)
    augment = Augment(NO_AUGMENTATION, long)
    plan = replace(STILL, rotation=(1.4, 0.2, -0.3))
    size, start = augment.source_region(plan, (0, 0, 0))
    assert size[1] >= 36
    assert start == tuple((n - m) // 2 for n, m in zip(long, size, strict=True))
    moved, _ = augment.apply(
        plan, torch.ones(4, *size), torch.ones(size, dtype=torch.uint8), background=(0.0,) * 4
    )
    torch.testing.assert_close(moved, torch.ones(4, *long))
