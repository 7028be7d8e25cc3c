"""A training run as each of several processes does it: stopped after two steps, then resumed.

Run as a script with the run's description (a pickle) as its argument; ``RunOptions.devices`` or
``torchrun`` make several processes of it.
"""

from __future__ import annotations

import pickle
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from training.config import TrainConfig
from training.data.cases import CachedCase
from training.loop import trainer
from training.loop.processes import rank
from training.loop.trainer import Cases, RunOptions, Trainer
from training.runs.reporter import Reporter, StepReport
from training.runs.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a process needs to know."""

    config: TrainConfig
    case: CachedCase
    results: Path
    devices: int


class Interrupter(Reporter):
    """Stops after the second step, in whichever process reports."""

    def step(self, report: StepReport) -> None:
        if report.step == 2:
            signal.raise_signal(signal.SIGTERM)


def network(_: str, **__: object) -> nn.Module:
    """Without dropout, whose random numbers depend on the number of processes."""
    layers = nn.Conv3d(4, 6, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv3d(6, 3, 1)
    return nn.Sequential(*layers)


def carry_out(run: Run) -> Trainer:
    """Two steps, a stop, and the rest in another trainer."""
    trainer.build_network = network  # type: ignore[assignment]
    torch.set_num_threads(1)
    name = "first" if rank() == 0 else f"rank-{rank()}"
    folder = RunFolder(run.results / name)
    if rank() == 0:
        folder = RunFolder.create(run.results, name)
    cases = Cases(training=(run.case,), validation=(run.case,))
    options = RunOptions(workers=0, record_steps=1, devices=run.devices)
    started = Trainer(run.config, cases, folder=folder, options=options, reporter=Interrupter())
    started.train()
    assert started.state.step == 2
    resumed = Trainer(run.config, cases, folder=folder, options=options)
    resumed.resume()
    resumed.train()
    return resumed


if __name__ == "__main__":
    carry_out(pickle.loads(Path(sys.argv[1]).read_bytes()))
