from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from model_core.errors import Cancelled
from model_core.preparation.confined import Bounds, Ending, run_confined
from model_core.preparation.watch import Watch

QUIET = Watch()
FAMILY = """
import subprocess, sys, time, pathlib, os
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
apart = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=True)
pathlib.Path("pids.part").write_text(f"{os.getpid()} {child.pid} {apart.pid}")
pathlib.Path("pids.part").rename("pids")
time.sleep(600)
"""


def run(folder: Path, code: str, *, bounds: Bounds | None = None, watch: Watch = QUIET) -> Ending:
    command = [sys.executable, "-c", code]
    return run_confined(command, folder=folder, bounds=bounds or Bounds(), watch=watch)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def assert_gone(pids: list[int]) -> None:
    until = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not [pid for pid in pids if alive(pid)]


def test_a_program_runs_in_its_folder_and_its_status_comes_back(tmp_path: Path) -> None:
    ending = run(tmp_path, "import pathlib; pathlib.Path('here').touch(); raise SystemExit(7)")
    assert ending == Ending(status=7)
    assert not ending.well
    assert ending.describe() == "exit status 7"
    assert (tmp_path / "here").exists()
    assert run(tmp_path, "").well


def test_a_program_gets_limits_and_no_variable_that_is_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "of the service")
    code = (
        "import json, os, resource as r, pathlib\n"
        "kinds = r.RLIMIT_AS, r.RLIMIT_CPU, r.RLIMIT_FSIZE, r.RLIMIT_CORE\n"
        "limits = [r.getrlimit(k)[0] for k in kinds]\n"
        "told = [limits, dict(os.environ), os.getsid(0) == os.getpid()]\n"
        "pathlib.Path('told').write_text(json.dumps(told))"
    )
    bounds = Bounds(seconds=20, memory_mb=4096, file_mb=3, threads=2)
    assert run(tmp_path, code, bounds=bounds).well
    limits, variables, leads = json.loads((tmp_path / "told").read_text())
    assert limits == [4096 * 2**20, 20 * 64 + 1, 3 * 2**20, 0]
    assert "A_SECRET" not in variables
    assert variables["https_proxy"] == "http://127.0.0.1:9"
    assert variables["OMP_NUM_THREADS"] == "2"
    assert variables["XDG_DATA_HOME"] == variables["TMPDIR"] == str(tmp_path)
    assert leads


def test_a_program_that_wants_more_memory_than_it_may_have_fails(tmp_path: Path) -> None:
    ending = run(tmp_path, "bytearray(2 * 10**9)", bounds=Bounds(memory_mb=512))
    assert ending == Ending(status=1)


def test_a_program_that_hangs_is_killed_with_all_its_children_when_its_time_is_up(
    tmp_path: Path,
) -> None:
    ending = run(tmp_path, FAMILY, bounds=Bounds(seconds=2.0))
    assert ending.timed_out
    assert "its time was up" in ending.describe()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 3
    assert_gone(pids)


def test_a_program_is_killed_with_all_its_children_when_the_caller_stops(tmp_path: Path) -> None:
    watch = Watch(cancelled=(tmp_path / "pids").exists)
    with pytest.raises(Cancelled):
        run(tmp_path, FAMILY, watch=watch)
    assert_gone([int(pid) for pid in (tmp_path / "pids").read_text().split()])


def test_what_a_program_leaves_running_is_gone_too(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, pathlib\n"
        "left = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path('pid').write_text(str(left.pid))"
    )
    assert run(tmp_path, code).well
    assert_gone([int((tmp_path / "pid").read_text())])


def test_a_program_that_kills_itself_is_told_by_its_signal(tmp_path: Path) -> None:
    ending = run(tmp_path, "import os; os.kill(os.getpid(), 11)")
    assert ending == Ending(status=-signal.SIGSEGV)
    assert ending.describe() == "one that was ended by signal 11"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_program_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from model_core.preparation.confined import Bounds, run_confined\n"
        "from model_core.preparation.watch import Watch\n"
        "say = 'import os, time, pathlib; pathlib.Path(\"pid\").write_text(str(os.getpid())); '\n"
        "run_confined([sys.executable, '-c', say + 'time.sleep(600)'],\n"
        "    folder=pathlib.Path(sys.argv[1]), bounds=Bounds(), watch=Watch())"
    )
    parent = psutil.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=Path.cwd())
    until = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    assert_gone([int((tmp_path / "pid").read_text())])
