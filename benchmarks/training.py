"""``python -m benchmarks.training``: one training step in each way."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch import nn

from benchmarks.commandline import Options, close_results, open_results, options, parser, say
from benchmarks.networks import CONFIGS, LENT, OURS, PSCAN, in_way, precisions, row_name
from benchmarks.results import Results, Row
from benchmarks.scans import has_mambapy
from benchmarks.timing import alternate, spread
from benchmarks.work import network_work
from model_core.allocator import keep_freed_memory
from training.config import TrainConfig
from training.loop.options import Cases
from training.loop.sampler import Batch
from training.loop.trainer import Trainer
from training.recipes import small_segmamba
from training.runs.run_folder import RunFolder

DESCRIPTION: Final = """\
Times one whole training step (forward, Dice and cross-entropy, backward, clipping, AdamW, averaged
weights) of SegMamba small16 on two 64³ patches: this project in float32 and, where the processor
has it, bfloat16, against the same step with the network in the authors' way (plain PyTorch,
contiguous float32), differentiated by autograd through this project's blocked PyTorch scan, and
through mambapy's pscan.
"""
NOTES: Final = (
    "A step is that of the training package; only the network differs. Patches are noise, prepared "
    "beforehand. *loss* is that of the first step from the same weights.",
    "The allocator settings of this project's programs (docs/how-to/troubleshoot.md) hold for all.",
    "Work: three times that of a forward pass (the backward pass computes two gradients).",
)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is trained, on how much."""

    name: str = "SegMamba small16"
    side: int = 64
    batch: int = 2

    def group(self, threads: int) -> str:
        """The title of its rows."""
        return f"{self.name}, {self.batch} patches of {self.side}³, {threads} threads"

    def config(self, precision: str, *, channels_last: bool) -> TrainConfig:
        """The recipe at this size."""
        recipe = small_segmamba()
        return dataclasses.replace(
            recipe,
            network_args={"out_channels": 3, **CONFIGS[self.name][1]},
            patch=(self.side,) * 3,
            batch=self.batch,
            precision="bfloat16" if precision == "bfloat16" else "float32",
            channels_last=channels_last,
        )


def make_trainer(subject: Subject, way: str, precision: str, folder: Path) -> Trainer:
    """The project's trainer; for the authors' way with their network in the place of ours."""
    config = subject.config(precision, channels_last=way == OURS)
    name = f"{way}-{precision}".replace(" ", "-").replace("'", "").replace(",", "")
    trainer = Trainer(config, Cases(training=()), folder=RunFolder.create(folder, name))
    if way != OURS:
        theirs: nn.Module = in_way(trainer.network, way)[0]
        trainer.equip(theirs.requires_grad_(True))
    trainer.learner.module.train()
    return trainer


def patches(subject: Subject) -> Batch:
    """Noise with a box of each label in it."""
    draw = torch.Generator().manual_seed(0)
    side = subject.side
    images = torch.randn(subject.batch, 4, side, side, side, generator=draw)
    labels = torch.zeros(subject.batch, side, side, side, dtype=torch.uint8)
    for label, low, high in ((2, side // 8, side // 2), (3, side // 4, side // 2)):
        labels[:, low:high, low:high, low:high] = label
    return Batch(images, labels, torch.zeros(subject.batch, dtype=torch.int64))


def measure(subject: Subject, results: Results, chosen: Options) -> None:
    """All rows, in turn."""
    group = subject.group(chosen.threads)
    cases = [(OURS, precision) for precision in precisions()]
    cases += [(LENT, "float32"), (PSCAN, "float32")]
    cases = [case for case in cases if chosen.wants(results, group, row_name(*case))]
    if (PSCAN, "float32") in cases and not has_mambapy():
        say("mambapy is not installed: its row is left out (benchmarks/setup.sh)")
        cases.remove((PSCAN, "float32"))
    batch = patches(subject)
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        steps: dict[str, Callable[[], object]] = {}
        for way, precision in cases:
            name = row_name(way, precision)
            trainer = make_trainer(subject, way, precision, Path(folder))
            say(f"  first step: {name} …")
            losses[name] = trainer.step([batch]).loss
            steps[name] = partial(trainer.step, [batch])
        plan = dataclasses.replace(chosen.plan, warmup=max(0, chosen.plan.warmup - 1))
        timed = alternate(steps, plan)
    work = network_work(subject.name, (subject.side,) * 3, subject.batch)
    for way, precision in cases:
        name = row_name(way, precision)
        seconds = tuple(timed[name])
        row = Row(
            group=group,
            way=name,
            seconds=seconds,
            reference=(way, precision) == (OURS, "float32"),
            threads=chosen.threads,
            precision=precision,
            gflop=3 * work.gflop,
            peak=f"conv3d_{precision}",
            extra={
                "steps_per_hour": 3600 / float(spread(seconds)["median"]),
                "loss": round(losses[name], 5),
            },
        )
        results.add(row)
        say(f"  {group}  {name:40s} {row.typical:8.3f} s a step")


def main() -> None:
    """Measure every row that was asked for, then write the page."""
    made = parser("training", DESCRIPTION, rounds=5)
    chosen = options(made.parse_args())
    keep_freed_memory()
    results = open_results("training", chosen, NOTES)
    subject = Subject(name="tiny SegMamba", side=32, batch=1) if chosen.quick else Subject()
    measure(subject, results, chosen)
    close_results(results, chosen)


if __name__ == "__main__":
    main()
