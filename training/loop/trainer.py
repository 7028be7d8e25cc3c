"""The loop: load → step → log → validate → save, until the steps or the minutes are used up.

A run resumed from its last checkpoint continues bit for bit as if it had not been interrupted, on
the same CPU and thread count, as long as the clock does not shape it (`training.loop.optim`); some
kernels of a GPU add in an order of their own, so there it continues up to rounding.
With several processes all of them walk through this loop in step; only the first one validates,
reports and writes.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from model_core.networks import build_network
from training.config import Augmentation, TrainConfig
from training.judge.validate import validate
from training.loop import checkpoint, processes
from training.loop.ema import Ema
from training.loop.finite import FiniteGuard
from training.loop.interrupt import interruptible
from training.loop.learner import Learner
from training.loop.memory import memory_explained
from training.loop.optim import learning_rate, progress
from training.loop.options import Cases, RunOptions
from training.loop.sampler import Batch, PatchBatches, batches
from training.loop.share import share_of
from training.loop.state import State
from training.naming import shown_names
from training.runs.reporter import Reporter, StepReport
from training.runs.run_folder import RunFolder

__all__ = ["Cases", "RunOptions", "State", "Trainer"]

_UNCHANGED = Augmentation(flip=0, affine=0, intensity=0, noise=0, blur=0, low_resolution=0)


class Trainer:
    """One run of one config."""

    def __init__(
        self,
        config: TrainConfig,
        cases: Cases,
        *,
        folder: RunFolder,
        options: RunOptions | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        self.options = options or RunOptions()
        self.config = config = config.settled(self.options.device)
        self.cases, self.folder = cases, folder
        count = processes.world_size(self.options)
        share_of(config, rank=0, processes=count)  # refused before anything is started
        self.fabric = processes.open_fabric(self.options, config.precision)
        self.first = self.fabric.is_global_zero
        self.reporter = (reporter if self.first else None) or Reporter()
        self.share = share_of(config, rank=self.fabric.global_rank, processes=count)
        self.device = self.fabric.device
        torch.manual_seed(config.seed)
        with memory_explained(config, self.device):
            self.equip(build_network(config.network, **config.network_args))
        if not self.first:
            torch.manual_seed(config.seed + self.fabric.global_rank)
        self.state = State()
        self.stop_asked = False
        self._signalled = False

    def equip(self, network: nn.Module) -> None:
        """Train `network`, with an optimiser and an average of its own."""
        self.learner = Learner(self.config, network, self.fabric, self.share)
        names = shown_names([case.name for case in self.cases.training])
        self.guard = FiniteGuard(self.fabric, names, scales=self.learner.scales)

    @property
    def network(self) -> nn.Module:
        """The raw weights, which the optimiser moves."""
        return self.learner.network

    @property
    def ema(self) -> Ema:
        """Their average, which is judged and kept."""
        return self.learner.ema

    @property
    def optimiser(self) -> Optimizer:
        """What moves them."""
        return self.learner.optimiser

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Start from the weights of another run or bundle; before `train`."""
        self.learner.begin_from(weights)

    def train(self) -> State:
        """Run to the end of the budget or to a signal; the last checkpoint is always saved.

        Raises:
            NumericalError: a loss that is not finite; the weights are those of the step before.
            MemoryLimitError: out of memory, naming the setting to change.
        """
        with (
            self._announced(),
            interruptible(self._ask_to_stop),
            memory_explained(self.config, self.device),
        ):
            self._tick()
            for micro_batches in self._batches():
                self._report(self.step(micro_batches))
                self._tick()
                if self.state.step % self.config.epoch_steps == 0:
                    self._end_epoch()
                if self._validation_due():
                    self.validate()
                if self._saving_due():
                    self.save()
                if self._over():
                    break
            if not self.stop_asked:
                self.validate()
            self.save()
        return self.state

    def step(self, micro_batches: Sequence[Batch]) -> StepReport:
        """One optimiser step on the mean gradient of its micro-batches."""
        began = time.perf_counter()
        state, config = self.state, self.config
        rate = learning_rate(config, step=state.step, elapsed_seconds=state.now)
        losses, norm = self.learner.gradient(micro_batches)
        loss = self._mean_loss(losses)
        self.guard.check(state.step, loss, norm, losses=losses, micro_batches=micro_batches)
        self.learner.update(rate)
        self.learner.pseudo_dice.add_loss(loss)
        state.step += 1
        return StepReport(
            step=state.step,
            loss=loss,
            learning_rate=rate,
            gradient_norm=norm if math.isfinite(norm) else 0.0,
            seconds=time.perf_counter() - began,
            elapsed=state.elapsed,
            progress=progress(config, step=state.step, elapsed_seconds=state.elapsed),
        )

    def validate(self) -> None:
        """Judge the averaged weights on whole volumes; keep them if they are the best yet."""
        state = self.state
        if not self.cases.validation or state.validated_step == state.step:
            return
        report = processes.told(self.fabric, self._judge() if self.first else {})
        if state.judged(report["score"]) and self.first:
            self.reporter.say(f"best so far: mean Dice {report['score']:.3f}")
            self._save_best(report)
        if self._patience_over():
            self.reporter.say(
                f"no better score in {state.waited} validations: the run ends here "
                f"(patience={self.config.patience})"
            )

    def save(self) -> None:
        """Write ``last.pt``, everything that `resume` needs, and ``step_N.pt`` where it is due."""
        state = self.state
        content = {
            "config": self.config.to_json(),
            **state.to_content(),
            **self.learner.state(),
            "rng": processes.gathered(self.fabric, checkpoint.rng_state()),
        }
        if self.first:
            last = self.folder.last
            copies = (checkpoint.step_path(last, state.step),) if self._copy_due() else ()
            checkpoint.save_last(last, content, copies=copies)
        state.saved_at = state.now

    def resume(self) -> None:
        """Continue from ``last.pt``, or from the one before it where that is damaged.

        Raises:
            CheckpointError: there is no whole checkpoint.
        """
        content: dict[str, Any] = {}
        if self.first:
            checkpoint.clean_partials(self.folder.last.parent)
            content, source = checkpoint.load_last(self.folder.last)
            if source != self.folder.last:
                self.reporter.say(f"last.pt is damaged: continuing from {source.name}")
        content = processes.told(self.fabric, content)
        self.learner.load(content)
        self._restore_rng(content["rng"])
        self.state = State.from_content(content)
        self.state.now = self.state.elapsed
        if self.first:
            self.folder.forget_after(self.state.step)

    def _restore_rng(self, states: Any) -> None:
        """Of this process; one that was not there before goes on from its seed."""
        states = [states] if isinstance(states, dict) else states
        if self.fabric.global_rank < len(states):
            checkpoint.restore_rng_state(states[self.fabric.global_rank])

    def _batches(self) -> Iterator[list[Batch]]:
        if self._over():  # a finished run that was resumed
            return
        stream = batches(
            self.cases.training,
            self.config,
            first_step=self.state.step,
            workers=self.options.workers,
            share=self.share,
        )
        try:
            yield from stream
        except RuntimeError:
            # the signal that asked for the stop has ended the worker as well
            if not self._signalled:
                raise
            self.stop_asked = True

    def _mean_loss(self, losses: Sequence[float]) -> float:
        """Over the micro-batches and the processes."""
        if self.share.processes == 1:
            return sum(losses) / len(losses)
        sums = torch.tensor([sum(losses), len(losses)], dtype=torch.float64)
        loss, count = processes.total(self.fabric, sums).tolist()
        return float(loss / count)

    def _report(self, report: StepReport) -> None:
        if not self.first:
            return
        self.reporter.step(report)
        if report.step % self.options.record_steps == 0 or report.step == 1:
            self.folder.record("step", **asdict(report))

    def _judge(self) -> dict[str, Any]:
        """Validate, draw, record and report; the validation as plain values."""
        from training.runs.pictures import ValidationPictures  # a run without cases needs none

        state, began = self.state, self.state.elapsed
        result = validate(
            self.ema.network,
            self.cases.validation,
            self.config,
            show=ValidationPictures(self.folder, state.step, self.config.task),
        )
        values = result.to_json()
        at = {"step": state.step, "elapsed": state.elapsed, "seconds": state.elapsed - began}
        self.folder.record("validation", **at, **values)
        self.reporter.validation(state.step, result.cases, result.mean)
        return values

    def _end_epoch(self) -> None:
        """Sum up the last ``epoch_steps`` steps in one line."""
        learner = self.learner
        for batch in self._validation_patches():
            learner.judge(batch)
        epoch = learner.pseudo_dice.close_epoch(
            self.state.step, lambda sums: processes.total(self.fabric, sums)
        )
        if not self.first:
            return
        number = len(learner.pseudo_dice.history)
        self.folder.record("epoch", epoch=number, **epoch.to_json())
        words = " · ".join(f"{name} {dice:.3f}" for name, dice in epoch.pseudo_dice.items())
        average = "–" if epoch.average is None else f"{epoch.average:.4f}"
        self.reporter.say(
            f"epoch {number} · train loss {epoch.train_loss:.4f} · pseudo-Dice {words} · "
            f"moving average {average}"
        )

    def _validation_patches(self) -> Iterator[Batch]:
        """This process's part of an epoch's validation patches; others in every epoch."""
        count = self.config.pseudo_dice_patches if self.cases.validation else 0
        config = dataclasses.replace(
            self.config, batch=1, accumulate=1, mixed_patches=(), augmentation=_UNCHANGED
        )
        patches = PatchBatches(self.cases.validation, config) if count else None
        for number in range(self.share.rank, count, self.share.processes):
            assert patches is not None
            yield patches[len(self.learner.pseudo_dice.history) * count + number]

    def _tick(self) -> None:
        """Agree on the time and on whether to stop: what follows is decided alike everywhere."""
        state = self.state
        now, stop = processes.agree(self.fabric, state.elapsed, float(self._signalled))
        state.now = now
        self.stop_asked = self.stop_asked or stop > 0

    def _validation_due(self) -> bool:
        state, every = self.state, self.config.validate_steps
        by_steps = every is not None and state.step % every == 0
        waited = state.now - state.validated_at
        return by_steps or waited >= 60 * self.config.validate_minutes

    def _saving_due(self) -> bool:
        waited = self.state.now - self.state.saved_at
        return waited >= 60 * self.config.save_minutes or self._copy_due()

    def _copy_due(self) -> bool:
        every = self.config.save_steps
        return every is not None and self.state.step > 0 and self.state.step % every == 0

    def _over(self) -> bool:
        state = self.state
        over = progress(self.config, step=state.step, elapsed_seconds=state.now)
        return over >= 1 or self.stop_asked or self._patience_over()

    def _patience_over(self) -> bool:
        return self.config.patience is not None and self.state.waited >= self.config.patience

    def _save_best(self, validation: dict[str, Any]) -> None:
        content = {
            "config": self.config.to_json(),
            "step": self.state.step,
            "elapsed": self.state.elapsed,
            "weights": self.ema.network.state_dict(),
            "validation": validation,
        }
        checkpoint.save_checkpoint(self.folder.best, content)

    @contextmanager
    def _announced(self) -> Iterator[None]:
        self.learner.module.train()
        self.state.started = time.monotonic()
        if self.first:
            checkpoint.clean_partials(self.folder.last.parent)
        self.reporter.start(self.config.steps)
        try:
            yield
        finally:
            self.reporter.stop()

    def _ask_to_stop(self) -> None:
        self._signalled = True
