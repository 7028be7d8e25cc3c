"""Recorded passes: when they are made, that they are right, and when they are dropped."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from threading import Event, Thread

import pytest
import torch
from torch import Tensor, nn

from model_core.inference.graphs import KEPT, WARM_UP, Replayer, forget_all
from model_core.precision import at_precision
from tests.model_core.inference.simulated_device import Launched, SimulatedKit


class Scaled(nn.Module):
    """Weights that can be changed."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0, -3.0]).view(1, 2, 1, 1, 1))

    def forward(self, batch: Tensor) -> Tensor:
        return batch * self.weight


def float32() -> object:
    return at_precision("cpu", "float32")


@pytest.fixture
def kit() -> SimulatedKit:
    return SimulatedKit()


@pytest.fixture
def replayer(kit: SimulatedKit) -> Replayer:
    return Replayer(kit, float32)  # type: ignore[arg-type]


def windows(count: int = 1, side: int = 4) -> Tensor:
    return torch.randn(count, 2, side, side, side)


def run(replayer: Replayer, network: nn.Module, batch: Tensor) -> Tensor:
    with torch.no_grad():
        return replayer.run(network, batch)


def check(replayer: Replayer, network: Launched, batch: Tensor) -> None:
    with torch.no_grad():
        expected = network.inner(batch)
    assert torch.equal(run(replayer, network, batch), expected)


def test_a_pass_is_recorded_after_the_warm_up_and_replayed_from_then_on(
    kit: SimulatedKit, replayer: Replayer
) -> None:
    network = Launched(kit, Scaled())
    for _ in range(WARM_UP):
        check(replayer, network, windows())
    assert (len(replayer), kit.launched, kit.replays) == (0, WARM_UP, 0)
    check(replayer, network, windows())
    assert (len(replayer), kit.launched, kit.replays) == (
        1,
        WARM_UP + 1,
        1,
    )  # the replay is a check
    for _ in range(5):
        check(replayer, network, windows())
    assert (len(replayer), kit.launched, kit.replays) == (1, WARM_UP + 1, 6)


def test_an_answer_outlives_the_next_replay(kit: SimulatedKit, replayer: Replayer) -> None:
    network = Launched(kit, Scaled())
    batches = [windows() for _ in range(WARM_UP + 4)]
    answers = [run(replayer, network, batch) for batch in batches]
    for batch, answer in zip(batches, answers, strict=True):
        assert torch.equal(answer, network.inner(batch))


def test_a_recording_serves_its_shape_and_type_only(kit: SimulatedKit, replayer: Replayer) -> None:
    network = Launched(kit, Scaled())
    for _ in range(WARM_UP + 1):
        check(replayer, network, windows())
    before = kit.replays
    check(replayer, network, windows(side=5))
    check(replayer, network, windows().double())
    assert kit.replays == before


def test_the_smaller_last_batch_is_never_recorded(kit: SimulatedKit, replayer: Replayer) -> None:
    network = Launched(kit, Scaled())
    for _ in range(WARM_UP + 3):
        check(replayer, network, windows(4))
        check(replayer, network, windows(1))
    assert len(replayer) == 1
    replays = kit.replays
    check(replayer, network, windows(1))
    assert kit.replays == replays
    check(replayer, network, windows(4))
    assert kit.replays == replays + 1


def test_only_the_latest_recordings_are_kept(kit: SimulatedKit, replayer: Replayer) -> None:
    network = Launched(kit, Scaled())
    for side in (2, 3, 4, 5):
        for _ in range(WARM_UP + 2):
            check(replayer, network, windows(side=side))
    assert len(replayer) == KEPT
    replays = kit.replays
    check(replayer, network, windows(side=5))
    check(replayer, network, windows(side=4))
    assert kit.replays == replays + 2


@pytest.mark.parametrize("change", ["in place", "exchanged", "another network"])
def test_other_weights_make_a_recording_void(
    kit: SimulatedKit, replayer: Replayer, change: str
) -> None:
    scaled = Scaled()
    network = Launched(kit, scaled)
    for _ in range(WARM_UP + 2):
        check(replayer, network, windows())
    replays, launched = kit.replays, kit.launched
    if change == "in place":
        with torch.no_grad():
            scaled.weight.mul_(7)
    elif change == "exchanged":
        scaled.weight = nn.Parameter(scaled.weight.detach() + 1)
    else:
        network = Launched(kit, Scaled())
    check(replayer, network, windows())
    assert (len(replayer), kit.replays, kit.launched) == (0, replays, launched + 1)
    for _ in range(WARM_UP + 1):
        check(replayer, network, windows())
    assert len(replayer) == 1
    assert kit.replays > replays


class Unrecordable(nn.Module):
    """Asks the device for a number, as code does that must know it to go on."""

    def __init__(self, kit: SimulatedKit) -> None:
        super().__init__()
        self.kit = kit

    def forward(self, batch: Tensor) -> Tensor:
        if self.kit.recording is not None:
            raise RuntimeError("operation not permitted when stream is capturing\nand a trace")
        return self.kit.launch(torch.square, batch)


def events(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [one for one in caplog.records if one.name == "model_core.inference"]


def test_what_cannot_be_recorded_runs_as_before_and_one_event_says_so(
    kit: SimulatedKit, replayer: Replayer, caplog: pytest.LogCaptureFixture
) -> None:
    network = Unrecordable(kit)
    for _ in range(3 * WARM_UP):
        batch = windows()
        assert torch.equal(run(replayer, network, batch), batch.square())
    assert kit.replays == 0
    assert kit.launched == 3 * WARM_UP
    assert len(events(caplog)) == 1
    reason = "RuntimeError: operation not permitted when stream is capturing"
    assert replayer.problem == reason == events(caplog)[0].reason  # type: ignore[attr-defined]


def test_a_recording_that_reads_other_memory_is_never_used(
    kit: SimulatedKit, replayer: Replayer, caplog: pytest.LogCaptureFixture
) -> None:
    class Elsewhere(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            held = torch.ones_like(batch) if kit.recording is not None else batch
            return kit.launch(torch.square, held)

    network = Elsewhere()
    for _ in range(3 * WARM_UP):
        batch = windows()
        assert torch.equal(run(replayer, network, batch), batch.square())
    assert replayer.problem == "a recorded pass differed from an ordinary one"
    assert len(events(caplog)) == 1


def test_a_recording_is_not_trusted_where_there_are_no_numbers(
    kit: SimulatedKit, replayer: Replayer
) -> None:
    network = Launched(kit, lambda batch: batch / 0 * 0)
    for _ in range(WARM_UP + 1):
        assert run(replayer, network, windows()).isnan().all()
    assert len(replayer) == 0
    assert replayer.problem


def test_given_back_recordings_are_not_made_again(kit: SimulatedKit, replayer: Replayer) -> None:
    network = Launched(kit, Scaled())
    assert not replayer.forget("memory ran out")
    assert not replayer.problem
    for _ in range(WARM_UP + 1):
        check(replayer, network, windows())
    assert replayer.forget("memory ran out")
    assert not replayer.forget("memory ran out")
    for _ in range(WARM_UP + 2):
        check(replayer, network, windows())
    assert len(replayer) == 0


class Waiting(nn.Module):
    """Answers when it may."""

    def __init__(self, kit: SimulatedKit) -> None:
        super().__init__()
        self.kit, self.begun, self.may = kit, Event(), Event()
        self.may.set()

    def forward(self, batch: Tensor) -> Tensor:
        self.begun.set()
        assert self.may.wait(10)
        return self.kit.launch(torch.square, batch)


def test_another_models_recordings_go_between_two_of_its_passes(kit: SimulatedKit) -> None:
    replayer = Replayer(kit, float32)  # type: ignore[arg-type]
    network = Waiting(kit)
    for _ in range(WARM_UP + 1):
        run(replayer, network, windows())
    network.begun.clear()
    network.may.clear()
    passing = Thread(target=run, args=(replayer, network, windows(side=5)))
    wanting = Thread(target=forget_all, args=(kit.device, "memory ran out"))
    passing.start()
    assert network.begun.wait(10)
    wanting.start()
    wanting.join(0.1)
    assert (wanting.is_alive(), len(replayer)) == (True, 1)
    network.may.set()
    passing.join(10)
    wanting.join(10)
    assert (len(replayer), replayer.problem) == (0, "memory ran out")


def test_a_recording_goes_when_the_device_has_done_its_work(
    kit: SimulatedKit, replayer: Replayer
) -> None:
    network = Launched(kit, Scaled())
    for _ in range(WARM_UP + 1):
        run(replayer, network, windows())
    kit._late = frozenset({"computing"})
    batch = windows()
    answer = run(replayer, network, batch)
    assert kit.computing().queue
    assert forget_all(kit.device, "memory ran out")
    assert torch.equal(answer, network.inner(batch))


def test_recording_can_be_switched_off(kit: SimulatedKit) -> None:
    replayer = Replayer(kit, float32, enabled=False)  # type: ignore[arg-type]
    network = Launched(kit, Scaled())
    for _ in range(WARM_UP + 3):
        check(replayer, network, windows())
    assert kit.replays == 0
    assert replayer.problem == "switched off"


def test_a_recording_computes_in_the_precision_of_the_pass(kit: SimulatedKit) -> None:
    seen: list[tuple[bool, bool, bool]] = []

    class Looking(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            state = torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()
            seen.append((kit.recording is not None, *state))
            return kit.launch(torch.square, batch)

    replayer = Replayer(kit, lambda: at_precision("cpu", "bfloat16", cache=False))
    network = Looking()
    for _ in range(WARM_UP + 1):
        run(replayer, network, windows())
    assert seen == [(False, True, False)] * (WARM_UP + 1) + [(True, True, False)]


@pytest.mark.parametrize(
    "family",
    [
        "segmamba",
        pytest.param("segmamba-brtm", marks=pytest.mark.slow),
        pytest.param("lightm-unet", marks=pytest.mark.slow),
    ],
)
def test_a_warm_network_asks_nothing_of_the_host(family: str) -> None:
    """What a graph cannot record; seen by a device that sees every operation."""
    module = "tests.model_core.inference.recordable_on_device"
    done = subprocess.run(
        [sys.executable, "-m", module, family],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
