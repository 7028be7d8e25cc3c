"""A real worker process for tests: the real executor, and work that only passes the time.

``python worker_process.py URL FOLDER [OPTION=SECONDS …]``: runs until SIGTERM. A job's spec says
how long it takes (``seconds``, in ``windows``) and what befalls it: ``{"dies": true}`` kills the
process in its middle, ``{"hangs": true}`` stops making progress, ``{"fails": true}`` is a problem,
``{"deaf": true}`` goes on when it is cancelled.
Every beginning and every end is a line in ``FOLDER/log``, for the tests to count, and so is every
end that ``counted``: whose job says so.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from model_core.errors import Cancelled
from service.jobs.executor import Attempt, Executor, ExecutorOptions, JobFailedError, Outcome
from service.jobs.records import Job


def note_in(folder: Path, what: str, job: Job) -> None:
    line = f"{what} {job.id} {job.attempts} {os.getpid()} {time.time()}\n"
    with (folder / "log").open("a") as file:
        file.write(line)


def work_into(folder: Path):
    def note(what: str, attempt: Attempt) -> None:
        note_in(folder, what, attempt.job)

    def work(attempt: Attempt) -> Outcome:
        note("began", attempt)
        spec = attempt.job.spec
        windows = spec.get("windows", 4)
        for done in range(windows):
            if attempt.cancelled() and not spec.get("deaf"):
                note("stopped", attempt)
                raise Cancelled("asked to")
            attempt.progress("infer", done, windows)
            if done == windows // 2 and spec.get("dies"):
                os.kill(os.getpid(), signal.SIGKILL)
            if done == windows // 2 and spec.get("hangs"):
                time.sleep(3600)
            time.sleep(spec.get("seconds", 0.1) / windows)
        if spec.get("fails"):
            raise JobFailedError({"title": "No", "status": 422})
        note("ended", attempt)
        return Outcome(result={"answer": spec.get("number"), "attempt": attempt.number})

    return work


def dropped_into(folder: Path):
    def note(outcome: Outcome) -> None:
        with (folder / "log").open("a") as file:
            file.write(f"dropped {outcome.result['answer']}\n")

    return note


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    options = {name: float(value) for name, value in (part.split("=") for part in sys.argv[3:])}
    grace = options.pop("grace", 5.0)
    if "attempts" in options:
        options["attempts"] = int(options["attempts"])
    executor = Executor(
        url,
        work_into(folder),
        worker_id=f"test-{os.getpid()}",
        dropped=dropped_into(folder),
        options=ExecutorOptions(**options),
        ended=lambda job: note_in(folder, "counted", job),
    )
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    executor.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not asked.wait(0.05):
        pass
    executor.drain(grace)
    executor.close()
    os._exit(0)


if __name__ == "__main__":
    main()
