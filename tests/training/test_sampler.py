"""Patches are a pure function of the step, lie where the sampler says, and show the tumour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.cases import CachedCase
from training.config import Augmentation, TrainConfig
from training.sampler import PatchBatches, batches, crop, patch_start

NO_AUGMENTATION = Augmentation(flip=0, affine=0, intensity=0, noise=0, blur=0, low_resolution=0)
MakeCase = Callable[..., CachedCase]


def starts(case: CachedCase, config: TrainConfig, count: int = 300) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.array([patch_start(case, config, rng) for _ in range(count)])


def test_the_same_step_gives_the_same_patches(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    case = make_case()
    first, again = PatchBatches([case], tiny_config)[7], PatchBatches([case], tiny_config)[7]
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])


def test_steps_and_seeds_give_other_patches(tiny_config: TrainConfig, make_case: MakeCase) -> None:
    case = make_case()
    here = PatchBatches([case], tiny_config)[3][0]
    assert not torch.equal(here, PatchBatches([case], tiny_config)[4][0])
    assert not torch.equal(here, PatchBatches([case], replace(tiny_config, seed=1))[3][0])


def test_a_worker_process_gives_the_patches_of_the_loop(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    config, case = replace(tiny_config, steps=3), make_case()
    apart = [step[0][0] for step in batches([case], config, first_step=1, workers=1)]
    inside = [step[0][0] for step in batches([case], config, first_step=1, workers=0)]
    assert len(apart) == 2
    for ours, theirs in zip(apart, inside, strict=True):
        assert torch.equal(ours, theirs)


def test_accumulation_takes_consecutive_micro_batches(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    config, case = replace(tiny_config, steps=2, accumulate=3), make_case()
    dataset = PatchBatches([case], config)
    second = list(batches([case], config, first_step=0, workers=0))[1]
    assert [torch.equal(second[i][0], dataset[3 + i][0]) for i in range(3)] == [True] * 3


def test_without_augmentation_a_patch_is_a_piece_of_the_case(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    case = make_case()
    config = replace(tiny_config, patch=(16, 16, 16), augmentation=NO_AUGMENTATION)
    image, labels = PatchBatches([case], config)[0]
    rng = np.random.default_rng((config.seed, 0, 0))
    rng.choice(1, p=[1.0])
    where = tuple(slice(start, start + 16) for start in patch_start(case, config, rng))
    np.testing.assert_array_equal(image[0], case.image()[(slice(None), *where)])
    np.testing.assert_array_equal(labels[0], case.labels()[where])


def test_foreground_patches_hold_tumour_and_the_share_is_kept(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    case = make_case()
    config = replace(tiny_config, patch=(8, 8, 8))

    def share_with_tumour(share: float) -> float:
        hits = [
            bool(case.labels()[x : x + 8, y : y + 8, z : z + 8].any())
            for x, y, z in starts(case, replace(config, foreground_share=share))
        ]
        return float(np.mean(hits))

    assert share_with_tumour(1.0) == 1.0
    by_chance = share_with_tumour(0.0)
    assert by_chance < 0.7
    assert share_with_tumour(0.5) == pytest.approx(0.5 + 0.5 * by_chance, abs=0.08)


def test_a_small_label_is_shown_as_often_as_a_large_one(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    case = make_case()
    config = replace(tiny_config, patch=(8, 8, 8), foreground_share=1.0)
    with_small = [
        bool((case.labels()[x : x + 8, y : y + 8, z : z + 8] == 1).any())
        for x, y, z in starts(case, config)
    ]
    voxels = np.asarray(case.labels())
    assert (voxels == 1).sum() / (voxels > 0).sum() < 0.01
    assert np.mean(with_small) > 1 / 3


def test_the_chosen_voxel_is_not_always_in_the_middle(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    config = replace(tiny_config, patch=(8, 8, 8), foreground_share=1.0)
    case = make_case(shape=(64, 64, 64))
    single = replace(case, present=(1,))
    np.save(case.folder / "voxels_1.npy", np.array([[30, 30, 30]], np.int16))
    found = starts(single, config)
    assert set(np.unique(30 - found)) == {2, 3, 4, 5}


def test_weights_decide_how_often_a_case_is_drawn(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    often, never = make_case("often"), replace(make_case("never-drawn"), weight=0.0)
    config = replace(tiny_config, patch=(8, 8, 8), augmentation=NO_AUGMENTATION)
    both, alone = PatchBatches([often, never], config), PatchBatches([often], config)
    assert all(torch.equal(both[i][0], alone[i][0]) for i in range(5))


def test_a_case_without_tumour_gives_patches_too(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    case = replace(make_case(), present=())
    assert starts(case, replace(tiny_config, patch=(8, 8, 8)), 20).min() >= 0


@given(st.tuples(*[st.integers(-6, 9)] * 3), st.tuples(*[st.integers(1, 12)] * 3))
def test_a_crop_is_the_padded_array_cut(
    start: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    array = np.arange(2 * 5 * 6 * 7).reshape(2, 5, 6, 7)
    padded = np.stack(
        [
            np.pad(channel, 32, constant_values=fill)
            for channel, fill in zip(array, (-1, -2), strict=True)
        ]
    )
    where = tuple(slice(s + 32, s + 32 + n) for s, n in zip(start, size, strict=True))
    expected = padded[(slice(None), *where)]
    np.testing.assert_array_equal(crop(array, start, size, fill=(-1, -2)), expected)
