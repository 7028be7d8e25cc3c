"""What a reading process may do wrong, each as work that a real child really does."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from model_core.errors import InputError
from model_core.imaging.study import Study, make_study
from service.reading import pages
from service.reading.child import Report, Task
from service.reading.work import read_study
from tests.model_core.imaging.builders import random_study


def spin(task: Task, report: Report) -> None:
    report.begin("t1ce")
    while True:
        pass


def sleep(task: Task, report: Report) -> None:
    report.begin("flair")
    time.sleep(60)


def devour_memory(task: Task, report: Report) -> None:
    report.begin("t2")
    kept = []
    while True:
        kept.append(np.ones(2**20))


def be_killed(task: Task, report: Report) -> None:
    report.begin("t1")
    os.kill(os.getpid(), signal.SIGKILL)


def crash(task: Task, report: Report) -> None:
    report.begin("t2")
    ctypes.string_at(0)


def abort(task: Task, report: Report) -> None:
    report.begin("study")
    os.abort()


def recurse(task: Task, report: Report) -> None:
    recurse(task, report)


def raise_secret(task: Task, report: Report) -> None:
    report.begin("t1")
    raise KeyError("Jane Roe")


def leave(task: Task, report: Report) -> None:
    os._exit(3)


def say_nothing(task: Task, report: Report) -> None:
    report.begin("t2")


def write_too_much(task: Task, report: Report) -> None:
    report.begin("flair")
    page = report._volumes["t1"]
    while True:
        pages._write(page, memoryview(bytes(2**20)), os.fstat(page).st_size)


def babble(task: Task, report: Report) -> None:
    report.begin("t2")
    pages.say(report._account, bytes(range(256)) * 3)


def babble_at_length(task: Task, report: Report) -> None:
    pages._write(report._account, memoryview(bytes(2**18)), 0)


def send_nothing_but_words(task: Task, report: Report) -> None:
    report._volumes = dict.fromkeys(report._volumes, os.open(os.devnull, os.O_WRONLY))
    report.read(random_study())


def send_too_large_an_image(task: Task, report: Report) -> None:
    report.read(random_study((20, 20, 20)))


def _spoil(spoil: Any, task: Task, report: Report) -> None:
    study = random_study()
    spoil(study)
    report.read(study)


def send_nan(task: Task, report: Report) -> None:
    _spoil(lambda study: study.volumes["t2"].array.__setitem__((3, 3, 3), np.nan), task, report)


def send_another_grid(task: Task, report: Report) -> None:
    def move(study: Study) -> None:
        affine = study.volumes["t2"].affine.copy()
        affine[0, 3] += 9
        object.__setattr__(study.volumes["t2"], "affine", affine)

    _spoil(move, task, report)


def send_a_singular_affine(task: Task, report: Report) -> None:
    def flatten(study: Study) -> None:
        object.__setattr__(study.volumes["t1"], "affine", np.zeros((4, 4)))

    _spoil(flatten, task, report)


def send_another_reference(task: Task, report: Report) -> None:
    report.read(make_study(random_study().volumes, reference="t2"))


def answer_twice(task: Task, report: Report) -> None:
    report.read(random_study())
    report.read(random_study())


def tell(task: Task, report: Report) -> None:
    """Not bad: say what this process is, in the words of a refusal."""
    limits = {
        name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
        for name in ("AS", "CPU", "CORE", "NPROC", "NOFILE", "FSIZE")
    }
    told = {
        "limits": limits,
        "nice": os.nice(0),
        "oom": int(Path("/proc/self/oom_score_adj").read_text()),
        "torch": "torch" in sys.modules,
        "scipy": "scipy.ndimage" in sys.modules,
        "main": getattr(sys.modules.get("__mp_main__"), "__file__", None),
        "open": _open_files(),
        "ignored": [signal.getsignal(s) is signal.SIG_IGN for s in (signal.SIGTERM, signal.SIGINT)],
    }
    raise InputError("told", expected="", got=repr(told), way_out="")


def _open_files() -> list[str]:
    found = [path for path in Path("/proc/self/fd").iterdir() if os.path.lexists(path)]
    return sorted(str(path.readlink()) for path in found if os.path.lexists(path))


def tell_what_it_had_to_import(task: Any, report: Report) -> None:
    """Not bad either: read the study, and say which modules were not there before."""

    class Deaf:
        def begin(self, stage: str) -> None: ...

        def read(self, study: Study, images: object) -> None: ...

    before = set(sys.modules)
    read_study(task, Deaf())  # type: ignore[arg-type]
    new = sorted(set(sys.modules) - before)
    raise InputError("study", expected="", got=repr(new), way_out="")
