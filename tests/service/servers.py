"""A bundle small enough for a test, and ``segmamba serve`` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from model_core.checkpoints import CardDraft, TrainingRecord, save_bundle
from model_core.networks import build_network, network_config
from model_core.types import CONTRASTS
from tests.service.fakes import gzip_nifti, wait_until

COMMAND = [sys.executable, "-c", "from model_core.cli.main import main; main()"]
HEAD_SHAPE = (40, 36, 30)
HEAD_AFFINE = np.array([[-1.0, 0, 0, 20], [0, -1, 0, 30], [0, 0, 1, -7], [0, 0, 0, 1]])


def write_tiny_bundle(
    models: Path, name: str = "tiny", *, version: str = "0.0.1", seed: int = 3, folder: str = ""
) -> Path:
    """A SegMamba with random weights whose label maps are a mixture of all labels.

    Args:
        models: the folder of models.
        name: of the model.
        version: of its card.
        seed: of its weights.
        folder: of the version inside the model's own; none: the model's own.
    """
    torch.manual_seed(seed)
    network = build_network(
        "segmamba", in_channels=4, out_channels=4, depths=(1, 1, 1, 1), features=(4, 4, 8, 8),
        hidden=8,
    )  # fmt: skip
    with torch.no_grad():
        network.head.weight.mul_(20)
        network.head.bias.zero_()
    card = CardDraft(
        name=name,
        version=version,
        family="segmamba",
        network=network_config(network),
        channels=CONTRASTS,
        heads="labels",
        outputs=("background", "NCR", "ED", "ET"),
        label_scheme="brats2021",
        orientation="SPL",
        spacing_mm=(1.0, 1.0, 1.0),
        normalisation="zscore-nonzero",
        window=(32, 32, 32),
        overlap=0.5,
        mirror_axes=(0, 1, 2),
        tta="none",
        postprocess=(),
        training=TrainingRecord(data="none", code_version="0", recipe="random weights"),
        metrics={},
        licence="MIT",
        intended_use="tests",
        limitations="means nothing",
        citation="none",
    )
    home = models / name / folder
    save_bundle(home, network, card=card)
    return home


def head_images(seed: int = 7, *, shape: tuple[int, int, int] = HEAD_SHAPE) -> dict[str, bytes]:
    """Four smooth, asymmetric, different images in a margin of zeros, as .nii.gz files."""
    rng = np.random.default_rng(seed)
    images = {}
    for contrast in CONTRASTS:
        array = np.zeros(shape, dtype=np.int16)
        inner = gaussian_filter(rng.normal(size=tuple(n - 6 for n in shape)), 3)
        array[3:-3, 3:-3, 3:-3] = 1000 + 5000 * inner
        image = nib.Nifti1Image(array, HEAD_AFFINE)
        image.header.set_xyzt_units("mm")
        images[contrast] = gzip_nifti(image)
    return images


def form_files(images: dict[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [(contrast, (f"{contrast}.nii.gz", data)) for contrast, data in images.items()]


@dataclass
class Server:
    """A running server process and a client of it."""

    process: subprocess.Popen[bytes]
    client: httpx.Client
    log: Path

    def events(self) -> list[dict[str, object]]:
        """The log so far; every line of it is JSON."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self, signal_number: int, timeout: float) -> float:
        """Send a signal and wait for the end; returns the seconds it took."""
        started = time.monotonic()
        self.process.send_signal(signal_number)
        self.process.wait(timeout)
        return time.monotonic() - started


@contextmanager
def serve_process(folder: Path, model: str = "tiny", **settings: object) -> Iterator[Server]:
    """``segmamba serve`` on a free port; it answers when this is entered, ready or not.

    Its jobs and results are its own, unless ``data_dir`` says where.
    """
    settings.setdefault("data_dir", tempfile.mkdtemp(prefix="data-", dir=folder))
    environment = {
        **os.environ,
        "SEGMAMBA_MODELS": str(folder / "models"),
        **{f"SEGMAMBA_{name.upper()}": str(value) for name, value in settings.items()},
    }
    log, said = folder / "server.log", folder / "server.out"
    arguments = [*COMMAND, "serve", "--port", "0", "--model", model, "--device", "cpu"]
    with log.open("wb") as errors, said.open("wb") as output:
        process = subprocess.Popen(arguments, env=environment, stdout=output, stderr=errors)
    try:
        with httpx.Client(base_url=_address(process, said), timeout=60) as client:
            yield Server(process, client, log)
    finally:
        process.kill()
        process.wait(20)


def wait_ready(client: httpx.Client, seconds: float = 60) -> None:
    wait_until(lambda: client.get("/health/ready").status_code == 200, seconds)


def _address(process: subprocess.Popen[bytes], said: Path) -> str:
    found: list[str] = []

    def told() -> bool:
        assert process.poll() is None, "the server ended before it listened"
        found.extend(re.findall(r"^Listening on (http://[\d.:]+) ", said.read_text()))
        return bool(found)

    wait_until(told, 90)
    return found[0]
