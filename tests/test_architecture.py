"""The walls of the house: who may import whom, what no module does, how large things may grow."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("model_core", "service", "training")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

SHARED = {"model_core.types", "model_core.errors"}
HEAVY = {"torch", "monai"}

TRAINING_WORDS = (
    "training.task", "training.config", "training.recipes", "training.naming",
    "training.region_rules", "training.faults",
)  # fmt: skip

# room -> what it may import of this project, itself and the shared words aside
ALLOWED = {
    "model_core.types": set(),
    "model_core.errors": set(),
    "model_core.allocator": set(),
    "model_core.catalogue": set(),
    "model_core.cpu": set(),
    "model_core.precision": {"model_core.cpu"},
    "model_core.labels": set(),
    "model_core.ops": set(),
    "model_core.networks": {"model_core.ops"},
    "model_core.imaging": {"model_core.labels"},
    "model_core.components": {"model_core.labels"},
    "model_core.postprocess": {"model_core.labels", "model_core.components"},
    "model_core.metrics": {"model_core.labels", "model_core.components"},
    "model_core.phantom": {"model_core.labels", "model_core.imaging"},
    "model_core.preview": {"model_core.labels", "model_core.imaging"},
    "model_core.findings": {"model_core.labels", "model_core.imaging", "model_core.components"},
    "model_core.dicom": {"model_core.labels", "model_core.imaging"},
    "model_core.recognition": {
        "model_core.dicom", "model_core.imaging", "model_core.labels", "model_core.preparation",
    },
    "model_core.preparation": {"model_core.cpu", "model_core.imaging", "model_core.labels"},
    "model_core.provenance": {
        "model_core.checkpoints", "model_core.cpu", "model_core.findings", "model_core.imaging",
        "model_core.inference", "model_core.labels", "model_core.metrics",
        "model_core.preparation", "model_core.precision",
    },
    "model_core.pipeline": {
        "model_core.dicom", "model_core.findings", "model_core.imaging", "model_core.inference",
        "model_core.labels", "model_core.preparation", "model_core.provenance",
        "model_core.recognition", "model_core.report",
    },
    "model_core.report": {
        "model_core.catalogue", "model_core.findings", "model_core.imaging", "model_core.labels",
        "model_core.preparation", "model_core.provenance",
    },
    "model_core.checkpoints": {
        "model_core.catalogue", "model_core.networks", "model_core.postprocess",
    },
    "model_core.inference": set(),
    "model_core.inference.blending": {"model_core.ops"},
    "model_core.inference.found": {"model_core.labels"},
    "model_core.inference.mirrored": {
        "model_core.findings", "model_core.inference", "model_core.labels",
    },
    "model_core.inference.segmenter": {
        "model_core.checkpoints", "model_core.cpu", "model_core.imaging", "model_core.inference",
        "model_core.labels", "model_core.ops", "model_core.postprocess", "model_core.precision",
    },
    "model_core.inference.segmentation": {
        "model_core.imaging", "model_core.labels", "model_core.postprocess",
        "model_core.precision",
    },
    "model_core": {"model_core"},
    "model_core.cli": {"model_core"},
    "service": {"model_core"},
    "service.client": {"model_core", "service.jobs.records", "service.schemas"},
    "training": {"model_core"},
    "training.task": {"model_core"},
    "training.naming": set(),
    "training.faults": {"model_core"},
    "training.region_rules": {"model_core.postprocess", "training.task"},
    "training.config": {"model_core", "training.region_rules", "training.task"},
    "training.recipes": {"training.config", "training.task"},
    "training.data": {"model_core", *TRAINING_WORDS},
    "training.synthesis": {"model_core", "training.data", *TRAINING_WORDS},
    "training.runs": {"model_core", *TRAINING_WORDS},
    "training.judge": {
        "model_core", "training.data", "training.loop.checkpoint", "training.loop.forward",
        "training.loop.memory",
        "training.runs", *TRAINING_WORDS,
    },
    "training.loop": {
        "model_core", "training.data", "training.judge.validate", "training.runs", *TRAINING_WORDS,
    },
    "training.nnunet": {"model_core", *TRAINING_WORDS},
    "training.commands": {"model_core", "training"},
}  # fmt: skip
"""The most specific room counts. The door (`model_core/__init__.py`) opens onto every room."""

NO_TORCH = (
    "model_core.types",
    "model_core.errors",
    "model_core.labels",
    "model_core.components",
    "model_core.imaging",
    "model_core.postprocess",
    "model_core.metrics",
    "model_core.phantom",
    "model_core.preview",
    "model_core.findings",
    "model_core.dicom",
    "model_core.recognition",
    "model_core.preparation",
    "model_core.pipeline",
    "model_core.report",
)


def dotted(path: Path) -> str:
    """``model_core/ops/__init__.py`` -> ``model_core.ops``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def inside(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> set[str]:
    """Every module that is imported anywhere in the file, inside functions too."""
    module = dotted(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return imports_in(tree_of(path), package)


def imports_in(tree: ast.Module, package: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                kept = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*kept, *([node.module] if node.module else [])])
            # ``from model_core import ops`` reaches the room, not the door
            rooms = {f"{base}.{alias.name}" for alias in node.names if is_module(base, alias)}
            found |= rooms if len(rooms) == len(node.names) else rooms | {base}
    return found


def is_module(base: str, alias: ast.alias) -> bool:
    place = ROOT.joinpath(*base.split("."), alias.name)
    return place.with_suffix(".py").is_file() or place.is_dir()


def room_of(module: str) -> str:
    # the bare package's rule is for its door alone, not for whatever lies in a forgotten room
    rooms = [room for room in ALLOWED if inside(module, room)]
    room = max(rooms, key=len, default="")
    return "" if room == "model_core" and module != "model_core" else room


def ours(imported: set[str]) -> set[str]:
    return {name for name in imported if any(inside(name, package) for package in PACKAGES)}


def forbidden(module: str, imported: set[str]) -> set[str]:
    """Those of the imports that the module's room does not allow."""
    room = room_of(module)
    own = "model_core.inference" if inside(module, "model_core.inference") else room
    allowed = ALLOWED[room] | SHARED | {own}
    if room == "model_core":
        return set()  # the door
    return {name for name in ours(imported) if not any(inside(name, other) for other in allowed)}


def test_the_rule_catches_each_kind_of_import() -> None:
    source = """
import service.app
from model_core import ops, load_bundle
def inner():
    from model_core.cli.main import app
"""
    imported = imports_in(ast.parse(source), "model_core.imaging")
    assert forbidden("model_core.imaging.study", imported) == {
        "service.app", "model_core.ops", "model_core", "model_core.cli.main",
    }  # fmt: skip
    assert forbidden("training.run", imported) == {"service.app"}
    assert forbidden("service.app", {"training.config"}) == {"training.config"}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_every_module_has_a_room_and_imports_point_down(path: Path) -> None:
    assert room_of(dotted(path)), f"{dotted(path)} belongs to no known room: add it to ALLOWED"
    assert not forbidden(dotted(path), imports_of(path))


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_no_module_imports_the_tests_and_only_the_cli_imports_the_cli(path: Path) -> None:
    imported = imports_of(path)
    assert not {name for name in imported if inside(name, "tests")}
    if dotted(path).startswith("model_core") and not inside(dotted(path), "model_core.cli"):
        assert not {name for name in imported if inside(name, "model_core.cli")}


OF_ANOTHER_PROCESS = {"model_core.preparation.hdbet_child"}
"""Run by the interpreter of the tool that they call, and imported by nobody."""


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in MODULES
        if any(inside(dotted(path), room) for room in NO_TORCH)
        and dotted(path) not in OF_ANOTHER_PROCESS
    ],
    ids=dotted,
)
def test_rooms_of_numbers_and_files_need_no_torch(path: Path) -> None:
    assert not {name for name in imports_of(path) if name.partition(".")[0] in HEAVY}


def test_the_image_rooms_really_load_without_torch() -> None:
    """Not only their own lines: nothing that they import drags torch in either."""
    code = (
        "import sys, model_core, model_core.imaging.study, model_core.postprocess, "
        "model_core.metrics, model_core.phantom, model_core.labels; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_listing_the_commands_needs_no_torch() -> None:
    """``segmamba --help`` answers at once; only commands that compute import torch."""
    code = (
        "import sys; sys.argv = ['segmamba', '--help']\n"
        "from model_core.cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, "a command module imports torch at its top"
    assert "segment" in done.stdout


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_every_module_says_what_it_is(path: Path) -> None:
    docstring = ast.get_docstring(tree_of(path))
    assert docstring, "no module docstring"
    first = docstring.split("\n\n")[0]
    assert first.rstrip().endswith((".", ":")), "the docstring does not begin with a sentence"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_no_module_prints(path: Path) -> None:
    called = [
        node.lineno
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("print", "pprint")
    ]
    assert not called


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_functions_and_modules_stay_small(path: Path) -> None:
    long = {
        function.name: lines
        for function in functions(path)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > 80
    }
    assert not long, "functions of more than 80 lines"
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 500, "a module of more than 500 lines"
    if lines > 400:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(f"{dotted(path)} has {lines} lines, more than 400", stacklevel=1)


def test_the_door_offers_what_it_names() -> None:
    model_core = importlib.import_module("model_core")
    missing = [name for name in model_core.__all__ if not hasattr(model_core, name)]
    assert not missing
    assert len(model_core.__all__) <= 15
    assert set(dir(model_core)) == set(model_core.__all__)


def test_an_unknown_name_at_the_door_is_an_attribute_error() -> None:
    model_core = importlib.import_module("model_core")
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = model_core.no_such_name
