"""A service with small models and a small sample study, which can be stopped and started again."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx

from model_core.checkpoints import CardDraft
from model_core.phantom import write_phantom
from model_core.types import CONTRASTS
from service.page.sample import SEED
from tests.service import servers
from tests.service.fakes import wait_until
from tests.service.servers import COMMAND, wait_ready, write_tiny_bundle

SHAPE = (64, 64, 48)
FAST, OTHER, SLOW = "tiny", "other", "slow"


class Site:
    """`segmamba serve` on one port, with models that differ and one that takes its time.

    Args:
        folder: for models, data and logs.
        settings: of the service, more than the usual ones.
    """

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.sample = _write_sample(folder)
        self.port = _free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.address, timeout=60)
        self._settings = {"grace_seconds": 0, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        write_tiny_bundle(folder / "models", FAST, seed=12)  # much of every label
        write_tiny_bundle(folder / "models", OTHER, seed=2)
        _write_slow_bundle(folder / "models")

    @property
    def images(self) -> dict[str, Path]:
        """The four images of the sample study, by contrast."""
        return {
            contrast: self.sample / f"Phantom_{SEED:04d}_{contrast}.nii.gz"
            for contrast in CONTRASTS
        }

    def start(self) -> None:
        """Until a worker takes jobs."""
        given = {
            "models": self.folder / "models",
            "data_dir": self.folder / "data",
            **self._settings,
        }
        environment = os.environ | {f"SEGMAMBA_{k.upper()}": str(v) for k, v in given.items()}
        arguments = [
            *COMMAND,
            "serve",
            "--port",
            str(self.port),
            "--model",
            FAST,
            "--device",
            "cpu",
        ]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(arguments, env=environment, stdout=log, stderr=log)
        wait_until(self._answers, 120)
        wait_ready(self.client, 120)

    def make_key(self) -> str:
        """An API key of this service, before or after its start."""
        data = {"SEGMAMBA_DATA_DIR": str(self.folder / "data")}
        arguments = [*COMMAND, "keys", "add", "page"]
        said = subprocess.check_output(arguments, env=os.environ | data, text=True)
        found = re.search(r"sgm_\S+", said)
        assert found, said
        self.client.headers["X-API-Key"] = found[0]
        return found[0]

    def stop(self) -> None:
        """Ask it to end, and wait until its port is free."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)

    def close(self) -> None:
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(20)
        self.client.close()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
        try:
            return self.client.get("/health/live").status_code == 200
        except httpx.TransportError:
            return False


def _write_sample(folder: Path) -> Path:
    """The sample study where the service keeps it, but small: it is not drawn again."""
    sample = folder / "data" / "sample"
    write_phantom(sample, seed=SEED, shape=SHAPE)
    return sample


def _write_slow_bundle(models: Path) -> Path:
    """Windows that overlap so much, and are seen in so many mirrors, that a run takes seconds."""

    def slow(**given: Any) -> CardDraft:
        return CardDraft(**given | {"overlap": 0.75, "tta": "full"})

    with patch.object(servers, "CardDraft", slow):
        return write_tiny_bundle(models, SLOW, seed=7)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def chromium() -> str | None:
    """The browser of the tests, if there is one."""
    return shutil.which("chromium") or shutil.which("google-chrome")
