"""``segmamba serve`` refuses a start that cannot work with one line each, before it loads much."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model_core.cli.main import app
from model_core.errors import OptionError
from service.bundles import bundle_loader, check_installed, installed_cards
from service.cli import listen
from service.settings import Settings
from tests.service.servers import write_tiny_bundle


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_tiny_bundle(tmp_path)
    monkeypatch.setenv("SEGMAMBA_MODELS", str(tmp_path))
    return tmp_path


def test_a_taken_port_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match="port"):
            listen("127.0.0.1", port)


def test_an_address_of_another_machine_is_said_so() -> None:
    with pytest.raises(OptionError, match=r"192\.0\.2\.1"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize("name", ["nothing", "/etc", "."])
def test_a_model_that_is_not_installed_is_refused(models: Path, name: str) -> None:
    check_installed("tiny")
    with pytest.raises(OptionError, match="SEGMAMBA_MODELS"):
        check_installed(name)


def test_the_command_ends_with_one_line_and_code_two(models: Path) -> None:
    result = CliRunner().invoke(app, ["serve", "--model", "nothing"])
    assert result.exit_code == 2
    assert "SEGMAMBA_MODELS" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_setting_outside_its_range_ends_with_its_name(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGMAMBA_QUEUE_SIZE", "-1")
    result = CliRunner().invoke(app, ["serve", "--model", "tiny"])
    assert result.exit_code == 2
    assert "SEGMAMBA_QUEUE_SIZE" in result.stderr


def test_a_bundle_with_a_broken_card_does_not_hide_the_others(models: Path) -> None:
    write_tiny_bundle(models, "broken")
    (models / "broken" / "card.json").write_text("{")
    cards = installed_cards()
    assert cards["tiny"]["family"] == "segmamba"
    assert "broken" not in cards


def test_the_loader_takes_installed_names_only_and_really_runs(models: Path) -> None:
    load = bundle_loader(Settings(device="cpu", backend="torch"))
    segmenter = load("tiny")
    segmenter.warm_up()
    assert (segmenter.backend, segmenter.device) == ("torch", "cpu")
    with pytest.raises(Exception, match="no bundle named"):
        load(str(models / "tiny"))


@pytest.mark.parametrize("wrong", [{"device": "cuda:99"}, {"device": "x"}, {"backend": "x"}])
def test_a_device_or_backend_that_is_not_there_is_the_operators_fault(
    models: Path, wrong: dict[str, str]
) -> None:
    from model_core.errors import BackendError

    with pytest.raises(BackendError):
        bundle_loader(Settings(**{"device": "cpu", **wrong}))("tiny")
