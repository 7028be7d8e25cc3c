"""However many processes there are, a step sees the same patches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model_core.errors import OptionError
from training.config import PatchMix
from training.loop.share import Share, share_of
from training.recipes import small_segmamba

CONFIG = replace(small_segmamba(), batch=2, accumulate=4)


def seen(share: Share, step: int = 3) -> list[tuple[int, int]]:
    """(micro-batch, place) of every patch that a process makes of a step."""
    return [
        (number, place)
        for number in share.micro_batches(step, CONFIG.accumulate)
        for place in share.places(CONFIG.batch)
    ]


@pytest.mark.parametrize("split", [True, False])
def test_two_processes_see_each_patch_of_one_once(split: bool) -> None:
    whole = seen(Share())
    assert whole == [(12 + i, place) for i in range(4) for place in range(2)]
    halves = [seen(Share(rank=rank, processes=2, split=split)) for rank in range(2)]
    assert sorted(halves[0] + halves[1]) == whole
    assert len(halves[0]) == len(halves[1])


def test_whole_micro_batches_are_dealt_out_where_that_is_possible() -> None:
    assert not share_of(CONFIG, rank=1, processes=2).split
    assert share_of(replace(CONFIG, accumulate=1), rank=1, processes=2).split


@pytest.mark.parametrize("processes", [3, 8])
def test_processes_that_divide_nothing_are_refused(processes: int) -> None:
    with pytest.raises(OptionError, match=f"accumulate={processes}"):
        share_of(CONFIG, rank=0, processes=processes)


def test_every_kind_of_patch_must_be_divided() -> None:
    mixed = (PatchMix(patch=(64, 64, 64), batch=1, share=0.1),)
    with pytest.raises(OptionError, match="devices"):
        share_of(replace(CONFIG, accumulate=1, mixed_patches=mixed), rank=0, processes=2)
