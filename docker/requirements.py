"""Write the packages of the images as plain requirement files, from pyproject.toml.

They are all that the layer of packages depends on, so a change of the code leaves that layer alone.
Usage: requirements.py PYPROJECT FOLDER
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

SERVICE_EXTRAS = ("oidc", "otel", "s3")
BUILD_TOOLS = ("cmake", "ninja")


def main(pyproject: Path, folder: Path) -> None:
    """Write service.txt, train.txt and build.txt."""
    content = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    project, extras = content["project"], content["project"]["optional-dependencies"]
    files = {
        "service": [*project["dependencies"], *(r for e in SERVICE_EXTRAS for r in extras[e])],
        "train": extras["train"],
        "build": [*content["build-system"]["requires"], *BUILD_TOOLS],
    }
    for name, requirements in files.items():
        text = "".join(f"{requirement}\n" for requirement in requirements)
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
