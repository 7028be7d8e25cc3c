"""What the documents say is so: links, commands, options, variables, routes.

The service's settings and error causes are held against its pages in tests/service.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(path: Path | str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def anchors(text: str) -> set[str]:
    """GitHub's anchor of every heading."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(path: Path) -> None:
    broken = []
    for place, anchor in LINK.findall(FENCE.sub("", read(path))):
        target = (path.parent / place).resolve() if place else path
        if not target.exists() or (anchor and anchor not in anchors(read(target))):
            broken.append(f"{place}#{anchor}")
    assert not broken


def test_every_document_is_in_the_index() -> None:
    index = read("docs/README.md")
    here = ROOT / "docs"
    missing = [
        str(path.relative_to(here))
        for path in here.rglob("*.md")
        if path.name != "README.md" and f"({path.relative_to(here)})" not in index
    ]
    assert not missing


@cache
def commands() -> dict[str, Any]:
    from model_core.cli.main import app

    group: Any = typer.main.get_command(app)
    context = typer.Context(group)
    return {name: group.get_command(context, name) for name in group.list_commands(context)}


def options_of(command: Any) -> set[str]:
    found = {option for parameter in command.params for option in parameter.opts}
    found |= {option for parameter in command.params for option in parameter.secondary_opts}
    for inner in getattr(command, "commands", {}).values():
        found |= options_of(inner)
    return found | {"--help", "-h"}


def invocations(text: str) -> Iterator[list[str]]:
    """The words of every ``segmamba …`` in a code block, continuation lines joined."""
    for language, block in FENCE.findall(text):
        if language not in ("sh", "console", "bash", ""):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            match = re.match(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?segmamba (.*)$", line)
            if match:
                yield shlex.split(match[1], comments=True)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_command_in_a_code_block_exists_with_its_options(path: Path) -> None:
    for words in invocations(read(path)):
        assert words[0] in commands(), f"no such command: segmamba {words[0]}"
        known = options_of(commands()[words[0]])
        used = {word.split("=")[0] for word in words[1:] if re.match(r"^--?[a-z]", word)}
        assert used <= known, f"segmamba {words[0]} has no {', '.join(sorted(used - known))}"


def test_the_readme_shows_every_command() -> None:
    shown = {words[0] for words in invocations(read("README.md"))} | {"demo"}
    shown |= {name for name in commands() if f"`segmamba {name}" in read("docs/README.md")}
    unseen = set(commands()) - shown
    how_to = "".join(read(path) for path in DOCUMENTS)
    assert not [name for name in unseen if f"segmamba {name}" not in how_to]


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_option_says_what_it_is(command: str) -> None:
    silent = [p.name for p in commands()[command].params if not (p.help or p.name == "help")]
    assert not silent
    assert commands()[command].help


def test_every_option_of_segment_is_in_its_guide() -> None:
    guide = read("docs/how-to/segment.md")
    missing = {o for o in options_of(commands()["segment"]) if o.startswith("--")} - {
        "--help",
        "--postprocess",  # the default; the guide shows how to leave it out
    }
    assert not {option for option in missing if option not in guide}


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", read("Makefile"), re.MULTILINE))
    used = {
        match
        for path in DOCUMENTS
        for match in re.findall(r"(?:^|[`&] ?)make ([a-z][\w-]*)", read(path), re.MULTILINE)
    }
    assert used
    assert used <= targets


def test_every_environment_variable_is_documented() -> None:
    sources = [
        path
        for room in ("model_core", "service", "training")
        for path in (ROOT / room).rglob("*.py")
    ]
    used = {name for path in sources for name in re.findall(r"SEGMAMBA_[A-Z]+\w*", read(path))}
    documents = "".join(read(path) for path in DOCUMENTS)
    assert {"SEGMAMBA_MODELS", "SEGMAMBA_SCAN_BACKEND"} <= used
    assert not {name for name in used if f"{name}" not in documents and not name.endswith("_")}


def test_every_route_is_documented() -> None:
    from service.app import create_app
    from service.settings import Settings

    paths = create_app(Settings()).openapi()["paths"]
    promise = read("docs/api.md")
    assert "/segment" in paths
    routes = [f"{method.upper()} {path}" for path, item in paths.items() for method in item]
    assert not [route for route in routes if f"`{route}`" not in promise]


def test_every_error_class_stands_in_the_tree_that_is_drawn() -> None:
    import inspect

    from model_core import errors

    drawn = errors.__doc__ or ""
    classes = [
        n for n, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__
    ]
    assert len(classes) > 8
    assert not [name for name in classes if name not in drawn]
