"""The Dockerfile and the compose file as data, the latter with the variables filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
GPU = ROOT / "docker" / "gpu.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
Document = dict[str, Any]

_VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*))?\}")


def compose(variables: Mapping[str, str] | None = None, path: Path = COMPOSE) -> Document:
    """A compose file after substitution and YAML's merges, without its ``x-`` parts."""
    given = variables or {}
    text = _VARIABLE.sub(lambda m: given.get(m[1], m[2] or ""), path.read_text())
    content: Document = yaml.safe_load(text)
    return {name: part for name, part in content.items() if not name.startswith("x-")}


def variables_of(path: Path = COMPOSE) -> set[str]:
    """Every variable that a compose file asks for."""
    return {name for name, _ in _VARIABLE.findall(path.read_text())}


def service(name: str, variables: Mapping[str, str] | None = None) -> Document:
    found: Document = compose(variables)["services"][name]
    return found


def stages() -> dict[str, str]:
    """The text of each stage of the Dockerfile, by its name."""
    parts = re.split(r"^FROM (\S+) AS (\S+)\n", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[2::3], parts[3::3], strict=True))


def bases() -> dict[str, str]:
    """What each stage begins from."""
    found = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    return {stage: base for base, stage in found}
