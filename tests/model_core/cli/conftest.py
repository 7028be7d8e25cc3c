"""A model small enough for a test, and a study small enough for the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from model_core.checkpoints import CardDraft, save_bundle
from model_core.networks import build_network, network_config
from model_core.phantom import write_phantom

SHAPE = (32, 36, 30)
"""Voxels of the test phantoms: odd enough to need padding, small enough for a second."""


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundles that holds one, ``tiny``: random weights, three windows."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    network = build_network(
        "segmamba", in_channels=4, out_channels=3, depths=(1, 1, 1, 1), features=(4, 4, 8, 8),
        hidden=8,
    )  # fmt: skip
    card = CardDraft(
        name="tiny",
        version="0.0.1",
        family="segmamba",
        network=network_config(network),
        channels=("t1", "t1ce", "t2", "flair"),
        heads="regions",
        outputs=("WT", "TC", "ET"),
        label_scheme="brats2021",
        orientation="SPL",
        spacing_mm=(1.0, 1.0, 1.0),
        normalisation="zscore-nonzero",
        window=(32, 32, 32),
        overlap=0.5,
        mirror_axes=(0, 1, 2),
        tta="none",
        postprocess=(),
        training={"data": "none", "code_version": "0", "recipe": "random weights"},
        metrics={},
        licence="MIT",
        intended_use="tests",
        limitations="means nothing",
        citation="none",
    )
    save_bundle(folder / "tiny", network, card=card)
    return folder


@pytest.fixture
def segmamba(monkeypatch: pytest.MonkeyPatch, models_folder: Path) -> Callable[..., Result]:
    """Run the command line as a user would, with ``tiny`` among the models."""
    from model_core.cli.main import app

    monkeypatch.setenv("SEGMAMBA_MODELS", str(models_folder))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("SEGMAMBA_DEBUG", raising=False)
    for name in ("SCAN_BACKEND", "PRECISION", "THREADS", "MEMORY_LIMIT_MB"):
        monkeypatch.delenv(f"SEGMAMBA_{name}", raising=False)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one phantom study in BraTS naming, with its truth."""
    folder = tmp_path_factory.mktemp("study") / "Phantom_0000"
    write_phantom(folder, seed=0, shape=SHAPE)
    return folder
