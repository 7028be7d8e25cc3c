"""Settings come from the environment when they are made, are checked, and are all documented."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from model_core.errors import OptionError
from service.cli import read_settings
from service.settings import Settings

SERVE_PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "serve.md"


def test_the_environment_is_read_when_settings_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMAMBA_QUEUE_SIZE", "9")
    monkeypatch.setenv("SEGMAMBA_MAX_UPLOAD_MB", "3")
    assert Settings().queue_size == 9
    assert Settings().max_upload_bytes == 3 * 1024 * 1024


def test_an_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMAMBA_PORT", "1234")
    assert read_settings({"port": 4321}).port == 4321


def test_settings_do_not_change_once_made() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGMAMBA_QUEUE_SIZE", "many")
    with pytest.raises(OptionError, match="SEGMAMBA_QUEUE_SIZE"):
        read_settings({})


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    page = SERVE_PAGE.read_text(encoding="utf-8")
    field = Settings.model_fields[name]
    default = None if field.default_factory else field.default
    row = next(line for line in page.splitlines() if f"| `SEGMAMBA_{name.upper()}`" in line)
    shown = "unset" if default is None else f"`{default:g}`" if name.endswith("seconds") else None
    assert (shown or f"`{default}`") in row


def test_importing_the_service_reads_no_setting() -> None:
    script = "import os; os.environ['SEGMAMBA_PORT'] = 'no number'; import service.app, service.cli"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
