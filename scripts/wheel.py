"""Look into a built wheel: is everything in it that it needs, and nothing else?

    python scripts/wheel.py WHEEL

Needs the standard library alone, for it also runs inside the images that build releases. Says what
is wrong, one line each, and ends with 1.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

PACKAGES: Final = ("model_core", "service", "training")
X86_LEVELS: Final = ("v2", "v3", "v4")
NEEDED: Final = (
    "model_core/py.typed",
    "service/py.typed",
    "service/page/static/index.html",
    "service/page/static/page.css",
    "service/page/static/js/main.js",
    "service/page/static/vendor/niivue-0.69.0.umd.js",
    "service/page/static/vendor/niivue-0.69.0.LICENSE.txt",
    "training/py.typed",
    "model_core/provenance/run.schema.json",
    "model_core/findings/appearance_ranges.json",
    "training/runs/templates/report.html.jinja",
)
"""What the programs read beside their modules and the model."""
LICENCE: Final = re.compile(r"[^/]+\.dist-info/licenses/LICENSE")
TAG: Final = re.compile(r"-py3-none-(?P<platform>(?:many)?linux_\w+|macosx_\w+)\.whl$")
MODELS: Final = "model_core/models/"
OPS: Final = "model_core/ops/"


def problems(wheel: Path) -> Iterator[str]:
    """What is wrong with a wheel."""
    tag = TAG.search(wheel.name)
    if tag is None:
        yield f"tag: expected py3-none-<platform>, for the kernels need no Python: {wheel.name}"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        yield from wrong_names(names)
        yield from wrong_libraries(names, "" if tag is None else tag["platform"])
        yield from wrong_models(archive)
        yield from wrong_interface(archive)


def wrong_names(names: Sequence[str]) -> Iterator[str]:
    """Strangers, and files that are missing."""
    metadata = {name.split("/")[0] for name in names if ".dist-info/" in name}
    strangers = {name.split("/")[0] for name in names} - metadata - set(PACKAGES)
    if strangers:
        yield f"packages: only {', '.join(PACKAGES)} belong into it: {', '.join(sorted(strangers))}"
    tests = [
        name for name in names if re.search(r"(^|/)(tests?/|test_\w+\.py$|conftest\.py$)", name)
    ]
    if tests:
        yield f"tests: {tests[0]} and {len(tests) - 1} more"
    for name in NEEDED:
        if name not in names:
            yield f"missing: {name}"
    if not any(LICENCE.fullmatch(name) for name in names):
        yield "missing: the licence, in .dist-info/licenses/"


def wrong_libraries(names: Sequence[str], platform: str) -> Iterator[str]:
    """Kernels of every level of the platform's processors, and no other library."""
    levels = X86_LEVELS if platform.endswith("x86_64") else ("base",)
    wanted = {f"{OPS}_native_{level}.so" for level in levels}
    found = {name for name in names if re.search(r"\.(so|dylib|pyd|dll)(\.\d+)*$", name)}
    for name in sorted(wanted - found):
        yield f"missing: {name}"
    for name in sorted(found - wanted):
        yield f"not expected: {name}"


def wrong_models(archive: zipfile.ZipFile) -> Iterator[str]:
    """Bundles whose weights are not those of their cards; there has to be one."""
    cards = [
        name
        for name in archive.namelist()
        if name.startswith(MODELS) and name.endswith("card.json")
    ]
    if not cards:
        yield f"missing: a bundle in {MODELS}"
    for name in cards:
        record = json.loads(archive.read(name))["weights"]
        weights = name.replace("card.json", record["file"])
        if weights not in archive.namelist():
            yield f"missing: {weights}"
        elif hashlib.sha256(archive.read(weights)).hexdigest() != record["sha256"]:
            yield f"{weights}: not the weights of its card"


def wrong_interface(archive: zipfile.ZipFile) -> Iterator[str]:
    """Whether the library that every processor can run loads here and is of these sources."""
    plain = next((n for n in (f"{OPS}_native_v2.so", f"{OPS}_native_base.so") if n in
                  archive.namelist()), None)  # fmt: skip
    if plain is None:
        return  # said already
    source = archive.read(f"{OPS}native_library.py").decode()
    expected = int(re.findall(r"^ABI: Final = (\d+)$", source, re.MULTILINE)[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(archive.extract(plain, folder))
        try:
            found = int(ctypes.CDLL(str(path)).segmamba_abi())
        except (OSError, AttributeError) as error:
            yield f"{plain} does not load here: {error}"
            return
    if found != expected:
        yield f"{plain}: interface {found}, its Python code expects {expected}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Look into the wheels that are named, speak on stdout, and return the exit code."""
    wheels = [Path(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    if not wheels:
        sys.stderr.write("usage: python scripts/wheel.py WHEEL …\n")
        return 2
    wrong = [f"{wheel.name}: {problem}" for wheel in wheels for problem in problems(wheel)]
    for line in wrong or [f"{wheel.name}: complete" for wheel in wheels]:
        sys.stdout.write(f"{line}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
