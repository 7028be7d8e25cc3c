"""The loop's laws: it learns, it resumes exactly, it stops before damage, it overwrites nothing."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch.nn import functional

from model_core.errors import MemoryLimitError, NumericalError, OptionError
from tests.training.loop.small_networks import small_network
from training.config import Augmentation, PatchMix, TrainConfig
from training.data.cases import CachedCase
from training.loop.checkpoint import load_checkpoint
from training.loop.losses import region_targets
from training.loop.sampler import Batch, PatchBatches
from training.loop.trainer import Cases, RunOptions, Trainer
from training.runs.reporter import Reporter, StepReport
from training.runs.run_folder import RunFolder
from training.task import BRATS

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
        return functional.binary_cross_entropy_with_logits(logits, region_targets(labels, BRATS))


def trainer(
    config: TrainConfig, cases: Cases, folder: RunFolder, reporter: Reporter | None = None
) -> Trainer:
    return Trainer(config, cases, folder=folder, options=IN_LOOP, reporter=reporter)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def assert_same_run(one: Trainer, other: Trainer) -> None:
    """Weights, averages, optimiser, records and history are equal bit for bit."""
    states = [run.learner.state() for run in (one, other)]
    for part in ("network", "heads", "ema"):
        for name, value in states[0][part].items():
            assert_same(states[1][part][name], value, name)
    for name, moments in states[0]["optimiser"]["state"].items():
        for key, value in moments.items():
            assert_same(states[1]["optimiser"]["state"][name][key], value, key)
    for kind in ("step", "epoch"):
        timeless = [
            [
                {k: v for k, v in line.items() if k not in ("seconds", "elapsed", "progress")}
                for line in run.folder.records(kind)
            ]
            for run in (one, other)
        ]
        assert timeless[0] == timeless[1]
        assert timeless[0]


def assert_same(ours: object, theirs: object, name: str) -> None:
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, torch.Tensor)
        assert torch.equal(ours, theirs), name
    else:
        assert ours == theirs, name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ten_steps_are_five_a_signal_a_resume_and_five(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path, number: signal.Signals
) -> None:
    cases, config = Cases(training=(make_case(),)), replace(tiny_config, epoch_steps=4)
    whole = trainer(config, cases, RunFolder.create(results, "whole"))
    whole.train()

    folder = RunFolder.create(results, "halves")
    first = trainer(config, cases, folder, Stopper(5, number))
    first.train()
    assert first.state.step == 5
    second = trainer(config, cases, folder)
    second.resume()
    second.train()

    assert second.state.step == 10
    assert_same_run(whole, second)
    assert len(folder.records("step")) == 10
    assert [line["step"] for line in folder.records("epoch")] == [4, 8]


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_it_resumes_exactly_with_accumulation_mixed_patches_and_every_optimiser(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path, optimiser: Literal["sgd", "adam"]
) -> None:
    cases = Cases(training=(make_case(), make_case("another", shape=(20, 36, 32))))
    config = replace(
        tiny_config,
        steps=6,
        accumulate=2,
        epoch_steps=2,
        optimiser=optimiser,
        mixed_patches=(PatchMix(patch=(24, 8, 8), batch=2, share=0.4),),
        augmentation=replace(NO_AUGMENTATION, flip=0.5, drop_channel=0.3),
    )
    kinds = {PatchBatches(cases.training, config).kind(number) for number in range(12)}
    assert kinds == {0, 1}
    whole = trainer(config, cases, RunFolder.create(results, "whole"))
    whole.train()
    folder = RunFolder.create(results, "halves")
    trainer(config, cases, folder, Stopper(3)).train()
    second = trainer(config, cases, folder)
    second.resume()
    second.train()
    assert_same_run(whole, second)


def test_a_deeply_supervised_run_resumes_with_its_heads(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads are in the checkpoint, not in the network; activations may be computed twice."""
    monkeypatch.setattr(
        "training.loop.trainer.build_network", lambda _, **__: small_network("lightm-unet")[0]
    )
    cases = Cases(training=(make_case(),))
    config = replace(
        tiny_config, patch=(16, 16, 16), steps=4, epoch_steps=2, deep_supervision=True,
        augmentation=NO_AUGMENTATION,
    )  # fmt: skip
    whole = trainer(config, cases, RunFolder.create(results, "whole"))
    names = set(whole.network.state_dict())
    fresh = whole.learner.state()["heads"]["0.weight"].clone()
    whole.train()
    assert set(whole.network.state_dict()) == names
    assert not torch.equal(whole.learner.state()["heads"]["0.weight"], fresh)
    folder = RunFolder.create(results, "halves")
    trainer(config, cases, folder, Stopper(2)).train()
    assert set(load_checkpoint(folder.last)["network"]) == names
    second = trainer(config, cases, folder)
    second.resume()
    second.train()
    assert_same_run(whole, second)

    light = trainer(
        replace(config, checkpoint_activations=True), cases, RunFolder.create(results, "light")
    )
    light.train()
    for name, value in whole.network.state_dict().items():
        torch.testing.assert_close(light.network.state_dict()[name], value, msg=name)


def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    cases = Cases(training=(make_case(),))
    config = replace(tiny_config, steps=6, epoch_steps=3, save_steps=2)
    whole = trainer(config, cases, RunFolder.create(results, "whole"))
    whole.train()
    folder = RunFolder.create(results, "halves")
    trainer(config, cases, folder, Stopper(5)).train()
    folder.last.write_bytes(folder.last.read_bytes()[:-500])
    (folder.last.parent / "last.partial").write_bytes(b"half")
    said: list[str] = []
    listener = Reporter()
    listener.say = lambda message, *, live=False: said.append(message)  # type: ignore[method-assign]
    second = trainer(config, cases, folder, listener)
    second.resume()
    assert second.state.step == 4
    assert any("damaged" in line for line in said)
    assert not list(folder.last.parent.glob("*.partial"))
    second.train()
    assert_same_run(whole, second)


def test_copies_are_kept_of_the_steps_that_were_asked_for(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    folder = RunFolder.create(results, "run")
    config = replace(tiny_config, steps=5, save_steps=2)
    trainer(config, Cases(training=(make_case(),)), folder).train()
    kept = {path.name: load_checkpoint(path)["step"] for path in folder.last.parent.iterdir()}
    assert kept == {"step_2.pt": 2, "step_4.pt": 4, "last.previous.pt": 4, "last.pt": 5}


def test_the_run_ends_when_its_patience_does(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.4, 0.6, 0.6, 0.3, 0.9])
    monkeypatch.setattr("training.loop.trainer.Trainer._judge", lambda _: {"score": next(scores)})
    case, folder = make_case(), RunFolder.create(results, "run")
    config = replace(tiny_config, steps=50, validate_steps=2, patience=2)
    cases = Cases(training=(case,), validation=(case,))
    machine = trainer(config, cases, folder)
    state = machine.train()
    assert state.step == 10
    assert state.scores == [(2, 0.5), (4, 0.4), (6, 0.6), (8, 0.6), (10, 0.3)]
    assert load_checkpoint(folder.best)["step"] == 6
    again = trainer(config, cases, folder)
    again.resume()
    assert again.train().step == 10, "a run that ended stays ended"
    more = trainer(replace(config, patience=3), cases, folder)
    more.resume()
    assert more.state.waited == 2
    assert more.state.best_score == 0.6


def test_an_epoch_is_measured_on_validation_patches_where_that_is_asked_for(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    case = make_case()
    config = replace(tiny_config, steps=4, epoch_steps=2, pseudo_dice_patches=3)
    folder = RunFolder.create(results, "run")
    machine = trainer(config, Cases(training=(case,), validation=(case,)), folder)
    judged: list[int] = []
    judge = machine.learner.judge

    def note(batch: Batch) -> None:
        judged.append(len(batch.images))
        judge(batch)

    machine.learner.judge = note  # type: ignore[method-assign]
    machine.train()
    assert judged == [1] * 6
    one, two = folder.records("epoch")
    assert (one["epoch"], two["epoch"]) == (1, 2)
    steps = folder.records("step")
    assert one["train_loss"] == pytest.approx((steps[0]["loss"] + steps[1]["loss"]) / 2)
    assert two["average"] == pytest.approx(0.9 * one["average"] + 0.1 * two["mean"])


def test_weights_of_another_run_are_taken_for_network_and_average(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    machine = trainer(tiny_config, Cases(training=(make_case(),)), RunFolder.create(results, "run"))
    weights = {name: torch.full_like(v, 0.25) for name, v in machine.network.state_dict().items()}
    machine.begin_from(weights)
    for network in (machine.network, machine.ema.network):
        assert all(bool((value == 0.25).all()) for value in network.state_dict().values())


def test_out_of_memory_names_the_setting_to_change(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    config = replace(tiny_config, batch=2)
    machine = trainer(config, Cases(training=(make_case(),)), RunFolder.create(results, "run"))

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    machine.network.body.register_forward_hook(full)
    with pytest.raises(MemoryLimitError, match=r"batch=1 --set accumulate=2"):
        machine.train()


def test_half_precision_without_a_gpu_is_refused(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    config = replace(tiny_config, precision="float16")
    with pytest.raises(OptionError, match="bfloat16"):
        trainer(config, Cases(training=(make_case(),)), RunFolder.create(results, "run"))


def test_training_without_its_packages_names_the_extra(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(OptionError, match=r"segmamba-service\[train\]"):
        trainer(tiny_config, Cases(training=(make_case(),)), RunFolder.create(results, "run"))


def test_devices_that_cannot_share_a_step_are_refused_before_anything_starts(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    folder, cases = RunFolder.create(results, "run"), Cases(training=(make_case(),))
    options = RunOptions(workers=0, devices=3)
    with pytest.raises(OptionError, match="accumulate=3"):
        Trainer(tiny_config, cases, folder=folder, options=options)


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
    machine.learner.loss = CrossEntropy()
    (one,), (two,) = list(machine._batches())[:2]

    def gradient(micro_batches: list[Batch]) -> torch.Tensor:
        machine.network.zero_grad()
        for batch in micro_batches:
            machine.learner.backward(batch, 1 / len(micro_batches))
        return machine.network.get_parameter("head.weight").grad.clone()  # type: ignore[union-attr]

    double = Batch(*(torch.cat(both) for both in zip(one, two, strict=True)))
    torch.testing.assert_close(gradient([one, two]), gradient([double]), rtol=1e-4, atol=1e-6)


def test_a_non_finite_loss_stops_before_the_optimiser_moves(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path
) -> None:
    machine = trainer(tiny_config, Cases(training=(make_case(),)), RunFolder.create(results, "run"))
    before = {name: value.clone() for name, value in machine.network.state_dict().items()}
    (batch,) = next(machine._batches())
    batch[0][0, 0, 0, 0, 0] = torch.nan
    with pytest.raises(NumericalError, match=r"step 0.*patches of case 1\."):
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
        machine._signalled = stopped
        raise RuntimeError("worker exited unexpectedly")

    monkeypatch.setattr("training.loop.trainer.batches", broken)
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
    loss = machine.learner.loss.forward

    def judge(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        judged.append(torch.is_autocast_enabled("cpu"))
        return loss(logits, labels)

    machine.learner.loss.forward = judge  # type: ignore[method-assign]
    gradients = next(iter(machine.network.parameters()))
    machine.learner.backward(next(machine._batches())[0], 1.0)
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


def test_a_2d_network_trains_on_slices_and_is_judged_on_volumes(
    tiny_config: TrainConfig, make_case: MakeCase, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "training.loop.trainer.build_network", lambda _, **__: small_network("lightm-unet-2d")[0]
    )
    config = replace(
        tiny_config, network="lightm-unet", task=replace(tiny_config.task, dims=2), steps=12,
        patch=(1, 16, 16), batch=3, learning_rate=1e-2, deep_supervision=True, ema_decay=0.5,
        augmentation=Augmentation(affine=0.5), foreground_share=1.0,
    )  # fmt: skip
    case, folder = make_case(shape=(36, 32, 32)), RunFolder.create(results, "slices")
    trainer(config, Cases(training=(case,), validation=(case,)), folder).train()
    losses = [line["loss"] for line in folder.records("step")]
    assert sum(losses[-3:]) < sum(losses[:3])
    (validation,) = folder.records("validation")
    assert 0 <= validation["score"] <= 1
    assert list(folder.plots.glob("val_predictions_epoch_*.png"))
