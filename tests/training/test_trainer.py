"""The loop's laws: it learns, it resumes exactly, it stops before damage, it overwrites nothing."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from model_core.errors import NumericalError, OptionError
from training.cases import CachedCase
from training.checkpoint import load_checkpoint
from training.config import Augmentation, TrainConfig
from training.losses import region_targets
from training.reporter import Reporter, StepReport
from training.run_folder import RunFolder
from training.trainer import Cases, RunOptions, Trainer

NO_AUGMENTATION = Augmentation(flip=0, affine=0, intensity=0, noise=0, blur=0, low_resolution=0)
MakeCase = Callable[..., CachedCase]


IN_LOOP = RunOptions(workers=0, record_steps=1)


class Stopper(Reporter):
    """Asks for a stop, as Ctrl-C or a scheduler does, once a step is reached."""

    def __init__(self, at: int, number: signal.Signals = signal.SIGTERM) -> None:
        super().__init__()
        self.at, self.number = at, number

    def step(self, report: StepReport) -> None:
        if report.step == self.at:
            signal.raise_signal(self.number)


class CrossEntropy(torch.nn.Module):
    """A loss that is a plain mean over voxels."""

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(logits, region_targets(labels))


def trainer(
    config: TrainConfig, cases: Cases, folder: RunFolder, reporter: Reporter | None = None
) -> Trainer:
    return Trainer(config, cases, folder=folder, options=IN_LOOP, reporter=reporter)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ten_steps_are_five_a_signal_a_resume_and_five(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path, number: signal.Signals
) -> None:
    cases = Cases(training=(make_case(),))
    whole = trainer(tiny_config, cases, RunFolder.create(results, "whole"))
    whole.train()

    folder = RunFolder.create(results, "halves")
    first = trainer(tiny_config, cases, folder, Stopper(5, number))
    first.train()
    assert first.state.step == 5
    second = trainer(tiny_config, cases, folder)
    second.resume()
    second.train()

    assert second.state.step == 10
    for name, value in whole.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value), name
    for name, value in whole.ema.network.state_dict().items():
        assert torch.equal(second.ema.network.state_dict()[name], value), name
    losses = [[line["loss"] for line in run.folder.records("step")] for run in (whole, second)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 10


def test_a_small_network_learns_one_case(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    config = replace(
        tiny_config, steps=60, learning_rate=3e-2, augmentation=NO_AUGMENTATION, ema_decay=0.9
    )
    case = make_case()
    folder = RunFolder.create(results, "learns")
    trainer(config, Cases(training=(case,), validation=(case,)), folder).train()
    losses = [line["loss"] for line in folder.records("step")]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    (validation,) = folder.records("validation")
    assert validation["mean"]["WT"] > 0.7
    assert load_checkpoint(folder.best)["validation"]["score"] == validation["score"]


def test_accumulated_micro_batches_are_one_step_on_their_mean_gradient(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    """With plain cross-entropy the mean over two micro-batches is the mean over one double one."""
    cases = Cases(training=(make_case(),))
    machine = trainer(tiny_config, cases, RunFolder.create(results, "run"))
    machine.network.eval()
    machine.loss = CrossEntropy()  # type: ignore[assignment]
    (one,), (two,) = list(machine._batches())[:2]

    def gradient(micro_batches: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        machine.network.zero_grad()
        for batch in micro_batches:
            machine._backward(batch, 1 / len(micro_batches))
        return machine.network.get_parameter("head.weight").grad.clone()  # type: ignore[union-attr]

    double = (torch.cat([one[0], two[0]]), torch.cat([one[1], two[1]]))
    torch.testing.assert_close(gradient([one, two]), gradient([double]), rtol=1e-4, atol=1e-6)


def test_a_non_finite_loss_stops_before_the_optimiser_moves(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    machine = trainer(tiny_config, Cases(training=(make_case(),)), RunFolder.create(results, "run"))
    before = {name: value.clone() for name, value in machine.network.state_dict().items()}
    (batch,) = next(machine._batches())
    batch[0][0, 0, 0, 0, 0] = torch.nan
    with pytest.raises(NumericalError, match="step 0"):
        machine.step([batch])
    assert machine.state.step == 0
    for name, value in machine.network.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("stopped", [True, False])
def test_a_worker_that_ends_is_an_error_unless_a_stop_was_asked_for(
    tiny_config: TrainConfig,
    make_case: MakeCase,
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped: bool,
) -> None:
    machine = trainer(tiny_config, Cases(training=(make_case(),)), RunFolder.create(results, "run"))
    (first, *_) = machine._batches()

    def broken(*args: object, **settings: object) -> Iterator[object]:
        yield first
        machine.stop_asked = stopped
        raise RuntimeError("worker exited unexpectedly")

    monkeypatch.setattr("training.trainer.batches", broken)
    if stopped:
        machine.train()
        assert load_checkpoint(machine.folder.last)["step"] == 1
    else:
        with pytest.raises(RuntimeError, match="unexpectedly"):
            machine.train()


def test_the_time_budget_ends_a_run(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    config = replace(tiny_config, steps=100_000, max_minutes=1e-3)
    machine = trainer(config, Cases(training=(make_case(),)), RunFolder.create(results, "run"))
    machine.train()
    assert 1 <= machine.state.step < 50
    assert machine.folder.last.is_file()


def test_validation_happens_when_its_steps_are_due_and_at_the_end(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    case = make_case()
    folder = RunFolder.create(results, "run")
    config = replace(tiny_config, steps=5, validate_steps=2)
    trainer(config, Cases(training=(case,), validation=(case,)), folder).train()
    assert [line["step"] for line in folder.records("validation")] == [2, 4, 5]


def test_a_new_run_never_takes_an_old_ones_place(results: Path) -> None:
    folder = RunFolder.create(results, "run")
    folder.config.write_text(json.dumps({}))
    with pytest.raises(OptionError, match="--resume"):
        RunFolder.create(results, "run")
    assert RunFolder.existing(results, "run").path == folder.path


def test_only_a_run_that_exists_is_continued(results: Path) -> None:
    with pytest.raises(OptionError, match="without --resume"):
        RunFolder.existing(results, "run")


def test_bfloat16_trains_float32_weights_and_judges_in_float32(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    """Convolutions round; weights, gradients, their average and what is saved do not."""
    config = replace(tiny_config, precision="bfloat16", steps=2)
    machine = trainer(config, Cases(training=(make_case(),)), RunFolder.create(results, "run"))
    inside: set[torch.dtype] = set()
    machine.network.body.register_forward_hook(lambda _m, _i, out: inside.add(out.dtype))
    judged: list[bool] = []
    loss = machine.loss.forward

    def judge(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        judged.append(torch.is_autocast_enabled("cpu"))
        return loss(logits, labels)

    machine.loss.forward = judge  # type: ignore[method-assign]
    gradients = next(iter(machine.network.parameters()))
    machine._backward(next(machine._batches())[0], 1.0)
    assert gradients.grad is not None
    assert gradients.grad.dtype == torch.float32
    machine.optimiser.zero_grad()
    machine.train()
    assert inside == {torch.bfloat16}
    assert judged
    assert not any(judged)
    saved = load_checkpoint(machine.folder.last)
    for state in (machine.network.state_dict(), machine.ema.network.state_dict(), saved["network"]):
        assert {value.dtype for value in state.values()} == {torch.float32}


def test_bfloat16_resumes_exactly(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    config = replace(tiny_config, precision="bfloat16", steps=4)
    cases = Cases(training=(make_case(),))
    whole = trainer(config, cases, RunFolder.create(results, "whole"))
    whole.train()
    folder = RunFolder.create(results, "halves")
    trainer(config, cases, folder, Stopper(2)).train()
    second = trainer(config, cases, folder)
    second.resume()
    second.train()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value), name


def test_bfloat16_learns_nearly_as_float32_does(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    config = replace(tiny_config, steps=30, learning_rate=3e-2, augmentation=NO_AUGMENTATION)
    cases = Cases(training=(make_case(),))
    final = {}
    for precision in ("float32", "bfloat16"):
        folder = RunFolder.create(results, precision)
        trainer(replace(config, precision=precision), cases, folder).train()
        losses = [line["loss"] for line in folder.records("step")]
        final[precision] = sum(losses[-5:]) / 5
        assert final[precision] < 0.6 * sum(losses[:5]) / 5
    assert final["bfloat16"] == pytest.approx(final["float32"], rel=0.1)
    assert final["bfloat16"] != final["float32"]


def test_a_non_finite_loss_in_bfloat16_stops_before_the_optimiser_moves(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    config = replace(tiny_config, precision="bfloat16")
    machine = trainer(config, Cases(training=(make_case(),)), RunFolder.create(results, "run"))
    before = {name: value.clone() for name, value in machine.network.state_dict().items()}
    (batch,) = next(machine._batches())
    batch[0][0, 0, 0, 0, 0] = torch.inf
    with pytest.raises(NumericalError, match="precision=float32"):
        machine.step([batch])
    for name, value in machine.network.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(("fast", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_settled_when_the_run_starts_and_kept(
    tiny_config: TrainConfig,
    make_case: MakeCase,
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    fast: bool,
    expected: str,
) -> None:
    monkeypatch.delenv("SEGMAMBA_PRECISION", raising=False)
    monkeypatch.setattr("model_core.precision.cpu_features", lambda: {"avx512_bf16": fast})
    config = replace(tiny_config, precision="auto", steps=1)
    machine = trainer(config, Cases(training=(make_case(),)), RunFolder.create(results, "run"))
    machine.train()
    assert load_checkpoint(machine.folder.last)["config"]["precision"] == expected
