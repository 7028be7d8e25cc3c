"""What the options under "How to run" amount to: one segmenter, with the process set up for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model_core.inference.segmenter import Segmentation, Segmenter


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What runs, and on how much of the machine; None and ``auto`` take the best there is here."""

    model: str | None = None
    """Name or folder of a bundle; the bundled one when None."""
    device: str = "auto"
    """``auto`` takes CUDA where it is."""
    backend: str | None = None
    precision: str = "auto"
    threads: int | None = None
    memory_limit_mb: int | None = None


def make_segmenter(engine: Engine) -> Segmenter:
    """The segmenter that `engine` describes; the process's allocator and threads are set for it.

    Raises:
        SegMambaError: what the options name is not here, or not usable.
    """
    import torch

    from model_core.allocator import keep_freed_memory
    from model_core.checkpoints import DEFAULT_MODEL, load_bundle
    from model_core.cpu import limit_threads
    from model_core.inference.segmenter import Segmenter

    keep_freed_memory()
    limit_threads(engine.threads)
    device = engine.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Segmenter(
        load_bundle(engine.model or DEFAULT_MODEL),
        device=device,
        backend=engine.backend,
        precision=engine.precision,
        memory_limit_mb=engine.memory_limit_mb,
    )


def engine_line(result: Segmentation) -> str:
    """``scan backend native on cpu, convolutions in bfloat16, windows of 128 x 128 x 128``."""
    size = " x ".join(str(side) for side in result.window)
    windows = f"windows of {size}" if result.window_choice == "card" else f"one window of {size}"
    return (
        f"scan backend {result.backend} on {result.device}, "
        f"convolutions in {result.precision}, {windows}"
    )
