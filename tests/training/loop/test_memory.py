"""Running out of memory names what to change, the cheapest change first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from model_core.errors import MemoryLimitError
from training.config import TrainConfig
from training.loop.memory import lighter_settings, memory_explained, smaller_patch
from training.recipes import small_segmamba

CONFIG = replace(small_segmamba(), batch=2, accumulate=3, patch=(128, 128, 64))


def explained(config: TrainConfig, error: BaseException) -> MemoryLimitError:
    with pytest.raises(MemoryLimitError) as caught, memory_explained(config, "cpu"):
        raise error
    assert caught.value.__cause__ is error
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
        MemoryError("Unable to allocate 3 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: not enough memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_whoever_ran_out_the_batch_is_named_first(error: BaseException) -> None:
    found = explained(CONFIG, error)
    assert found.argument == "batch"
    assert "batch 2, patch 128×128×64" in found.got
    assert "--set batch=1 --set accumulate=6" in found.way_out


def test_an_allocation_that_truly_fails_is_recognised() -> None:
    with pytest.raises(MemoryLimitError), memory_explained(CONFIG, "cpu"):
        torch.empty(2**48, dtype=torch.float64)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_explained(CONFIG, "cpu"):
        raise RuntimeError("shapes do not match")


def test_each_setting_that_is_changed_makes_room_for_the_next() -> None:
    assert list(lighter_settings(CONFIG, "cpu")) == [
        "batch",
        "patch",
        "checkpoint_activations",
        "precision",
    ]
    config = replace(CONFIG, batch=1)
    assert next(iter(lighter_settings(config, "cpu"))) == "patch"
    config = replace(config, patch=(16, 16, 16))
    assert next(iter(lighter_settings(config, "cpu"))) == "checkpoint_activations"
    config = replace(config, checkpoint_activations=True)
    assert list(lighter_settings(config, "cpu")) == ["precision"]
    config = replace(config, precision="bfloat16")
    assert "more memory" in explained(config, MemoryError()).way_out


@pytest.mark.parametrize(
    ("patch", "smaller"),
    [
        ((128, 128, 128), (96, 96, 96)),
        ((128, 128, 64), (96, 96, 64)),
        ((32, 32, 32), (16, 16, 16)),
        ((1, 512, 512), (1, 384, 384)),
        ((16, 16, 16), (16, 16, 16)),
    ],
)
def test_a_smaller_patch_keeps_what_networks_take(
    patch: tuple[int, int, int], smaller: tuple[int, int, int]
) -> None:
    assert smaller_patch(patch) == smaller
