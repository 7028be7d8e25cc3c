"""``segmamba keys`` on a real database: a key is shown once, works, and is ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from model_core.errors import OptionError
from service.auth.cli import keys
from service.auth.keys import KeyStore
from service.auth.principal import Limits
from service.jobs.database import open_database
from service.settings import Settings


def run(url: str, *words: str) -> Result:
    return CliRunner().invoke(keys, words, env={"SEGMAMBA_JOBS_URL": url, "COLUMNS": "200"})


def test_a_key_is_made_listed_and_revoked(url: str, engine: sa.Engine) -> None:
    made = run(url, "add", "viewer")
    assert made.exit_code == 0
    token = made.stdout.strip()
    found = KeyStore(engine).find(token)
    assert found is not None
    assert (found.label, found.scopes) == ("viewer", {"segment"})
    assert "not shown again" in made.stderr

    listed = run(url, "list")
    assert found.id in listed.stdout
    assert "active" in listed.stdout
    assert token.split("_", 2)[2] not in listed.stdout

    assert run(url, "revoke", found.id).exit_code == 0
    assert KeyStore(engine).find(token) is None
    assert "revoked" in run(url, "list").stdout


def test_every_option_reaches_the_key(url: str, engine: sa.Engine) -> None:
    words = "add ward --scopes read,metrics --expires-days 30 --rate 120 --jobs 4 --storage-mb 9"
    made = run(url, *words.split(), "--json")
    told = json.loads(made.stdout)
    found = KeyStore(engine).find(told["key"])
    assert found is not None
    assert found.scopes == {"read", "metrics"}
    assert found.limits == Limits(rate_per_minute=120, open_jobs=4, storage_mb=9)
    assert found.expires is not None
    assert told["id"] == found.id
    assert told["scopes"] == ["metrics", "read"]


def test_the_list_as_json_has_all_but_the_secret(url: str) -> None:
    token = run(url, "add", "viewer").stdout.strip()
    listed = run(url, "list", "--json").stdout
    [key] = json.loads(listed)
    assert (key["label"], key["state"], key["last_used"]) == ("viewer", "active", None)
    assert token.split("_", 2)[2] not in listed
    assert "hash" not in key


def test_a_label_is_not_read_as_markup(url: str) -> None:
    run(url, "add", "[red]x[/red]")
    assert "[red]x[/red]" in run(url, "list").stdout


def test_an_empty_list_says_how_to_begin(url: str) -> None:
    assert "segmamba keys add" in run(url, "list").stdout


def test_the_option_wins_over_the_environment(url: str, tmp_path: Path) -> None:
    other = f"sqlite:///{tmp_path}/other.sqlite"
    run(url, "add", "here")
    assert "here" not in run(url, "list", "--jobs-url", other).stdout


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["add", "a", "--scopes", "root"], "scopes"),
        (["add", "a", "--scopes", ","], "scopes"),
        (["add", " "], "label"),
        (["revoke", "0123456789abcdef"], "ID"),
    ],
)
def test_a_wrong_word_is_named(url: str, words: list[str], named: str) -> None:
    error = run(url, *words).exception
    assert isinstance(error, OptionError)
    assert error.argument == named


def test_the_key_itself_in_the_place_of_its_id_is_not_repeated(url: str) -> None:
    token = run(url, "add", "a").stdout.strip()
    assert token not in str(run(url, "revoke", token).exception)


@pytest.mark.parametrize("option", ["--rate", "--jobs", "--storage-mb", "--expires-days"])
def test_a_limit_of_nothing_is_refused(url: str, option: str) -> None:
    assert run(url, "add", "a", option, "0").exit_code == 2


def test_without_a_word_it_is_the_database_of_the_service(tmp_path: Path) -> None:
    environment = {"SEGMAMBA_JOBS_URL": None, "SEGMAMBA_DATA_DIR": str(tmp_path / "data")}
    made = CliRunner().invoke(keys, ["add", "viewer"], env=environment)
    engine = open_database(Settings(data_dir=tmp_path / "data").database_url)
    assert KeyStore(engine).find(made.stdout.strip()) is not None
    engine.dispose()


def test_a_file_that_is_no_database_is_told_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no database " * 100)
    error = run(f"sqlite:///{tmp_path}/notes.txt", "list").exception
    assert isinstance(error, OptionError)


def test_the_command_is_listed_without_heavy_imports() -> None:
    script = (
        "import sys, service.auth.cli\n"
        "heavy = {'torch', 'sqlalchemy', 'fastapi', 'pydantic', 'jwt', 'limits'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
