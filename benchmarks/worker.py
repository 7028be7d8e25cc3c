"""Runs one job in a process of its own, which can be killed and whose memory is its own.

The parent calls `run_job("benchmarks.jobs:window", {...}, limit_seconds=...)`; the child is
``python -m benchmarks.worker``, reads the job from stdin, and leaves its answer in a file.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
SETUP_SECONDS: Final = 300.0
"""A job that has not begun its timed work by then has failed."""
_POLL_SECONDS: Final = 0.05


class JobError(RuntimeError):
    """The job ended without an answer; the message is its last line on stderr."""


def run_job(
    job: str, arguments: Mapping[str, Any], *, limit_seconds: float, threads: int
) -> dict[str, Any]:
    """Run ``module:function`` with these arguments in a fresh process.

    The function is called with ``begin=`` a callable beside its arguments, which it calls right
    before its timed work; the limit counts from there.

    Returns:
        What the function returned, with ``peak_rss_mb``; or ``{"cut_off": seconds}`` where the
        limit ended it.

    Raises:
        JobError: the process failed.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        answer = Path(folder) / "answer.json"
        request = {"job": job, "arguments": dict(arguments), "threads": threads}
        with (Path(folder) / "stderr").open("w+b") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "benchmarks.worker", str(answer)],
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr,
                cwd=ROOT, env=_environment(threads), start_new_session=True,
            )  # fmt: skip
            try:
                _send(process, request)
                cut_off = _wait(process, answer, limit_seconds)
            finally:
                _end(process)
            if cut_off is not None:
                return {"cut_off": cut_off}
            result = _read(answer)
            if process.returncode != 0 or "result" not in result:
                stderr.seek(0)
                raise JobError(_last_line(stderr.read()) or f"exit code {process.returncode}")
        return dict(result["result"])


def _environment(threads: int) -> dict[str, str]:
    """One place decides about threads; nnU-Net asks for its own number of processes."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "nnUNet_def_n_proc", "nnUNet_n_proc_DA")
    return os.environ | dict.fromkeys(names, str(threads))


def _send(process: subprocess.Popen[bytes], request: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(request).encode())
    process.stdin.close()


def _wait(process: subprocess.Popen[bytes], answer: Path, limit: float) -> float | None:
    """Wait for the end; the seconds of timed work where it had to be given up."""
    started = monotonic()
    while process.poll() is None:
        began = _read(answer).get("began")
        if began is None and monotonic() - started > SETUP_SECONDS:
            raise JobError(f"its set-up took more than {SETUP_SECONDS:g} s")
        if began is not None and time() - began > limit:
            return limit
        sleep(_POLL_SECONDS)
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(answer: Path) -> dict[str, Any]:
    if not answer.is_file():
        return {}
    content: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return content


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


# ------------------------------------------------------------------------------------ the child


def peak_rss_mb() -> float:
    """The most memory this process has held, in 10⁶ bytes.

    Linux: the high-water mark of this program alone; ``getrusage`` would remember the parent that
    it was forked from.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _write(answer: Path, content: Mapping[str, Any]) -> None:
    partial = answer.with_suffix(".partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(answer)


def main() -> None:
    """Do the job that stands on stdin."""
    answer = Path(sys.argv[1])
    request = json.loads(sys.stdin.read())
    import torch

    torch.set_num_threads(request["threads"])
    module, _, name = request["job"].partition(":")
    function: Callable[..., dict[str, Any]] = getattr(importlib.import_module(module), name)
    result = function(begin=lambda: _write(answer, {"began": time()}), **request["arguments"])
    _write(answer, {"result": {"peak_rss_mb": peak_rss_mb()} | result})


if __name__ == "__main__":
    main()
