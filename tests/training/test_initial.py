"""A run begins from weights that fit, all of them, or is refused by the tensor's name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from model_core.checkpoints import save_bundle
from model_core.errors import CheckpointError, OptionError
from model_core.networks import build_network
from training.card import draft_card
from training.config import TrainConfig
from training.initial import fit_initial, read_initial
from training.loop.checkpoint import best_weights, save_checkpoint
from training.recipes import lightm_unet_3d, small_segmamba
from training.runs.run_folder import RunFolder, write_json
from training.task import BRATS

SMALL = {
    "network_args": {"depths": [1, 0, 0, 0], "features": [4, 4, 4, 4], "hidden": 4},
    "patch": [16, 16, 16],
}


@pytest.fixture
def config() -> TrainConfig:
    return small_segmamba().with_settings(SMALL)


@pytest.fixture
def run(tmp_path: Path, config: TrainConfig) -> RunFolder:
    """A run with a best checkpoint of random weights."""
    torch.manual_seed(3)
    folder = RunFolder.create(tmp_path, "earlier")
    write_json(folder.config, config.to_json())
    write_json(folder.split, {"training": ["a", "b"], "validation": ["c"]})
    network = build_network(config.network, **config.network_args)
    content = {"weights": network.state_dict(), "step": 7, "elapsed": 60.0}
    save_checkpoint(folder.best, {"config": config.to_json(), **content})
    return folder


def with_heads(config: TrainConfig, heads: str) -> TrainConfig:
    return dataclasses.replace(config, task=dataclasses.replace(BRATS, heads=heads))  # type: ignore[arg-type]


def test_the_same_network_takes_every_tensor(run: RunFolder, config: TrainConfig) -> None:
    beginning = fit_initial(read_initial(run.path), config)
    stored = best_weights(run)["weights"]
    assert beginning.tensors.keys() == stored.keys()
    assert all(torch.equal(beginning.tensors[name], stored[name]) for name in stored)
    assert beginning.drawn_anew == beginning.remarks == ()


def test_a_head_of_another_meaning_is_drawn_anew_and_said(
    run: RunFolder, config: TrainConfig
) -> None:
    beginning = fit_initial(read_initial(run.path), with_heads(config, "labels"))
    stored = best_weights(run)["weights"]
    fresh = build_network(config.network, **with_heads(config, "labels").network_args).state_dict()
    changed = {name for name in fresh if fresh[name].shape != stored[name].shape}
    assert set(beginning.drawn_anew) == changed
    assert 1 <= len(changed) <= 2, "weight and bias of the last convolution"
    assert beginning.tensors.keys() == fresh.keys() - changed
    (remark,) = beginning.remarks
    assert "WT, TC, ET" in remark
    assert "background, NCR, ED, ET" in remark


def test_a_head_of_equal_size_and_other_names_is_drawn_anew(
    run: RunFolder, config: TrainConfig
) -> None:
    """Three channels are not three channels: what they mean decides."""
    task = dataclasses.replace(BRATS, labels=("a", "b"), regions=(), heads="labels")
    beginning = fit_initial(read_initial(run.path), dataclasses.replace(config, task=task))
    assert beginning.drawn_anew


def test_another_order_of_channels_is_said(run: RunFolder, config: TrainConfig) -> None:
    task = dataclasses.replace(BRATS, channels=("t2", "flair", "t1", "t1ce"))
    beginning = fit_initial(read_initial(run.path), dataclasses.replace(config, task=task))
    assert beginning.drawn_anew == ()
    assert "t1, t1ce, t2, flair, now t2, flair, t1, t1ce" in beginning.remarks[0]


def test_a_run_and_its_bundle_have_one_fingerprint_and_other_weights_another(
    run: RunFolder, config: TrainConfig, tmp_path: Path
) -> None:
    network = build_network(config.network, **config.network_args)
    best = best_weights(run)
    network.load_state_dict(best["weights"])
    card = draft_card(run, network, config, best, name="same", version="1", metrics={})
    save_bundle(tmp_path / "bundle", network, card)
    mine = read_initial(run.path).fingerprint
    assert read_initial(tmp_path / "bundle").fingerprint == mine
    name, tensor = next((n, t) for n, t in best["weights"].items() if t.is_floating_point())
    best["weights"][name] = tensor + 1e-3
    save_checkpoint(run.best, {key: best[key] for key in ("config", "weights", "step", "elapsed")})
    assert read_initial(run.path).fingerprint != mine


def test_before_the_first_validation_the_last_average_is_taken(
    run: RunFolder, config: TrainConfig
) -> None:
    best = best_weights(run)
    run.best.unlink()
    average = {name: tensor * 2 for name, tensor in best["weights"].items()}
    content = {"config": config.to_json(), "step": 3, "elapsed": 5.0}
    save_checkpoint(run.last, {**content, "ema": {**average, "updates": 3}})
    taken = read_initial(run.path).tensors
    assert taken.keys() == average.keys()
    assert all(torch.equal(taken[name], average[name]) for name in average)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network_args.hidden": 8}, "hidden|shape"),
        ({"network_args.depths": [2, 0, 0, 0]}, "missing"),
        ({"task.channels": ["t1ce", "flair"]}, "t1, t1ce, t2, flair"),
    ],
)
def test_what_does_not_fit_is_refused(
    run: RunFolder, config: TrainConfig, change: dict[str, object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        fit_initial(read_initial(run.path), config.with_settings(change))


def test_another_network_is_refused_by_name(run: RunFolder) -> None:
    with pytest.raises(CheckpointError, match="segmamba, the recipe trains a lightm-unet"):
        fit_initial(read_initial(run.path), lightm_unet_3d())


def test_folds_and_strangers_are_refused(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "xv").mkdir()
    run.path.rename(tmp_path / "xv" / "fold_0")
    with pytest.raises(OptionError, match="xv/fold_0"):
        read_initial(tmp_path / "xv")
    with pytest.raises(OptionError, match="segmamba runs"):
        read_initial("no-such-model")


def test_a_run_that_saved_nothing_has_no_weights(run: RunFolder) -> None:
    run.best.unlink()
    assert json.loads(run.config.read_text())
    with pytest.raises(CheckpointError, match="before its first save"):
        read_initial(run.path)
