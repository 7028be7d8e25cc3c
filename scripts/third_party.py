"""Write THIRD_PARTY.md: what an installation brings with it, and under which licences.

    python scripts/third_party.py [--check]

The packages are found by walking the requirements of pyproject.toml through the metadata of what
is installed in this environment; the releases are the pinned ones of constraints.txt.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageMetadata
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "THIRD_PARTY.md"
EXTRAS: Final = ("oidc", "otel", "s3", "train")
"""Those that are installed for development; others are named in the text."""
ALLOWED: Final = frozenset({
    "0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC",
    "LLVM-exception", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Zlib",
    "MPL-2.0",  # its files may be used unchanged in any program
    "LGPL-3.0-only", "LGPL-3.0-or-later",  # imported as libraries, which anybody may exchange
})  # fmt: skip
"""Licences that a dependency may have, with why where that is not plain."""
SPELLINGS: Final = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "Dual License": "Apache-2.0 OR BSD-3-Clause",  # python-dateutil
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""What packages write, and its SPDX name."""


@dataclass(frozen=True, order=True)
class Package:
    """One distribution that an installation brings."""

    name: str
    licence: str
    address: str


def closure(requirements: Iterable[str]) -> list[Package]:
    """All packages that requirements bring on this platform, by name; they must be installed."""
    waiting = [Requirement(text) for text in requirements]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen or not _applies(wanted, frozenset()):
            continue
        seen.add(key)
        for text in importlib.metadata.requires(wanted.name) or []:
            inner = Requirement(text)
            if _applies(inner, key[1]):
                inner.marker = None
                waiting.append(inner)
    return sorted(_package(name) for name in {name for name, _ in seen})


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _package(name: str) -> Package:
    metadata = importlib.metadata.metadata(name)
    return Package(name, licence_of(metadata), address_of(metadata))


def licence_of(metadata: PackageMetadata) -> str:
    """The SPDX expression of a package: what it states, else what its old fields mean.

    Raises:
        ValueError: nothing in the metadata names a licence that is known here.
    """
    if stated := _field(metadata, "License-Expression"):
        return stated
    field = _field(metadata, "License")
    classifiers: list[str] = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    for spelling in (field, *classifiers):
        name = SPELLINGS.get(spelling, spelling)
        if name and not forbidden_in(name):
            return name
    name = _field(metadata, "Name")
    raise ValueError(f"{name}: licence {(field or str(classifiers))[:60]!r} is unknown")


def _field(metadata: PackageMetadata, name: str) -> str:
    """One field, empty where a package lacks it."""
    return str((metadata.get_all(name) or [""])[0]).strip()


def forbidden_in(expression: str) -> set[str]:
    """Names in an SPDX expression that are not allowed; of alternatives, one is enough."""
    choices = [set(re.findall(r"[\w.+-]+", part)) - {"AND", "WITH"} for part in
               re.split(r"\bOR\b", expression)]  # fmt: skip
    return min((names - ALLOWED for names in choices), key=len)


def address_of(metadata: PackageMetadata) -> str:
    """Where a package is made; its page on PyPI where it does not say."""
    named = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL") or [])
    lowered = {label.lower(): address for label, address in named.items()}
    wanted = ("repository", "source", "source code", "homepage")
    found = [lowered[label] for label in wanted if label in lowered]
    return next(iter(found), _field(metadata, "Home-page") or pypi(_field(metadata, "Name")))


def pypi(name: str) -> str:
    """A package's page on PyPI."""
    return f"https://pypi.org/project/{canonicalize_name(name)}/"


def pins() -> dict[str, str]:
    """The releases of constraints.txt by canonical name."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def requirements(*extras: str) -> list[str]:
    """What pyproject.toml asks for, with these extras."""
    project = _project()
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(text for extra in extras for text in optional[extra])]


def others() -> list[str]:
    """Extras that users may ask for and that stand in no table."""
    return sorted(set(_project()["optional-dependencies"]) - set(EXTRAS) - {"dev"})


def _project() -> dict[str, Any]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


def table(packages: Iterable[Package]) -> str:
    """Rows of name, release and licence."""
    pinned = pins()
    rows = [
        f"| [{p.name}]({p.address}) | {pinned.get(p.name, '–')} | {p.licence} |" for p in packages
    ]
    return "\n".join(["| Package | Release | Licence |", "|---|---|---|", *rows])


def page() -> str:
    """The whole of THIRD_PARTY.md."""
    default = closure(requirements())
    further = sorted(set(closure(requirements(*EXTRAS))) - set(default))
    text = (ROOT / "scripts" / "third_party.md").read_text(encoding="utf-8")
    parts = {"default": table(default), "further": table(further), "others": ", ".join(others())}
    for name, part in parts.items():
        text = text.replace("{" + name + "}", part)
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or with ``--check`` say whether it is current; the exit code."""
    check = "--check" in (sys.argv[1:] if arguments is None else arguments)
    made = page()
    if not check:
        PAGE.write_text(made, encoding="utf-8")
        return 0
    current = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == made
    sys.stdout.write("" if current else "THIRD_PARTY.md is old: python scripts/third_party.py\n")
    return 0 if current else 1


if __name__ == "__main__":
    sys.exit(main())
