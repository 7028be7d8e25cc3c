"""Another program's run, confined: limited, without a network, gone with its children when asked.

The program is started by a launcher in an own session. The launcher lowers its limits and asks the
kernel to be killed with its parent, then becomes the program; so nothing has to run between fork
and exec in a process that has threads. What the program says is thrown away: it may quote a file.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

import psutil

from model_core.preparation.watch import POLL_SECONDS, Watch

_MEBIBYTE: Final = 2**20
_GRACE_SECONDS: Final = 2.0
_CPU_FACTOR: Final = 64
"""CPU seconds per second of time: more than any machine's cores; ends what outlives us."""
_LAUNCHER: Final = """\
import os, resource, signal, sys
parent, limits, program = int(sys.argv[1]), sys.argv[2:6], sys.argv[6:]
kinds = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)
for kind, wanted in zip(kinds, map(int, limits)):
    allowed = resource.getrlimit(kind)[1]
    limit = wanted if allowed == resource.RLIM_INFINITY else min(wanted, allowed)
    resource.setrlimit(kind, (limit, limit))
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != parent:
    sys.exit(1)  # the parent died before it could be watched
os.nice(5)
os.execvp(program[0], program)
"""
_NOWHERE: Final = "http://127.0.0.1:9"
_OFFLINE: Final = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), _NOWHERE),
    **dict.fromkeys(("ALL_PROXY", "all_proxy"), _NOWHERE),
    "NO_PROXY": "",
    "no_proxy": "",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
"""Whoever honours these reaches nothing; a wish, not a wall."""
_PASSED_ON: Final = (
    "PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "FREESURFER_HOME",
    "FS_LICENSE", "CUDA_VISIBLE_DEVICES", "SYSTEMROOT",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a program may use.

    Attributes:
        seconds: of time.
        memory_mb: of address space, in MiB.
        file_mb: of any one file that it writes, in MiB.
        threads: that it is asked to use.
    """

    seconds: float = 900.0
    memory_mb: int = 24 * 1024
    file_mb: int = 2048
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a program ended.

    Attributes:
        status: its exit status; negative for the signal that killed it.
        timed_out: it was killed because its time was up.
    """

    status: int
    timed_out: bool = False

    @property
    def well(self) -> bool:
        """Whether it ended by itself and reported success."""
        return self.status == 0 and not self.timed_out

    def describe(self) -> str:
        """Say it for people, without a word of the program's own."""
        if self.timed_out:
            return "one that had to be stopped, because its time was up"
        if self.status < 0:
            return f"one that was ended by signal {-self.status}"
        return f"exit status {self.status}"


def run_confined(command: Sequence[str], *, folder: Path, bounds: Bounds, watch: Watch) -> Ending:
    """Run a program to its end, or to ours.

    Args:
        command: the program and its arguments.
        folder: where it runs, and where it may leave files; the caller removes it.
        bounds: what it may use.
        watch: who may stop it.

    Raises:
        Cancelled: the caller wants to stop; the program and its children are gone.
        OSError: the program could not be started.
    """
    process = subprocess.Popen(  # noqa: S603 - the command is ours, files are named by us
        [sys.executable, "-I", "-c", _LAUNCHER, str(os.getpid()), *_limits(bounds), *command],
        cwd=folder,
        env=_environment(folder, bounds),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = monotonic() + bounds.seconds
    try:
        while True:
            try:
                return Ending(status=process.wait(POLL_SECONDS))
            except subprocess.TimeoutExpired:
                watch.stop_if_asked()
            if monotonic() > until:
                return Ending(status=-signal.SIGKILL, timed_out=True)
    finally:
        _end(process)


def _limits(bounds: Bounds) -> list[str]:
    cpu_seconds = int(bounds.seconds * _CPU_FACTOR) + 1
    sizes = (bounds.memory_mb * _MEBIBYTE, cpu_seconds, bounds.file_mb * _MEBIBYTE, 0)
    return [str(size) for size in sizes]


def _environment(folder: Path, bounds: Bounds) -> Mapping[str, str]:
    """A few variables of ours, the wish to be offline, and every cache inside the folder."""
    threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    caches = ("TMPDIR", "XDG_DATA_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCH_HOME")
    return {
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        **_OFFLINE,
        **dict.fromkeys(threads, str(bounds.threads)),
        **dict.fromkeys(caches, str(folder)),
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(bounds.threads),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the program's whole session and every descendant, also of a program that has ended."""
    descendants = _descendants(process.pid)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for descendant in descendants:
        with suppress(psutil.Error):
            descendant.kill()
    process.wait()
    psutil.wait_procs(descendants, timeout=_GRACE_SECONDS)


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return []
