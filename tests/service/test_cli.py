"""``segmamba serve`` refuses a start that cannot work with one line each, before it loads much."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from model_core.catalogue import InstalledBundle
from model_core.cli.main import app
from model_core.errors import MemoryLimitError, OptionError
from model_core.inference.segmenter import Segmenter
from service.catalogue import installed_models
from service.cli import listen, read_settings
from service.settings import Settings
from service.worker.bundles import bundle_loader
from tests.service.fakes import (
    FakeSegmenter,
    assert_problem,
    running_app,
    study_files,
)
from tests.service.servers import write_tiny_bundle


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_tiny_bundle(tmp_path)
    monkeypatch.setenv("SEGMAMBA_MODELS", str(tmp_path))
    return tmp_path


def tiny() -> InstalledBundle:
    return installed_models()["tiny"][0]


def test_a_taken_port_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match="port"):
            listen("127.0.0.1", port)


def test_an_address_of_another_machine_is_said_so() -> None:
    with pytest.raises(OptionError, match=r"192\.0\.2\.1"):
        listen("192.0.2.1", 0)


def test_the_command_ends_with_one_line_and_code_two(models: Path) -> None:
    result = CliRunner().invoke(app, ["serve", "--model", "nothing"])
    assert result.exit_code == 2
    assert "SEGMAMBA_MODELS" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_setting_outside_its_range_ends_with_its_name(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGMAMBA_QUEUE_SIZE", "0")
    result = CliRunner().invoke(app, ["serve", "--model", "tiny"])
    assert result.exit_code == 2
    assert "SEGMAMBA_QUEUE_SIZE" in result.stderr


def test_the_loader_takes_installed_names_only_and_really_runs(models: Path) -> None:
    load = bundle_loader(Settings(backend="torch"), "cpu")
    segmenter = load(tiny())
    segmenter.warm_up()
    assert (segmenter.backend, segmenter.device) == ("torch", "cpu")
    assert str(models / "tiny") not in installed_models()


@pytest.mark.parametrize(
    ("device", "wrong"), [("cuda:99", {}), ("x", {}), ("cpu", {"backend": "x"})]
)
def test_a_device_or_backend_that_is_not_there_is_the_operators_fault(
    models: Path, device: str, wrong: dict[str, str]
) -> None:
    from model_core.errors import BackendError

    with pytest.raises(BackendError):
        bundle_loader(Settings(**wrong), device)(tiny())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_and_memory_limit_reach_the_segmenter(
    models: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    seen: dict[str, object] = {}

    def make(bundle: object, **arguments: object) -> object:
        seen.update(arguments)
        return Segmenter(bundle, **arguments)

    monkeypatch.setattr("service.worker.bundles.Segmenter", make)
    monkeypatch.setenv("SEGMAMBA_PRECISION", precision)
    monkeypatch.setenv("SEGMAMBA_MEMORY_LIMIT_MB", "4321")
    segmenter = bundle_loader(Settings(), "cpu")(tiny())
    assert segmenter.precision == precision
    assert seen["memory_limit_mb"] == 4321
    segmenter.warm_up()


def test_the_options_of_the_command_win_over_the_environment(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Settings] = []
    monkeypatch.setattr("service.cli._supervise", lambda settings: taken.append(settings) or 0)
    for name, value in (("PRECISION", "bfloat16"), ("THREADS", "2"), ("MEMORY_LIMIT_MB", "900")):
        monkeypatch.setenv(f"SEGMAMBA_{name}", value)
    assert CliRunner().invoke(app, ["serve"]).exit_code == 0
    words = ["serve", "--precision", "float32", "--threads", "7", "--memory-limit", "800"]
    assert CliRunner().invoke(app, words).exit_code == 0
    values = [(made.precision, made.threads, made.memory_limit_mb) for made in taken]
    assert values == [("bfloat16", 2, 900), ("float32", 7, 800)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("PRECISION", "float8"), ("THREADS", "0"), ("THREADS", "two"), ("MEMORY_LIMIT_MB", "0")],
)
def test_a_setting_of_the_machine_outside_its_range_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"SEGMAMBA_{name}", value)
    with pytest.raises(OptionError, match=f"SEGMAMBA_{name}"):
        read_settings({})


def test_a_memory_limit_that_is_too_small_is_not_the_callers_fault() -> None:
    def refuse(_number: int) -> None:
        raise MemoryLimitError("memory_limit_mb", expected="more", got="less", way_out="Raise it.")

    with running_app(FakeSegmenter(on_window=refuse)) as client:
        problem = client.post("/segment", files=study_files())
        assert_problem(problem, 503, "out-of-memory")
        assert problem.json()["way_out"] == "Raise it."
