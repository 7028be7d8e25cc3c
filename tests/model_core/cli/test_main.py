"""The frame around every command: discovery, errors, exit codes."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from model_core.cli import examples
from model_core.cli.main import GROUP, app
from model_core.errors import Cancelled, OptionError


class FakeEntry:
    """An entry point whose loading does what the test wants."""

    def __init__(self, name: str, load: Callable[[], Any]) -> None:
        self.name = name
        self.load = load


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make a command known under a name, as an installed package would."""
    entries: list[FakeEntry] = []

    def entry_points(*, group: str, name: str | None = None) -> list[FakeEntry]:
        assert group == GROUP
        return [entry for entry in entries if name in (None, entry.name)]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    monkeypatch.delenv("SEGMAMBA_DEBUG", raising=False)
    return lambda name, load: entries.append(FakeEntry(name, load))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def raising(error: BaseException) -> Callable[[], Any]:
    def command() -> None:
        """Fail."""
        raise error

    return lambda: command


def test_a_function_and_an_app_can_both_be_commands(plug_in: Callable[..., None]) -> None:
    sub = typer.Typer()

    @sub.command()
    def inner() -> None:
        typer.echo("from an app")

    plug_in("function", lambda: lambda: typer.echo("from a function"))
    plug_in("application", lambda: sub)
    assert run("function").stdout == "from a function\n"
    assert run("application").stdout == "from an app\n"


def test_an_expected_error_is_one_line_and_exit_code_2(plug_in: Callable[..., None]) -> None:
    error = OptionError("tta", expected="one\nof three", got="'x'", way_out="See [bold]--help.")
    plug_in("fails", raising(error))
    done = run("fails")
    assert done.exit_code == 2
    assert done.stderr == "error: tta: expected one of three, got 'x'. See [bold]--help.\n"
    assert done.stdout == ""


def test_debugging_shows_where_an_expected_error_arose(
    plug_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGMAMBA_DEBUG", "1")
    plug_in("fails", raising(OptionError("a", expected="b", got="c", way_out="d")))
    assert isinstance(run("fails").exception, OptionError)


@pytest.mark.parametrize("error", [Cancelled("stopped"), KeyboardInterrupt()])
def test_a_stop_by_the_user_is_exit_code_130(
    plug_in: Callable[..., None], error: BaseException
) -> None:
    plug_in("stops", raising(error))
    done = run("stops")
    assert done.exit_code == 130
    assert "Traceback" not in done.output


def test_a_bug_is_not_hidden(plug_in: Callable[..., None]) -> None:
    plug_in("bug", raising(ZeroDivisionError("oops")))
    assert isinstance(run("bug").exception, ZeroDivisionError)


def test_a_broken_plug_in_tells_why_and_leaves_the_others_alone(
    plug_in: Callable[..., None],
) -> None:
    def missing() -> Any:
        raise ModuleNotFoundError("No module named 'fastapi'")

    plug_in("serve", missing)
    plug_in("works", lambda: lambda: typer.echo("fine"))
    broken = run("serve", "--port", "80")
    assert broken.exit_code == 2
    assert "No module named 'fastapi'" in broken.stderr
    assert broken.stderr.count("\n") == 1
    assert run("works").stdout == "fine\n"
    listing = run("--help")
    assert listing.exit_code == 0
    assert "not available here" in listing.stdout


def test_examples_stand_in_the_help(plug_in: Callable[..., None]) -> None:
    @examples("segmamba works --well")
    def works() -> None:
        """Do it."""

    plug_in("works", lambda: works)
    assert "segmamba works --well" in run("works", "--help").stdout


def test_known_commands_come_in_the_order_of_need(plug_in: Callable[..., None]) -> None:
    for name in ("zebra", "train", "segment", "aardvark"):
        plug_in(name, lambda: lambda: None)
    listing = run("--help").stdout
    order = [listing.index(name) for name in ("│ segment", "│ train", "│ aardvark", "│ zebra")]
    assert order == sorted(order)


def test_the_version_is_the_installed_one() -> None:
    expected = importlib.metadata.version("segmamba-service")
    assert run("--version").stdout == f"segmamba {expected}\n"
