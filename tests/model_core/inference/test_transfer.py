"""Copies beside the computation: right under every schedule, and only because of the waits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from model_core.errors import Cancelled, NumericalError
from model_core.inference.accelerator import StreamedAccelerator
from model_core.inference.lanes import Overlapped, lane_for, one_by_one
from model_core.inference.sliding_window import sliding_window
from model_core.inference.windows import WindowPlan
from model_core.precision import at_precision
from tests.model_core.inference.simulated_device import SCHEDULES, Launched, SimulatedKit

IMAGE = torch.randn(2, 30, 9, 8, generator=torch.Generator().manual_seed(0))
BATCHES = (1, 3)
NO_WAIT = frozenset[tuple[str, str]]()


def mixed(windows: Tensor) -> Tensor:
    """Three scores out of two contrasts; other windows, other scores."""
    first, second = windows[:, 0], windows[:, 1]
    return torch.stack([first + second, first * 2, second - 1], dim=1)


def float32() -> object:
    return at_precision("cpu", "float32")


def accelerator(kit: SimulatedKit) -> StreamedAccelerator:
    return StreamedAccelerator(kit, float32, graphs=False)  # type: ignore[arg-type]


def walked(kit: SimulatedKit, batch: int, **more: object) -> Tensor:
    on = accelerator(kit)
    network = Launched(kit, mixed)
    return sliding_window(
        lambda windows: on.run(network, windows),
        IMAGE,
        plan=WindowPlan(window=(8, 8, 8), batch=batch),
        lane=lane_for(on, IMAGE),
        **more,  # type: ignore[arg-type]
    )


def plain(batch: int) -> Tensor:
    return sliding_window(mixed, IMAGE, plan=WindowPlan(window=(8, 8, 8), batch=batch))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("late", SCHEDULES, ids=lambda late: "-".join(sorted(late)) or "none")
def test_scores_are_those_of_the_plain_walk(late: frozenset[str], batch: int) -> None:
    assert torch.equal(walked(SimulatedKit(late), batch), plain(batch))


@pytest.mark.parametrize(
    "forgotten",
    [
        ("computing", "in"),
        ("in", "computing"),
        ("out", "computing"),
        ("host", "in"),
        ("host", "out"),
    ],
    ids="-for-".join,
)
def test_a_wait_that_is_missing_gives_wrong_scores(forgotten: tuple[str, str]) -> None:
    """The simulation has teeth, and every wait is needed."""

    def right(late: frozenset[str]) -> bool:
        try:
            found = walked(SimulatedKit(late, frozenset({forgotten})), 1)
        except NumericalError:  # memory that nothing was written to holds NaN
            return False
        return torch.equal(found, plain(1))

    assert not all(right(late) for late in SCHEDULES)


def test_the_host_waits_for_a_window_only_when_the_next_two_are_on_their_way() -> None:
    kit = SimulatedKit(frozenset({"computing", "in", "out"}))
    walked(kit, 1)
    first = kit.log.index("host waits for out")
    before = kit.log[:first]
    assert before.count("launch") == 2
    assert before.count("copy in") == 3
    assert before.count("copy out") == 2
    assert kit.log.count("launch") == kit.log.count("copy out") == 14


def test_progress_counts_windows_that_were_taken_in() -> None:
    told: list[int] = []
    seconds: list[float] = []
    kit = SimulatedKit(SCHEDULES[-1])
    walked(kit, 3, progress=lambda _s, done, _t: told.append(done), on_window=seconds.append)
    plain_told: list[int] = []
    sliding_window(
        mixed,
        IMAGE,
        plan=WindowPlan(window=(8, 8, 8), batch=3),
        progress=lambda _s, done, _t: plain_told.append(done),
    )
    assert told == plain_told
    assert len(seconds) == told[-1]


@pytest.mark.parametrize("late", SCHEDULES[::7])
@pytest.mark.parametrize("after", [1, 4])
def test_cancelling_runs_no_further_window_and_leaves_no_copy_on_its_way(
    late: frozenset[str], after: int
) -> None:
    kit = SimulatedKit(late)
    with pytest.raises(Cancelled):
        walked(kit, 1, cancelled=lambda: kit.launched >= after)
    assert kit.launched == after
    assert kit.pending() == 0


def test_bad_scores_stop_the_walk_and_the_next_one_is_right() -> None:
    kit = SimulatedKit(SCHEDULES[-1])
    on = accelerator(kit)
    lane = Overlapped(on)
    plan = WindowPlan(window=(8, 8, 8))
    poisoned = Launched(kit, lambda windows: mixed(windows) / 0)
    with pytest.raises(NumericalError, match="finite input"):
        sliding_window(lambda w: on.run(poisoned, w), IMAGE, plan=plan, lane=lane)
    assert kit.pending() == 0
    sound = Launched(kit, mixed)
    found = sliding_window(lambda w: on.run(sound, w), IMAGE, plan=plan, lane=lane)
    assert torch.equal(found, plain(1))


def test_larger_batches_after_smaller_ones_get_larger_places() -> None:
    kit = SimulatedKit(SCHEDULES[-1])
    on = accelerator(kit)
    network = Launched(kit, mixed)
    windows = [torch.randn(n, 2, 4, 4, 4) for n in (1, 2, 5, 1, 3)]

    def batches() -> Iterator[tuple[tuple[tuple[slice, ...], ...], Tensor]]:
        yield from (((), one) for one in windows)

    passed = Overlapped(on)(lambda w: on.run(network, w), batches())
    for one, (_, given, scores) in zip(windows, passed, strict=True):
        assert given is one
        assert torch.equal(scores, mixed(one))


def test_an_image_on_the_device_goes_one_by_one() -> None:
    class There:
        device = SimulatedKit.device

    assert lane_for(accelerator(SimulatedKit()), There()) is one_by_one  # type: ignore[arg-type]
