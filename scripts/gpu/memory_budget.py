"""Measure what one training step takes on this machine's GPU: memory, seconds, seconds an epoch.

A plan's memory is arithmetic; this is the measurement. Patches are noise, so no data is needed, and
everything else is the real step: network, loss, gradients, clipping, optimiser, averaged weights.

    python scripts/gpu/memory_budget.py lightm-unet-2d --memory 8
    python scripts/gpu/memory_budget.py results/first/config.json --set batch=1 --memory 8

Exit codes: 0 it fits into ``--memory`` · 1 it does not, or memory ran out, and what to change is
said · 2 nothing was measured (no GPU, wrong input).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from model_core.errors import MemoryLimitError, OptionError, SegMambaError
from training.commands.settings import parse_settings
from training.config import TrainConfig
from training.loop.memory import memory_explained
from training.loop.sampler import Batch
from training.loop.trainer import Cases, RunOptions, Trainer
from training.recipes import recipe
from training.runs.run_folder import RunFolder

GIB: Final = 2**30


@dataclass(frozen=True)
class Meter:
    """How memory and time are read; tests read them elsewhere."""

    start: Callable[[], None]
    """Forget the peak so far."""
    peak_bytes: Callable[[], int]
    """The largest amount since `start`, everything that the allocator holds."""


@dataclass(frozen=True)
class Budget:
    """What the steps took."""

    peak_gib: float
    step_seconds: float
    """Median; the first step, which chooses kernels, is left out."""
    epoch_seconds: float

    def lines(self, limit_gib: float | None) -> tuple[str, ...]:
        """For people; the last line is the verdict, where there is a limit."""
        measured = (
            f"peak memory   {self.peak_gib:.2f} GiB",
            f"one step      {self.step_seconds:.3f} s (median)",
            f"one epoch     {self.epoch_seconds:.0f} s, without reading patches and validation",
        )
        if limit_gib is None:
            return measured
        verdict = "FITS" if self.peak_gib <= limit_gib else "DOES NOT FIT"
        return (*measured, f"{verdict} into {limit_gib:g} GiB")


CUDA: Final = Meter(
    start=lambda: torch.cuda.reset_peak_memory_stats(),
    peak_bytes=lambda: int(torch.cuda.max_memory_reserved()),
)


def measure(config: TrainConfig, device: str, *, steps: int, meter: Meter) -> Budget:
    """Take `steps` real steps of `config` on noise, after one that warms up.

    Raises:
        MemoryLimitError: the memory ran out, naming the setting to change.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder.create(Path(place), "measured")
        options = RunOptions(device=device, workers=0)
        trainer = Trainer(config, Cases(training=()), folder=folder, options=options)
        batches = noise(trainer.config)
        meter.start()
        with memory_explained(config, device):
            seconds = [trainer.step(batches).seconds for _ in range(steps + 1)][1:]
    median = statistics.median(seconds)
    return Budget(
        peak_gib=meter.peak_bytes() / GIB,
        step_seconds=median,
        epoch_seconds=median * config.epoch_steps,
    )


def noise(config: TrainConfig) -> list[Batch]:
    """One step's micro-batches, from the config's seed."""
    draw = torch.Generator().manual_seed(config.seed)
    shape = (config.batch, len(config.task.channels), *config.patch)
    labels = (config.batch, *config.patch)
    highest = len(config.task.labels) + 1
    return [
        Batch(
            images=torch.randn(shape, generator=draw),
            labels=torch.randint(highest, labels, generator=draw, dtype=torch.uint8),
            cases=torch.zeros(config.batch, dtype=torch.int64),
        )
        for _ in range(config.accumulate)
    ]


def read_config(name: str, settings: Sequence[str]) -> TrainConfig:
    """The config of a recipe, or of a run's ``config.json``, with some settings changed."""
    path = Path(name)
    if path.suffix == ".json" and not path.is_file():
        raise OptionError(
            "config", expected="a recipe or a config.json", got=path.name, way_out="Check the path."
        )
    from_file = path.suffix == ".json"
    config = TrainConfig.from_json(json.loads(path.read_text())) if from_file else recipe(name)
    return config.with_settings(parse_settings(settings))


def main(arguments: Sequence[str] | None = None, *, meter: Meter | None = None) -> int:
    """Measure, speak on stdout, and return the exit code; `meter` stands in for CUDA in tests."""
    known = _parser().parse_args(arguments)
    if meter is None and not torch.cuda.is_available():
        return _say(2, "No CUDA device is visible to torch: segmamba doctor says why.")
    try:
        config = read_config(known.config, known.settings)
        device = "cuda" if meter is None else "cpu"
        budget = measure(config, device, steps=known.steps, meter=meter or CUDA)
    except MemoryLimitError as error:
        return _say(1, str(error))
    except SegMambaError as error:
        return _say(2, str(error))
    over = known.memory is not None and budget.peak_gib > known.memory
    return _say(1 if over else 0, *budget.lines(known.memory))


def _say(code: int, *lines: str) -> int:
    sys.stdout.write("\n".join(lines) + "\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", help="a recipe, or the config.json of a run")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--memory", type=float, metavar="GIB", help="what it shall fit into")
    parser.add_argument("--steps", type=int, default=10, help="measured steps (default: 10)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
