"""What a run does when memory runs out: which rung is next, what is kept, what becomes of it."""

import json
import subprocess
import sys
import weakref
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model_core.errors import Cancelled, KernelMemoryError, MemoryLimitError, OptionError
from model_core.imaging.preprocess import prepare
from model_core.imaging.study import Study
from model_core.inference.ladder import MEMORY_STEPS, Run, next_rung
from model_core.inference.retry import climb, is_out_of_memory
from model_core.inference.segmenter import Segmenter, SegmentOptions
from model_core.inference.stages import Stages
from model_core.inference.tta import mirror_passes
from model_core.inference.windows import WindowPlan
from model_core.ops.backends import CUDA_KERNELS
from tests.model_core.inference.small_network import make_segmenter, make_study

CARD = WindowPlan(window=(16, 16, 16), batch=5)
CPU = torch.device("cpu")
WHOLE = Run(
    choice="whole",
    plan=WindowPlan(window=(32, 32, 32)),
    passes=mirror_passes("full", (0, 1, 2)),
    on_cpu=False,
    sums_on_host=False,
)


def down(run: Run, *, allowed: bool) -> list[Run]:
    """Every rung below a run."""
    below = next_rung(run, CARD, allow_fewer_passes=allowed)
    return [] if below is None else [below, *down(below, allowed=allowed)]


def test_the_rungs_come_in_order_and_each_changes_one_setting() -> None:
    runs = down(WHOLE, allowed=True)
    assert [run.steps[-1] for run in runs] == list(MEMORY_STEPS[1:])
    host, card, single, cpu = runs
    assert (host.sums_on_host, host.plan, len(host.passes)) == (True, WHOLE.plan, 8)
    assert (card.choice, card.plan.window, card.plan.batch) == ("card", (16, 16, 16), 1)
    assert len(card.passes) == 8
    assert single.passes == ((),)
    assert not single.on_cpu
    assert cpu.on_cpu
    assert cpu.steps == ("host-sums", "card-window", "fewer-passes", "cpu")


def test_a_batch_is_halved_down_to_one_window() -> None:
    run = Run(choice="card", plan=CARD, passes=((),), on_cpu=True, sums_on_host=True)
    runs = down(run, allowed=True)
    assert [below.plan.batch for below in runs] == [2, 1]
    assert runs[-1].steps == ("smaller-batch", "smaller-batch")


def test_passes_stay_where_the_caller_wants_them() -> None:
    runs = down(WHOLE, allowed=False)
    assert [run.steps[-1] for run in runs] == ["host-sums", "card-window", "cpu"]
    assert all(run.passes == WHOLE.passes for run in runs)


def real_allocator_error() -> Exception:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    return caught.value


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (real_allocator_error(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (MemoryError(), True),
        (np.exceptions.AxisError("out of memory"), False),
        (RuntimeError("could not create a primitive"), False),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("DefaultCPUAllocator"), False),
        (KernelMemoryError("scratch"), False),
    ],
)
def test_out_of_memory_is_what_says_so(error: Exception, answer: bool) -> None:
    assert is_out_of_memory(error) is answer


def test_another_error_is_not_tried_again() -> None:
    tries = []

    def attempt(number: int) -> None:
        tries.append(number)
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        climb(attempt, 0, lambda number: number + 1, CPU)
    assert tries == [0]


@pytest.fixture
def study() -> Study:
    return make_study()


Refusal = Callable[[Tensor], bool]


def short_of_memory(refused: Refusal, batch: int = 1) -> Segmenter:
    """A segmenter whose network runs out of memory, deep inside, for some inputs."""
    segmenter = make_segmenter(batch=batch)
    network = segmenter._network
    asked = [False]

    def look(_: nn.Module, inputs: tuple[Tensor]) -> None:
        asked[0] = refused(inputs[0])

    def fail(*_: object) -> None:
        if asked[0]:
            raise torch.OutOfMemoryError("tried to allocate")

    network.register_forward_pre_hook(look)
    network[2].register_forward_hook(fail)
    return segmenter


def copied(batch: Tensor) -> bool:
    """Whether a window is a copy, as mirrored ones are; as it is, one is a view of the image."""
    return batch.untyped_storage().nbytes() == batch.numel() * 4


def test_smaller_batches_give_the_same_labels(study: Study) -> None:
    segmenter = short_of_memory(lambda batch: len(batch) > 2, batch=8)
    result = segmenter.segment(study)
    assert result.memory_steps == ("smaller-batch", "smaller-batch")
    expected = make_segmenter().segment(study)
    assert np.array_equal(result.labels, expected.labels)
    assert set(np.unique(result.labels)) == {0, 1, 2, 3}
    assert result.warnings == expected.warnings
    assert expected.memory_steps == ()
    assert expected.report()["memory_steps"] == []


def test_a_whole_window_becomes_the_cards(study: Study) -> None:
    segmenter = short_of_memory(lambda batch: batch.shape[2:] != (16, 16, 16))
    result = segmenter.segment(study, SegmentOptions(window="whole"))
    assert result.report()["memory_steps"] == ["card-window"]
    assert result.report()["window"] == {"choice": "card", "shape": [16, 16, 16]}
    assert any("memory ran out: the card's window" in warning for warning in result.warnings)
    assert np.array_equal(result.labels, make_segmenter().segment(study).labels)


def test_fewer_passes_need_the_callers_leave(study: Study) -> None:
    segmenter = short_of_memory(copied)
    for leave in (None, False):
        with pytest.raises(KernelMemoryError, match=r"^Memory is used up\. Free some"):
            segmenter.segment(study, SegmentOptions(tta="fast", allow_fewer_passes=leave))
    result = segmenter.segment(study, SegmentOptions(tta="fast", allow_fewer_passes=True))
    assert result.memory_steps == ("fewer-passes",)
    assert result.tta == {"mode": "none", "passes": 1, "averaged": "logits"}
    assert "Memory ran out: one pass was made instead of several mirrored ones." in result.warnings
    plain, fast = (make_segmenter().segment(study, SegmentOptions(tta=m)) for m in ("none", "fast"))
    assert np.array_equal(result.labels, plain.labels)
    assert not np.array_equal(result.labels, fast.labels)


def test_leave_is_yes_or_no() -> None:
    with pytest.raises(OptionError, match="allow_fewer_passes"):
        SegmentOptions(allow_fewer_passes="yes")  # type: ignore[arg-type]


def test_the_end_of_the_ladder_is_an_error_that_says_what_was_tried(study: Study) -> None:
    segmenter = short_of_memory(lambda _: True, batch=4)
    tried = r"also after smaller-batch, smaller-batch\. Free .* features, or allow fewer passes\.$"
    with pytest.raises(KernelMemoryError, match=tried) as found:
        segmenter.segment(study, SegmentOptions(tta="full"))
    assert found.value.__context__ is None


def test_a_network_that_is_out_of_memory_for_good_leaves_the_segmenter_usable(study: Study) -> None:
    broken = [True]
    segmenter = short_of_memory(lambda _: broken[0])
    with pytest.raises(KernelMemoryError):
        segmenter.segment(study)
    broken[0] = False
    assert segmenter.segment(study).memory_steps == ()


def test_cancelling_works_on_every_rung(study: Study) -> None:
    sizes: list[int] = []

    def refused(batch: Tensor) -> bool:
        sizes.append(len(batch))
        return len(batch) > 1

    segmenter = short_of_memory(refused, batch=4)
    for rungs in (1, 2, 3):
        sizes.clear()
        with pytest.raises(Cancelled):
            segmenter.segment(study, cancelled=lambda rungs=rungs: len(sizes) == rungs)
        assert sizes == [4, 2, 1][:rungs]


def test_nothing_of_a_failed_try_lives_when_the_next_begins(study: Study) -> None:
    held: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def refused(batch: Tensor) -> bool:
        if len(batch) != sizes[-1]:
            alive.append(sum(one() is not None for one in held))
            sizes.append(len(batch))
        return len(batch) > 1

    sizes = [0]
    segmenter = short_of_memory(refused, batch=4)
    for layer in segmenter._network:
        layer.register_forward_hook(lambda *seen: held.append(weakref.ref(seen[2])))
    assert segmenter.segment(study).memory_steps == ("smaller-batch", "smaller-batch")
    assert sizes == [0, 4, 2, 1]
    assert alive == [0, 0, 0]
    assert len(held) > 10
    assert not any(one() is not None for one in held)


def child(*arguments: str) -> str:
    """What Python prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ROADS = {
    "passes": ["host-sums", "fewer-passes", "cpu"],
    "batch": ["smaller-batch", "smaller-batch", "host-sums", "cpu"],
    "whole": ["host-sums", "card-window", "cpu"],
    "resampled": ["host-sums", "cpu"],
}


DESCENTS = [
    pytest.param(
        name, backend, marks=() if (name, backend) == ("passes", "torch") else pytest.mark.slow
    )
    for name in ROADS
    for backend in ("torch", *CUDA_KERNELS)
]


@pytest.mark.parametrize(("name", "backend"), DESCENTS)
def test_a_device_with_less_and_less_memory(name: str, backend: str) -> None:
    """A device other than the CPU, with a memory that counts its bytes (`pretend_device`)."""
    runs = json.loads(child("-m", "tests.model_core.inference.ladder_on_device", name, backend))
    steps = [run["report"]["memory_steps"] for run in runs]
    assert steps[0] == []
    assert steps[-1] == ROADS[name]
    for before, after in pairwise(steps):
        assert after[: len(before)] == before
    # On the device itself one pass needs what several do, once the sums are on the host.
    seen = {len(taken) for taken in steps}
    assert seen == set(range(len(ROADS[name]) + 1)) - ({2} if name == "passes" else set())
    for run, taken in zip(runs, steps, strict=True):
        assert run["other_voxels"] == 0
        assert run["kinds"] == 4
        assert run["kept"] == 0
        assert run["report"]["device"] == ("cpu" if "cpu" in taken else "card")
        slow = "The device's memory ran out: the network ran on the CPU."
        assert (slow in run["report"]["warnings"]) is ("cpu" in taken)
    peaks = [run["peak"] for run in runs]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[-1] < peaks[0]


def test_a_scan_for_cuda_leaves_the_hosts_part_of_a_study_to_the_cpu() -> None:
    """Sums in the host's memory, and scores brought to another spacing."""
    other_voxels = json.loads(child("-m", "tests.model_core.inference.ladder_on_device", "host"))
    assert other_voxels == [0] * 2 * len(CUDA_KERNELS)


PROGRAM = """
import json, resource, sys
import psutil, torch
from torch import nn
from tests.model_core.inference.small_network import make_segmenter, make_study

class Wide(nn.Module):
    '''Takes a thousand floats a voxel, from PyTorch's own allocator.'''
    def forward(self, batch):
        return (batch.repeat_interleave(256, dim=1) * 2).view(-1, 4, 256, *batch.shape[2:]).mean(2)

torch.set_num_threads(1)
study = make_study()
segmenter = make_segmenter(batch=8)
segmenter._network = Wide()
free = segmenter.segment(study)
held = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[1]) * 2**20,) * 2)
short = segmenter.segment(study)
equal = bool((free.labels == short.labels).all())
print(json.dumps([free.memory_steps, short.memory_steps, equal]))
"""


def test_a_process_that_may_hold_no_more() -> None:
    # One window takes 16 MiB for each of two maps, eight take eight times as much.
    free, short, equal = json.loads(child("-c", PROGRAM, "80"))
    assert free == []
    assert short
    assert set(short) == {"smaller-batch"}
    assert equal


def test_the_cpu_keeps_the_processs_limit(study: Study) -> None:
    """Where the last rung would hold more than is allowed, it is refused before it begins."""
    segmenter = make_segmenter()
    segmenter._limit_mb = 1
    prepared = prepare(study, segmenter._preprocessing())
    run = Run(choice="card", plan=CARD, passes=((),), on_cpu=True, sums_on_host=True)
    with pytest.raises(MemoryLimitError, match="a limit of 1 MiB"):
        segmenter._infer_on_cpu(prepared, run, Stages(None, None))
