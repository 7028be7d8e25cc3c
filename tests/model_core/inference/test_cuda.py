"""The capture of a CUDA graph by PyTorch's own code, on streams that are only names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from model_core.inference.cuda import CudaKit

SECOND = torch.device("cuda:1")
COMPUTING = SimpleNamespace(device=SECOND, name="computing")


class Capture:
    """A graph whose capture ends, or fails where it ends."""

    fails = False

    def capture_begin(self, **_: object) -> None:
        pass

    def capture_end(self) -> None:
        if self.fails:
            raise RuntimeError("operation failed due to a previous error during capture")


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Which stream is current on a machine with two devices."""
    now = [COMPUTING]
    stand_ins = {
        "CUDAGraph": Capture,
        "Stream": lambda device: SimpleNamespace(device=device),
        "current_stream": lambda _=None: now[0],
        "set_stream": lambda stream: now.__setitem__(0, stream),
        "_get_device_index": lambda *_: 1,
        "device": lambda _: nullcontext(),
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
    monkeypatch.setattr(torch.cuda.graph, "default_capture_stream", None)
    return lambda: now[0]


def test_each_device_captures_on_a_stream_of_its_own(current: Callable[[], object]) -> None:
    seen: list[object] = []

    def work() -> Tensor:
        seen.append(current())
        return torch.zeros(1)

    kits = CudaKit(torch.device("cuda:0")), CudaKit(SECOND), CudaKit(SECOND)
    for kit in (*kits, *kits):
        kit.record(work)
    assert [stream.device for stream in seen] == [kit.device for kit in kits] * 2  # type: ignore[attr-defined]
    assert len({id(stream) for stream in seen}) == len(kits)
    assert current() is COMPUTING


@pytest.mark.parametrize("where", ["in the pass", "at its end"])
def test_a_capture_that_fails_leaves_the_computing_stream_current(
    current: Callable[[], object], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def work() -> Tensor:
        if where == "in the pass":
            raise ValueError("cannot be recorded")
        return torch.zeros(1)

    monkeypatch.setattr(Capture, "fails", True)
    with pytest.raises(RuntimeError, match="previous error during capture"):
        CudaKit(SECOND).record(work)
    assert current() is COMPUTING
