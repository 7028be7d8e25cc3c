"""Fixtures of the client's tests: a server, a client that does not dawdle, studies, the command."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from model_core.types import CONTRASTS, Contrast
from service.client import Client, Patience
from tests.service.client.server import JobServer, job_server

QUICK = Patience(
    outage_s=10, first_contact_s=0.3, busy_s=10, first_pause_s=0.01, longest_pause_s=0.1,
    poll_s=0.01,
)  # fmt: skip
Study = dict[Contrast, Path]


@pytest.fixture(autouse=True)
def quiet_breakage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server breaks connections on purpose and would write a traceback for each."""
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "disabled", True)


@pytest.fixture(autouse=True)
def no_authorities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing here is encrypted, and reading all certificates takes longer than most tests."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))


@pytest.fixture(scope="session")
def one_server() -> Iterator[JobServer]:
    """One for all tests: coming and going takes longer than most of them."""
    with job_server() as running:
        yield running


@pytest.fixture
def server(one_server: JobServer) -> JobServer:
    one_server.forget()
    return one_server


@pytest.fixture
def client(server: JobServer) -> Iterator[Client]:
    with Client(server.url, patience=QUICK) as made:
        yield made


def write_study(folder: Path, name: str = "DOE_JANE") -> Study:
    """Four files that are no images, which this server does not mind."""
    folder.mkdir(parents=True, exist_ok=True)
    study: Study = {}
    for contrast in CONTRASTS:
        study[contrast] = folder / f"{name}_{contrast}.nii.gz"
        study[contrast].write_bytes(f"{name} {contrast} ".encode() * 200)
    return study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return write_study(tmp_path / "DOE_JANE")


@pytest.fixture
def segmamba(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command line as a user would, without a second thought between two looks."""
    from tests.service.client.commandline import app

    monkeypatch.setenv("COLUMNS", "200")
    for name in ("SEGMAMBA_DEBUG", "SEGMAMBA_KEY", "SEGMAMBA_SERVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("service.client.submission.LOOK_S", 0.02)
    monkeypatch.setattr("service.client.client.Client", partial(Client, patience=QUICK))

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def python_is_told() -> Iterator[None]:
    """A shell's background job begins with Ctrl-C ignored; these tests begin with Python's own."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)
