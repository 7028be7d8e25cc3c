"""The loop: load → step → log → validate → save, until the steps or the minutes are used up.

A run resumed from its last checkpoint continues bit for bit as if it had not been interrupted (on
the same machine and thread count, as long as the clock does not shape it: see `training.optim`).
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import nn

from model_core.errors import NumericalError
from model_core.networks import build_network
from model_core.precision import at_precision, resolve_precision
from training import checkpoint
from training.cases import CachedCase
from training.config import TrainConfig
from training.ema import Ema
from training.losses import SegmentationLoss
from training.optim import build_optimiser, learning_rate, progress
from training.reporter import Reporter, StepReport
from training.run_folder import RunFolder
from training.sampler import Batch, batches
from training.validate import validate


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run uses the machine; nothing here decides the weights."""

    device: str = "cpu"
    workers: int = 1
    """Processes that prepare patches ahead; 0 prepares them in the loop."""
    record_steps: int = 10
    """One line in ``metrics.jsonl`` every so many steps."""


@dataclass(frozen=True, kw_only=True)
class Cases:
    """What trains and what judges."""

    training: tuple[CachedCase, ...]
    validation: tuple[CachedCase, ...] = ()


@dataclass(kw_only=True)
class State:
    """How far a run is; seconds count the running time of all parts of the run together."""

    step: int = 0
    earlier_seconds: float = 0.0
    best_score: float = -1.0
    saved_at: float = 0.0
    validated_at: float = 0.0
    validated_step: int = -1
    started: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds of running so far."""
        return self.earlier_seconds + time.monotonic() - self.started


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
        self.reporter = reporter or Reporter()
        self.device = torch.device(self.options.device)
        self._precision = resolve_precision(self.device, config.precision)
        self._layout = torch.channels_last_3d if config.channels_last else torch.contiguous_format
        torch.manual_seed(config.seed)
        network = build_network(config.network, **config.network_args).to(self.device)
        self.network: nn.Module = network.to(memory_format=self._layout)  # type: ignore[call-overload]
        self.ema = Ema(self.network, config.ema_decay)
        self.optimiser = build_optimiser(self.network, config)
        self.loss = SegmentationLoss(config.heads)
        self.state = State()
        self.stop_asked = False

    def train(self) -> State:
        """Run to the end of the budget or to a signal; the last checkpoint is always saved."""
        with self._announced(), self._interruptible():
            for micro_batches in self._batches():
                self._report(self.step(micro_batches))
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

    def step(self, micro_batches: list[Batch]) -> StepReport:
        """One optimiser step on the mean gradient of its micro-batches."""
        began = time.perf_counter()
        state, config = self.state, self.config
        rate = learning_rate(config, step=state.step, elapsed_seconds=state.elapsed)
        loss = sum(self._backward(batch, 1 / len(micro_batches)) for batch in micro_batches)
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm))
        self._require_finite(loss, norm)
        self._update(rate)
        return StepReport(
            step=state.step,
            loss=loss,
            learning_rate=rate,
            gradient_norm=norm,
            seconds=time.perf_counter() - began,
            elapsed=state.elapsed,
            progress=progress(config, step=state.step, elapsed_seconds=state.elapsed),
        )

    def validate(self) -> None:
        """Judge the averaged weights on whole volumes; keep them if they are the best yet."""
        state = self.state
        if not self.cases.validation or state.validated_step == state.step:
            return
        began = state.elapsed
        result = validate(self.ema.network, self.cases.validation, self.config)
        state.validated_step, state.validated_at = state.step, state.elapsed
        seconds = state.elapsed - began
        at = {"step": state.step, "elapsed": state.elapsed, "seconds": seconds}
        self.folder.record("validation", **at, **result.to_json())
        self.reporter.validation(state.step, result.cases, result.mean)
        if result.score > state.best_score:
            state.best_score = result.score
            self.reporter.say(f"best so far: mean Dice {result.score:.3f} ({seconds:.0f} s)")
            self._save_best(result.to_json())

    def save(self) -> None:
        """Write ``last.pt``: everything that `resume` needs."""
        state = self.state
        content = {
            "config": self.config.to_json(),
            "step": state.step,
            "elapsed": state.elapsed,
            "best_score": state.best_score,
            "validated_at": state.validated_at,
            "validated_step": state.validated_step,
            "network": self.network.state_dict(),
            "ema": self.ema.state(),
            "optimiser": self.optimiser.state_dict(),
            "rng": checkpoint.rng_state(),
        }
        checkpoint.save_checkpoint(self.folder.last, content)
        state.saved_at = state.elapsed

    def resume(self) -> None:
        """Continue from ``last.pt``."""
        content = checkpoint.load_checkpoint(self.folder.last)
        self.network.load_state_dict(content["network"])
        self.ema.load(content["ema"])
        self.optimiser.load_state_dict(content["optimiser"])
        checkpoint.restore_rng_state(content["rng"])
        self.state = State(
            step=content["step"],
            earlier_seconds=content["elapsed"],
            best_score=content["best_score"],
            saved_at=content["elapsed"],
            validated_at=content["validated_at"],
            validated_step=content["validated_step"],
        )
        self.folder.forget_after(self.state.step)

    def _batches(self) -> Iterator[list[Batch]]:
        stream = batches(
            self.cases.training,
            self.config,
            first_step=self.state.step,
            workers=self.options.workers,
        )
        try:
            yield from stream
        except RuntimeError:
            # the signal that asked for the stop has ended the worker as well
            if not self.stop_asked:
                raise

    def _backward(self, batch: Batch, share: float) -> float:
        """Add one micro-batch's gradient; gives its share of the step's loss."""
        images = batch[0].to(self.device, memory_format=self._layout)
        labels = batch[1].to(self.device)
        with at_precision(self.device, self._precision):
            logits = self.network(images)
        loss = self.loss(logits, labels) * share
        loss.backward()
        return float(loss.detach())

    def _require_finite(self, loss: float, norm: float) -> None:
        """Stop before the optimiser moves: the weights are still those of the last good step."""
        if math.isfinite(loss) and math.isfinite(norm):
            return
        raise NumericalError(
            f"Training stopped at step {self.state.step}: loss {loss}, gradient norm {norm}. "
            "The weights were not touched by this step. Lower learning_rate, or use "
            "precision=float32, and continue with --resume."
        )

    def _update(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.ema.update(self.network)
        self.state.step += 1

    def _report(self, report: StepReport) -> None:
        self.reporter.step(report)
        if report.step % self.options.record_steps == 0 or report.step == 1:
            self.folder.record("step", **asdict(report))

    def _validation_due(self) -> bool:
        state, every = self.state, self.config.validate_steps
        by_steps = every is not None and state.step % every == 0
        waited = state.elapsed - state.validated_at
        return by_steps or waited >= 60 * self.config.validate_minutes

    def _saving_due(self) -> bool:
        return self.state.elapsed - self.state.saved_at >= 60 * self.config.save_minutes

    def _over(self) -> bool:
        state = self.state
        over = progress(self.config, step=state.step, elapsed_seconds=state.elapsed)
        return over >= 1 or self.stop_asked

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
        self.network.train()
        self.state.started = time.monotonic()
        self.reporter.start(self.config.steps)
        try:
            yield
        finally:
            self.reporter.stop()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Turn the first Ctrl-C or SIGTERM into a stop after the running step; a second kills."""
        kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask(number: int, _: FrameType | None) -> None:
            self.stop_asked = True
            signal.signal(number, kept[signal.Signals(number)])

        for number in kept:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)
