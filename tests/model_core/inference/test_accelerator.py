"""Accelerators in the segmenter: another device, the same label maps; and the CPU as it was."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model_core.errors import Cancelled, OptionError
from model_core.imaging.study import Study
from model_core.inference.accelerator import (
    GRAPHS_VARIABLE,
    PlainAccelerator,
    StreamedAccelerator,
    accelerator_for,
)
from model_core.inference.graphs import WARM_UP
from model_core.inference.segmenter import Segmenter, SegmentOptions
from model_core.precision import at_precision
from tests.model_core.inference.simulated_device import SCHEDULES, Launched, SimulatedKit
from tests.model_core.inference.small_network import make_segmenter, make_study

CPU = torch.device("cpu")


def float32() -> contextlib.AbstractContextManager[object]:
    return at_precision("cpu", "float32", cache=False)


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study()


def simulated(
    kit: SimulatedKit, *, graphs: bool = True, batch: int = 1, launched: bool = True
) -> Segmenter:
    """A segmenter on the simulated device, whose image lies in the host's memory."""
    segmenter = make_segmenter(batch=batch)
    segmenter._accelerator = StreamedAccelerator(kit, float32, graphs=graphs)
    if launched:
        segmenter._network = Launched(kit, segmenter._network)
    return segmenter


@pytest.mark.parametrize("late", SCHEDULES, ids=lambda late: "-".join(sorted(late)) or "none")
@pytest.mark.parametrize("batch", [1, 3])
def test_copies_beside_the_computation_give_the_same_labels(
    study: Study, late: frozenset[str], batch: int
) -> None:
    result = simulated(SimulatedKit(late), graphs=False, batch=batch).segment(study)
    expected = make_segmenter(batch=batch).segment(study)
    assert np.array_equal(result.labels, expected.labels)
    assert len(result.window_seconds) == len(expected.window_seconds)


@pytest.mark.parametrize("late", [late for late in SCHEDULES if "computing" not in late])
@pytest.mark.parametrize("batch", [1, 2])
def test_recorded_passes_give_the_same_labels(
    study: Study, late: frozenset[str], batch: int
) -> None:
    kit = SimulatedKit(late)
    segmenter = simulated(kit, batch=batch)
    expected = make_segmenter(batch=batch).segment(study)
    for _ in range(3):
        result = segmenter.segment(study)
        assert np.array_equal(result.labels, expected.labels)
    assert segmenter.accelerator.graphs == "1 recorded"
    assert kit.replays > WARM_UP


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_mirrored_passes_of_a_batch_run_where_it_was_copied_to(study: Study, mode: str) -> None:
    kit = SimulatedKit(frozenset({"in", "out"}))
    segmenter = simulated(kit)
    result = segmenter.segment(study, SegmentOptions(tta=mode))  # type: ignore[arg-type]
    expected = make_segmenter().segment(study, SegmentOptions(tta=mode))  # type: ignore[arg-type]
    assert np.array_equal(result.labels, expected.labels)
    assert result.agreement == expected.agreement
    windows = len(result.window_seconds)
    assert kit.log.count("copy in") == kit.log.count("copy out") == windows


def test_a_cancelled_study_leaves_the_next_one_right(study: Study) -> None:
    kit = SimulatedKit(SCHEDULES[-1])
    segmenter = simulated(kit, graphs=False)
    with pytest.raises(Cancelled):
        segmenter.segment(study, cancelled=lambda: kit.launched == 3)
    assert kit.launched == 3
    assert kit.pending() == 0
    expected = make_segmenter().segment(study).labels
    assert np.array_equal(segmenter.segment(study).labels, expected)


class Short(nn.Module):
    """Runs out of memory once, at the given pass."""

    def __init__(self, kit: SimulatedKit, inner: nn.Module, at: int) -> None:
        super().__init__()
        self.kit, self.inner, self.left = kit, inner, at

    def forward(self, batch: Tensor) -> Tensor:
        if self.kit.recording is None:
            self.left -= 1
            if not self.left:
                raise torch.OutOfMemoryError("tried to allocate")
        return self.kit.launch(self.inner, batch)


def test_recordings_go_before_any_rung_of_the_ladder(study: Study) -> None:
    kit = SimulatedKit()
    segmenter = simulated(kit, batch=3, launched=False)
    # Four windows: a batch of three, recorded in the third study, and one alone, which never is.
    segmenter._network = Short(kit, segmenter._network, at=6)
    results = [segmenter.segment(study) for _ in range(4)]
    expected = make_segmenter().segment(study).labels
    assert segmenter._network.left < 0
    for result in results:
        assert result.memory_steps == ()
        assert np.array_equal(result.labels, expected)
    assert segmenter.accelerator.graphs == "off: memory ran out"


@pytest.mark.parametrize(
    ("device", "state"), [("cuda:0", "off: memory ran out"), ("cuda:1", "1 recorded")]
)
def test_an_idle_models_recordings_go_too_on_the_same_device(
    study: Study, device: str, state: str
) -> None:
    idle_kit, kit = SimulatedKit(), SimulatedKit()
    idle_kit.device = torch.device(device)
    idle, running = simulated(idle_kit, batch=2), simulated(kit, batch=2, launched=False)
    expected = idle.segment(study).labels
    idle.segment(study)
    assert idle.accelerator.graphs == "1 recorded"
    running._network = Short(kit, running._network, at=1)
    result = running.segment(study)
    assert result.memory_steps == (() if device == "cuda:0" else ("smaller-batch",))
    assert idle.accelerator.graphs == state
    assert np.array_equal(idle.segment(study).labels, expected)
    assert np.array_equal(result.labels, expected)


def test_without_a_recording_the_ladder_is_climbed_at_once(study: Study) -> None:
    kit = SimulatedKit()
    segmenter = simulated(kit, batch=4, launched=False)
    segmenter._network = Short(kit, segmenter._network, at=1)
    result = segmenter.segment(study)
    assert result.memory_steps == ("smaller-batch",)
    assert np.array_equal(result.labels, make_segmenter().segment(study).labels)
    assert not segmenter.accelerator.graphs.startswith("off")


def test_on_a_cpu_nothing_is_copied_or_recorded() -> None:
    accelerator = accelerator_for(CPU, float32, graphs=True)
    assert isinstance(accelerator, PlainAccelerator)
    windows = torch.randn(1, 2, 3, 3, 3)
    assert not accelerator.overlaps(windows)
    staged = accelerator.stage(windows)
    assert staged.arrived() is windows
    staged.consumed()
    assert accelerator.fetch(windows).result() is windows
    assert not accelerator.release()
    accelerator.settle()
    accelerator.synchronise()
    network = nn.Identity()
    assert accelerator.run(network, windows) is windows


def test_the_memory_of_a_cpu_is_the_processs() -> None:
    accelerator = accelerator_for(CPU, float32)
    before = accelerator.memory().used
    held = torch.ones(2**26)  # 256 MiB
    after = accelerator.memory()
    assert after.used - before > held.numel() * 3
    assert after.peak >= after.used > 2**26


@pytest.mark.parametrize(("value", "expected"), [("0", False), ("1", True), (None, True)])
def test_the_variable_decides_about_recording(
    monkeypatch: pytest.MonkeyPatch, value: str | None, expected: bool
) -> None:
    monkeypatch.delenv(GRAPHS_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(GRAPHS_VARIABLE, value)
    made = accelerator_for(torch.device("cuda:0"), float32)  # streams are made when they are needed
    assert made.graphs == ("0 recorded" if expected else "off: switched off")
    assert accelerator_for(torch.device("cuda:0"), float32, graphs=True).graphs == "0 recorded"


def test_another_value_of_the_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GRAPHS_VARIABLE, "yes")
    with pytest.raises(OptionError, match="0 or 1"):
        accelerator_for(CPU, float32)


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("on_host", [False, True])
def test_a_real_device_gives_the_labels_of_the_cpu(
    study: Study, graphs: bool, on_host: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = make_segmenter("cuda")
    segmenter._accelerator = accelerator_for(
        torch.device("cuda"), lambda: at_precision("cuda", "float32", cache=False), graphs=graphs
    )
    if on_host:  # as after the rung of that name
        monkeypatch.setattr("model_core.inference.segmenter.Run", host_run)
    results = [segmenter.segment(study).labels for _ in range(3)]
    expected = make_segmenter().segment(study).labels
    for labels in results:
        assert (labels != expected).mean() < 1e-3  # other kernels round otherwise
        assert np.array_equal(labels, results[0])
    recorded = segmenter.accelerator.graphs
    assert recorded == ("1 recorded" if graphs else "off: switched off")


def host_run(**settings: object) -> object:
    from model_core.inference.ladder import Run

    return Run(**(settings | {"sums_on_host": True}))  # type: ignore[arg-type]
