"""Pages that are made from the code are made anew here, and are the ones that lie in docs/."""

from __future__ import annotations

import doctest
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scripts.reference import cards, command_line, http, markdown, python
from scripts.reference.__main__ import DOCS, is_current, main
from tests.commandlines import commands

OLD = "make reference"
DOORS = [import_module(name) for name in python.DOORS]


def test_the_python_page_is_current() -> None:
    assert is_current(DOCS / "reference/python.md", python.page()), OLD


def test_the_http_page_is_current() -> None:
    assert is_current(DOCS / "reference/http.md", http.page()), OLD


def test_the_command_line_page_is_current() -> None:
    assert is_current(DOCS / "reference/cli.md", command_line.page()), OLD


def test_every_bundled_model_has_its_card_to_read() -> None:
    made = cards.pages()
    assert set(made) == {path.name for path in (DOCS / "model-cards").iterdir()}
    assert "segmamba-small.md" in made
    for name, text in made.items():
        assert is_current(DOCS / "model-cards" / name, text), OLD


def test_an_old_page_is_told_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = tmp_path / "docs"
    monkeypatch.setattr("scripts.reference.__main__.DOCS", docs)
    monkeypatch.setattr("scripts.reference.__main__.PAGES", {"reference/a.md": lambda: "new\n"})
    monkeypatch.setattr(cards, "MODELS", tmp_path)
    assert main(["--check"]) == 1
    assert capsys.readouterr().out == "old: docs/reference/a.md\n"
    assert main([]) == 0
    assert (docs / "reference/a.md").read_text() == "new\n"
    assert main(["--check"]) == 0


def test_every_public_name_has_its_section_and_every_route_and_command_too() -> None:
    from service.app import create_app
    from service.settings import Settings

    text = (DOCS / "reference/python.md").read_text()
    for door in DOORS:
        assert not [n for n in door.__all__ if n != "__version__" and f"\n### {n}\n" not in text]
    text = (DOCS / "reference/http.md").read_text()
    paths = create_app(Settings()).openapi()["paths"]
    routes = [f"{method.upper()} {path}" for path, item in paths.items() for method in item]
    assert not [route for route in routes if f"\n## {route}\n" not in text]
    text = (DOCS / "reference/cli.md").read_text()
    assert not [name for name in commands() if f"\n## `segmamba {name}`\n" not in text]


def test_every_public_name_explains_itself() -> None:
    silent = []
    for door in DOORS:
        for name in door.__all__:
            thing = getattr(door, name)
            if not isinstance(thing, str) and not inspect.getdoc(thing):
                silent.append(name)
    assert not silent


def test_a_docstring_becomes_markdown() -> None:
    docstring = """Do it.

    ::

        with f("a"):

            y = x

    Text with ``code``.

    Args:
        one: the first,
            on two lines.
        two: the second.

    Returns:
        A number.
    """
    assert markdown.from_docstring(docstring) == (
        'Do it.\n\n```python\nwith f("a"):\n\n    y = x\n```\n\nText with `code`.\n\n'
        "**Arguments**\n\n- `one`: the first, on two lines.\n- `two`: the second.\n\n"
        "**Returns**\n\nA number."
    )


def test_a_cell_ends_no_cell() -> None:
    assert markdown.table(("a",), [("x | y\nz",)]) == "| a |\n| --- |\n| x \\| y z |\n"


def test_a_card_without_scores_says_so() -> None:
    path = cards.MODELS / "segmamba-small" / "card.json"
    card = json.loads(path.read_text()) | {"metrics": {}}
    assert "None is recorded in the card." in cards.page(card)


def test_the_scores_of_the_bundled_model_are_those_of_the_readme() -> None:
    text = (DOCS / "model-cards/segmamba-small.md").read_text()
    readme = (DOCS.parent / "README.md").read_text()
    mean = re.search(
        r"\*\*mean\*\* \| \*\*([\d.]+)\*\*.*?\*\*([\d.]+)\*\*.*?\*\*([\d.]+)\*\*", readme
    )
    assert mean is not None
    for region, dice in zip(("WT", "TC", "ET"), mean.groups(), strict=True):
        assert f"| {region} | {dice} ±" in text


def examples_of(door: ModuleType) -> Iterator[str]:
    """Code that a door's docstring shows below ``::``."""
    text = markdown.from_docstring(door.__doc__)
    yield from re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def run(example: str, names: Mapping[str, Any]) -> dict[str, Any]:
    room = dict(names)
    exec(compile(example, "example", "exec"), room)  # what the project's own page tells people
    return room


@pytest.mark.slow
def test_the_example_of_model_core_does_what_it_says(tmp_path: Path) -> None:
    from model_core.phantom import write_phantom

    _, files = write_phantom(tmp_path)
    (example,) = examples_of(DOORS[0])
    out = tmp_path / "seg.nii.gz"
    room = run(example, {**files, "path": out})
    assert out.stat().st_size > 1000
    assert 50 < room["result"].volumes_ml["WT"] < 150


def test_the_example_of_the_client_speaks_its_verbs() -> None:
    """Against a stand-in that has the real client's methods and nothing more."""
    from unittest.mock import create_autospec, patch

    from service.client import Client

    (example,) = examples_of(DOORS[1])
    spec = create_autospec(Client, instance=True)
    spec.__enter__.return_value = spec
    spec.submit.return_value.id = "j"
    spec.result.return_value = b"map"
    written: list[bytes] = []

    class Place:
        write_bytes = staticmethod(written.append)

    with patch("service.client.Client", return_value=spec):
        run(example, {"key": "k", "path": Place, **dict.fromkeys(("t1", "t1ce", "t2", "flair"))})
    assert written == [b"map"]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_prompts_in_public_docstrings_answer_as_they_show(door: ModuleType) -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner()
    names = {name: getattr(door, name) for name in door.__all__}
    for name, thing in [(door.__name__, door), *names.items()]:
        for test in finder.find(thing, name, module=False, globs=dict(names)):
            assert runner.run(test).failed == 0
