"""`segmamba models add`: a version appears whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from model_core.catalogue import find_versions
from model_core.checkpoints import add_bundle, load_bundle
from model_core.cli.main import app
from model_core.errors import BundleError
from tests.service.servers import write_tiny_bundle

KILLED = """
import os, signal, sys
from model_core.checkpoints import repository

def add_and_die(source, root, after):
    sync, calls = repository._sync, iter(range(1, 99))

    def sync_and_die(path):
        sync(path)
        if next(calls) == after:
            os.kill(os.getpid(), signal.SIGKILL)

    repository._sync = sync_and_die
    repository.add_bundle(source, root)

for after in range(1, 6):
    child = os.fork()
    if child == 0:
        add_and_die(sys.argv[1], os.path.join(sys.argv[2], str(after)), after)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, after
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGMAMBA_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def add(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["models", "add", *map(str, arguments)])


def test_versions_are_added_side_by_side_and_listed(models: Path, tmp_path: Path) -> None:
    for version in ("1.0.0", "1.1.0"):
        source = write_tiny_bundle(tmp_path / version, version=version)
        assert add(source).exit_code == 0
        copy = models / "tiny" / version
        assert sorted(path.name for path in copy.iterdir()) == ["card.json", "weights.safetensors"]
        assert load_bundle(f"tiny@{version}").path == copy
    assert load_bundle("tiny").card.version == "1.1.0"
    listed = CliRunner().invoke(app, ["models", "--json"]).stdout
    assert {"tiny", "tiny@1.0.0"} <= json.loads(listed).keys()
    shown = CliRunner().invoke(app, ["models", "tiny@1.0.0", "--json"]).stdout
    assert json.loads(shown)["version"] == "1.0.0"
    again = add(source)
    assert again.exit_code == 2
    assert "installed already" in again.stderr


def test_a_version_is_added_to_a_model_that_has_one_of_its_own(
    models: Path, tmp_path: Path
) -> None:
    write_tiny_bundle(models, version="1.0.0")
    add_bundle(write_tiny_bundle(tmp_path / "new", version="2.0.0"), models)
    assert [one.version for one in find_versions()["tiny"]] == ["2.0.0", "1.0.0"]
    with pytest.raises(BundleError, match="installed already"):
        add_bundle(write_tiny_bundle(tmp_path / "old", version="1.0.0"), models)


def spoil_weights(folder: Path) -> None:
    with (folder / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")


def spoil_card(folder: Path) -> None:
    card = folder / "card.json"
    card.write_text(card.read_text().replace("means nothing", "means all"))


def leave_half(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


@pytest.mark.parametrize("spoil", [spoil_weights, spoil_card, leave_half])
def test_an_unsound_bundle_is_refused_and_nothing_is_left(
    models: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    source = write_tiny_bundle(tmp_path / "source")
    spoil(source)
    assert add(source).exit_code == 2
    assert not models.exists()


@pytest.mark.parametrize("version", ["latest", "../1", "1/2"])
def test_a_version_that_names_no_folder_is_refused(
    models: Path, tmp_path: Path, version: str
) -> None:
    source = write_tiny_bundle(tmp_path / "source", version=version)
    refused = add(source)
    assert refused.exit_code == 2
    assert "1.2.0" in refused.stderr
    assert not models.exists()


def test_the_name_of_a_model_that_is_searched_first_is_refused(
    models: Path, tmp_path: Path
) -> None:
    source = write_tiny_bundle(tmp_path / "source", "segmamba-small", version="99.0")
    assert "searched first" in add(source).stderr
    assert not models.exists()


def test_a_folder_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEGMAMBA_MODELS", raising=False)
    source = write_tiny_bundle(tmp_path / "source")
    assert "--to" in add(source).stderr
    assert add(source, "--to", tmp_path / "there").exit_code == 0
    assert (tmp_path / "there" / "tiny" / "0.0.1" / "card.json").is_file()


def test_what_is_killed_in_its_middle_leaves_nothing_that_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tiny_bundle(tmp_path / "source", version="1.0.0")
    killed = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "killed")]
    subprocess.run(killed, check=True, timeout=120)
    seen = {}
    for after in range(1, 6):  # the weights, the card, their folder; renamed; its name
        folder = tmp_path / "killed" / str(after)
        monkeypatch.setenv("SEGMAMBA_MODELS", str(folder))
        assert any(path.is_file() for path in folder.rglob("weights.safetensors"))
        seen[after] = [one.version for one in find_versions().get("tiny", ())]
        assert add(source).exit_code == (2 if seen[after] else 0)
        assert load_bundle("tiny@1.0.0").path == folder / "tiny" / "1.0.0"
    assert seen == {1: [], 2: [], 3: [], 4: ["1.0.0"], 5: ["1.0.0"]}
