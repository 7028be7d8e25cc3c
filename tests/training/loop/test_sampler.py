"""Patches are a pure function of the step, lie where the sampler says, and show the tumour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.config import Augmentation, PatchMix, TrainConfig
from training.data.cases import CachedCase
from training.loop.sampler import PatchBatches, batches, crop, patch_start
from training.loop.share import Share

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
    image, labels, _ = PatchBatches([case], config)[0]
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


def mixed(config: TrainConfig) -> TrainConfig:
    return replace(
        config,
        patch=(8, 8, 8),
        batch=2,
        mixed_patches=(
            PatchMix(patch=(48, 16, 16), batch=1, share=0.25),
            PatchMix(patch=(8, 16, 8), batch=3, share=0.25),
        ),
    )


def test_which_size_a_micro_batch_has_is_decided_by_seed_and_number(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    case, config = make_case(), mixed(tiny_config)
    ours, again = PatchBatches([case], config), PatchBatches([case], config)
    kinds = [ours.kind(number) for number in range(400)]
    assert kinds[:20] == [again.kind(number) for number in range(20)]
    counts = np.bincount(kinds) / len(kinds)
    np.testing.assert_allclose(counts, [0.5, 0.25, 0.25], atol=0.07)
    other = PatchBatches([case], replace(config, seed=1))
    assert kinds != [other.kind(number) for number in range(400)]


def test_every_kind_has_its_own_patch_and_batch_and_a_larger_one_is_padded(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    case = make_case()
    config = replace(mixed(tiny_config), augmentation=NO_AUGMENTATION)
    stream = PatchBatches([case], config)
    numbers = [next(n for n in range(100) if stream.kind(n) == kind) for kind in range(3)]
    shapes = [tuple(stream[number].labels.shape) for number in numbers]
    assert shapes == [(2, 8, 8, 8), (1, 48, 16, 16), (3, 8, 16, 8)]
    padded = stream[numbers[1]]
    assert bool((padded.images[0, :, :4] == 0).all())
    x = padded.labels[0, 4:44].any(dim=(1, 2)).nonzero()
    assert set(x.flatten().tolist()) <= set(range(10, 26))


def test_mixed_patches_do_not_move_the_others(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    case, config = make_case(), mixed(tiny_config)
    with_others = PatchBatches([case], config)
    alone = PatchBatches([case], replace(config, mixed_patches=()))
    number = next(n for n in range(100) if with_others.kind(n) == 0)
    assert torch.equal(with_others[number].images, alone[number].images)


def test_a_batch_tells_its_cases(tiny_config: TrainConfig, make_case: MakeCase) -> None:
    cases = [make_case("one"), make_case("second"), make_case("another")]
    config = replace(tiny_config, patch=(40, 36, 32), batch=4, augmentation=NO_AUGMENTATION)
    batch = PatchBatches(cases, config)[0]
    assert len(set(batch.cases.tolist())) > 1
    for image, number in zip(batch.images, batch.cases.tolist(), strict=True):
        np.testing.assert_array_equal(image, np.asarray(cases[number].image()))


def test_two_processes_make_the_patches_of_one(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    case, config = make_case(), replace(tiny_config, batch=2, accumulate=2, steps=3)

    def patches(share: Share) -> list[torch.Tensor]:
        steps = batches([case], config, first_step=1, workers=0, share=share)
        return [batch.images for step in steps for batch in step]

    whole = patches(Share())
    dealt = [patches(Share(rank=rank, processes=2)) for rank in range(2)]
    split = [patches(Share(rank=rank, processes=2, split=True)) for rank in range(2)]
    assert [len(whole), len(dealt[0]), len(split[0])] == [4, 2, 4]
    for number, images in enumerate(whole):
        assert torch.equal(dealt[number % 2][number // 2], images)
        assert torch.equal(torch.cat([half[number] for half in split]), images)


class OnlySlices:
    """An array on disk, such as blosc2's: it has a shape and gives what slices ask for."""

    def __init__(self, array: np.ndarray) -> None:
        self.shape = array.shape
        self._array = array

    def __getitem__(self, where: tuple[slice, ...]) -> np.ndarray:
        assert isinstance(where, tuple)
        assert len(where) == len(self.shape)
        assert all(isinstance(part, slice) for part in where)
        return self._array[where]


def test_a_crop_asks_an_array_for_slices_only() -> None:
    array = np.arange(2 * 5 * 6 * 7, dtype=np.float16).reshape(2, 5, 6, 7)
    image = crop(OnlySlices(array), (-1, 2, 3), (4, 3, 9), fill=(-1, -2))
    np.testing.assert_array_equal(image, crop(array, (-1, 2, 3), (4, 3, 9), fill=(-1, -2)))
    assert image.dtype == np.float16
    labels = crop(OnlySlices(array[0]), (-1, 2, 3), (4, 3, 9), fill=(0,))
    np.testing.assert_array_equal(labels, crop(array[:1], (-1, 2, 3), (4, 3, 9), fill=(0,))[0])


def test_slices_of_a_2d_task_are_patches_one_voxel_deep(
    tiny_config: TrainConfig, make_case: MakeCase
) -> None:
    task = replace(tiny_config.task, dims=2)
    config = replace(
        tiny_config, network="lightm-unet", task=task, patch=(1, 24, 24), batch=6,
        foreground_share=1.0, augmentation=replace(NO_AUGMENTATION, affine=1.0, flip=0.5),
    )  # fmt: skip
    batch = PatchBatches([make_case()], config)[0]
    assert batch.images.shape == (6, 4, 1, 24, 24)
    assert bool(batch.labels.flatten(1).any(dim=1).float().mean() > 0.8)
