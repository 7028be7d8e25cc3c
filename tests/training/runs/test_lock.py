"""One process works on a run; the lock is gone with it, however it went."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from training.faults import NotNowError
from training.runs import lock
from training.runs.lock import held, is_held

HOLD = (
    "import sys, time; from pathlib import Path\n"
    "from training.runs.lock import held\n"
    "with held(Path(sys.argv[1])):\n"
    "    print('held', flush=True); time.sleep(60)\n"
)


def test_nobody_knows_of_a_run_that_was_never_locked(tmp_path: Path) -> None:
    assert is_held(tmp_path / "run.lock") is None


def test_another_process_is_seen_kept_off_and_gone_when_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "logs" / "run.lock"
    monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 0.05)
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_held(path) is True
        with pytest.raises(NotNowError, match="being trained now"), held(path):
            pass
        process.send_signal(signal.SIGKILL)
    assert is_held(path) is False
    with held(path):
        assert is_held(path) is True
    assert is_held(path) is False


def test_an_exception_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    with pytest.raises(ValueError, match="inside"), held(path):
        raise ValueError("inside")
    with held(path):
        pass


def test_without_locks_runs_go_on_and_nobody_can_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    path = tmp_path / "run.lock"
    with held(path):
        pass
    assert is_held(path) is None
