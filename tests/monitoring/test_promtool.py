"""What promtool says to the rules, to their unit tests, and to rules that are not right."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.monitoring.watching import CASES, MONITORING, RULES

pytestmark = pytest.mark.slow


def promtool(*arguments: str | Path) -> tuple[int, str]:
    """Its status and all that it says."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool binary here: apt-get install prometheus")
    done = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_the_rules_are_rules() -> None:
    status, said = promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert status == 0, said
    assert said.count("SUCCESS") == len(RULES)


def test_the_configuration_is_one(tmp_path: Path) -> None:
    """The key's file is where the container has it; here it lies elsewhere."""
    key = tmp_path / "key"
    key.write_text("none")
    config = tmp_path / "prometheus.yml"
    text = (MONITORING / "prometheus.yml").read_text()
    config.write_text(text.replace("/run/secrets/segmamba_metrics_key", str(key)))
    shutil.copytree(MONITORING / "rules", tmp_path / "rules")
    status, said = promtool("check", "config", config)
    assert status == 0, said
    assert said.count("rules found") == len(RULES)


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_alerts_ring_when_they_should_and_then_only(cases: Path) -> None:
    status, said = promtool("test", "rules", cases)
    assert status == 0, said


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("alerts", 'up{job="segmamba"} == 0', 'up{job="segmamba"} == 2'),
        ("alerts", 'unless segmamba_errors_total{cause="numerical"} offset 15m', "> 1"),
        ("alerts", "max(segmamba_ready) == 0", "segmamba_ready == 0"),
        ("slo", "> 0.072", "> 0.2"),
        ("slo", "|/health/.*", ""),
    ],
)
def test_a_rule_that_is_changed_for_the_worse_fails_its_tests(
    tmp_path: Path, file: str, old: str, new: str
) -> None:
    for folder in ("rules", "tests"):
        shutil.copytree(MONITORING / folder, tmp_path / folder)
    changed = tmp_path / "rules" / f"{file}.yml"
    text = changed.read_text()
    assert old in text
    changed.write_text(text.replace(old, new))
    status, said = promtool("test", "rules", tmp_path / "tests" / f"{file}_test.yml")
    assert status == 1, said
