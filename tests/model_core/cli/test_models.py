"""`segmamba models` and `segmamba import`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from model_core.checkpoints import load_bundle
from model_core.networks import build_network
from model_core.networks.upstream_keys import key_map

Run = Callable[..., Result]


def test_the_list_names_every_bundle_with_its_facts(segmamba: Run) -> None:
    listing = segmamba("models").stdout
    (line,) = [line for line in listing.splitlines() if line.strip().startswith("tiny")]
    assert "segmamba" in line
    assert "32×32×32" in line
    assert "MIT" in line


def test_a_card_is_shown_whole(segmamba: Run, models_folder: Path) -> None:
    card = json.loads((models_folder / "tiny" / "card.json").read_text())
    shown = segmamba("models", "tiny").stdout
    assert card["weights"]["sha256"] in shown
    assert all(field in shown for field in card)
    assert json.loads(segmamba("models", "tiny", "--json").stdout) == card


def test_a_damaged_bundle_is_listed_with_the_reason_and_hides_no_other(
    segmamba: Run, models_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(models_folder / "tiny", tmp_path / "tiny")
    shutil.copytree(models_folder / "tiny", tmp_path / "damaged")
    (tmp_path / "damaged" / "card.json").write_text("{}")
    monkeypatch.setenv("SEGMAMBA_MODELS", str(tmp_path))
    done = segmamba("models")
    assert done.exit_code == 0
    assert "32×32×32" in done.stdout
    assert "format_version" in done.stdout


def test_an_unknown_name_is_refused_with_those_that_exist(segmamba: Run) -> None:
    done = segmamba("models", "nope")
    assert done.exit_code == 2
    assert "tiny" in done.stderr


def test_a_card_without_a_name_cannot_name_the_folder(segmamba: Run, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"")
    (tmp_path / "card.json").write_text('{"name": "../evil"}')
    done = segmamba("import", tmp_path / "w.pth", "--card", tmp_path / "card.json")
    assert done.exit_code == 2
    assert "name" in done.stderr


def test_weights_that_are_none_are_refused_and_nothing_is_written(
    segmamba: Run, models_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "w.pth").write_bytes(b"not weights")
    out = tmp_path / "bundle"
    card = models_folder / "tiny" / "card.json"
    done = segmamba("import", tmp_path / "w.pth", "--card", card, "-o", out)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert not out.exists()


def test_the_authors_weights_become_a_bundle_that_is_listed(
    segmamba: Run, models_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = build_network("segmamba", features=[8, 8, 8, 8], hidden=8).state_dict()
    names = key_map("segmamba", tensors)
    torch.save({theirs: tensors[ours] for theirs, ours in names.items()}, tmp_path / "w.pth")
    card = json.loads((models_folder / "tiny" / "card.json").read_text())
    told_by_the_weights = ("family", "network", "weights")
    card = {key: value for key, value in card.items() if key not in told_by_the_weights}
    card |= {"name": "theirs", "heads": "labels", "outputs": ["background", "NCR", "ED", "ET"]}
    (tmp_path / "card.json").write_text(json.dumps(card))
    monkeypatch.chdir(tmp_path)
    done = segmamba("import", "w.pth", "--card", "card.json")
    assert done.exit_code == 0, done.output
    assert torch.equal(load_bundle(tmp_path / "theirs").network.state_dict()["head.weight"],
                       tensors["head.weight"])  # fmt: skip
    monkeypatch.setenv("SEGMAMBA_MODELS", str(tmp_path))
    assert "theirs" in segmamba("models").stdout
