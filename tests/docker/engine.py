"""Builds and runs containers for tests: Docker, Podman, or the programs of a folder.

The folder is named by SEGMAMBA_CONTAINERS. Its programs ``build``, ``run`` and ``compose`` take
what ``docker build``, ``docker run`` and ``docker compose`` take; ``run -- VERB`` any other verb.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from socket import create_server
from typing import Any

import httpx
import pytest

from tests.docker.files import ROOT

Words = tuple[str | Path, ...]


@dataclass(frozen=True)
class Engine:
    """How the three things are asked for here."""

    build: Words
    run: Words
    verb: Words
    compose: Words

    def builds(self, target: str) -> str:
        """An image of the Dockerfile, from the cache where nothing changed; returns its name."""
        image = f"segmamba-service:{target}"
        index = os.environ.get("TORCH_INDEX_URL")
        arguments = [] if index is None else ["--build-arg", f"TORCH_INDEX_URL={index}"]
        said(*self.build, *arguments, "--target", target, "-t", image, "-f", "Dockerfile", ".")
        return image

    def once(self, *words: str | Path) -> str:
        """What a container says that is removed when it ends."""
        return said(*self.run, "--rm", *words)

    def does(self, *words: str | Path) -> str:
        """Any other verb: inspect, stop, rm, exec, logs …"""
        return said(*self.verb, *words)

    @contextmanager
    def running(self, image: str, *words: str, options: tuple[str, ...] = ()) -> Iterator[str]:
        """The name of a container in the background, removed at the end."""
        name = said(*self.run, "-d", *NARROW, *options, image, *words).split()[-1]
        try:
            yield name
        finally:
            subprocess.run([*self.verb, "rm", "-f", "-v", name], check=False, capture_output=True)


NARROW = (
    "--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL",
    "--security-opt", "no-new-privileges",
)  # fmt: skip


def said(*command: str | Path, **variables: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=3600,
        env={**os.environ, "BUILDAH_FORMAT": "docker", "BUILDAH_LAYERS": "true", **variables},
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def find_engine() -> Engine:
    """What is here; skips the test where nothing is."""
    if named := os.environ.get("SEGMAMBA_CONTAINERS"):
        folder = Path(named).absolute()
        return Engine(
            (folder / "build",), (folder / "run",), (folder / "run", "--"), (folder / "compose",)
        )
    for name in ("docker", "podman"):
        if (program := shutil.which(name)) and works(program):
            return Engine((program, "build"), (program, "run"), (program,), (program, "compose"))
    pytest.skip(
        "no container engine answers here: start Docker, or apt-get install podman, or name a "
        "folder with build, run and compose in SEGMAMBA_CONTAINERS"
    )


def works(program: str) -> bool:
    """Whether there is an engine behind the program."""
    return subprocess.run([program, "info"], check=False, capture_output=True).returncode == 0


def free_port() -> int:
    with create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Project:
    """One compose project of the repository's own file, torn down at the end."""

    engine: Engine
    name: str
    variables: Mapping[str, str]
    port: int = field(default_factory=free_port)

    @cached_property
    def client(self) -> httpx.Client:
        """A client of the published port."""
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=600)

    def compose(self, *words: str) -> str:
        files = ("-f", "docker-compose.yml")
        variables = {"SEGMAMBA_PORT": str(self.port), **self.variables}
        return said(*self.engine.compose, "-p", self.name, *files, *words, **variables)

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """What the engine knows about the project's containers that run."""
        label = f"label=com.docker.compose.project={self.name}"
        names = self.engine.does("ps", "-q", "--filter", label).split()
        found = [one for name in names for one in json.loads(self.engine.does("inspect", name))]
        key = "com.docker.compose.service"
        return [one for one in found if service in ("", one["Config"]["Labels"].get(key))]


def answers(client: httpx.Client, path: str) -> int:
    """The status; 0 where nobody listens."""
    try:
        return client.get(path).status_code
    except httpx.TransportError:
        return 0
