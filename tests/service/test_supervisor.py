"""A worker that lives and does nothing is replaced, and only such a one."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from service import pulse as pulses
from service.pulse import Pulse
from service.supervisor import Child, Supervisor
from tests.service.fakes import wait_until
from tests.service.servers import (
    form_files,
    head_images,
    serve_process,
    wait_ready,
    write_tiny_bundle,
)

SILENCE = 0.5
BEATS = "import os, signal, time; from service.pulse import give_pulse; "
GOES_ON = "give_pulse(0.05); time.sleep(60)"
STOPS = "give_pulse(0.05); time.sleep(0.2); os.kill(os.getpid(), signal.SIGSTOP)"
HOLDS_ALL = "import ctypes; give_pulse(0.05); time.sleep(0.2); ctypes.PyDLL(None).sleep(60)"
LOADS = "time.sleep(60)"


class Told:
    """The job table, as far as the supervisor writes into it."""

    def __init__(self) -> None:
        self.dead: list[tuple[str, str]] = []

    def bury_early(self, worker: str, cause: str) -> None:
        self.dead.append((worker, cause))


class House:
    """A supervisor whose rounds the test makes, and its one child."""

    def __init__(self, code: str) -> None:
        self.told: Any = Told()
        self.supervisor = Supervisor(self.told, grace_seconds=1, silence_seconds=SILENCE)
        self.supervisor.add("worker0", [], takes_jobs=True)
        self.child: Child = self.supervisor._children[0]
        self.child.arguments = [sys.executable, "-c", BEATS + code]

    def rounds(self, seconds: float) -> None:
        """Look after the child for so long, or until it is found dead."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.told.dead:
            self.supervisor._tend(self.child)
            time.sleep(0.02)

    def close(self) -> None:
        if self.child.process is not None:
            self.child.process.kill()
            self.child.process.wait(5)


@pytest.fixture
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    house = House(request.param)
    yield house
    house.close()


@pytest.mark.parametrize("house", [STOPS, HOLDS_ALL], indirect=True, ids=["stopped", "gil"])
def test_a_worker_whose_threads_do_not_run_is_killed_and_replaced(house: House) -> None:
    house.rounds(20)
    assert house.told.dead == [(house.child.worker_id, "no sign of life")]
    first = house.child.worker_id
    house.told.dead.clear()
    wait_until(lambda: house.rounds(0.1) or house.child.process is not None)
    assert house.child.worker_id != first


@pytest.mark.parametrize("house", [GOES_ON, LOADS], indirect=True, ids=["beats", "loads"])
def test_a_worker_that_beats_or_has_not_begun_to_is_left_alone(house: House) -> None:
    house.rounds(1 + 2 * SILENCE)
    assert house.told.dead == []
    assert house.child.process is not None


def test_a_listener_that_did_not_run_itself_begins_to_count_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = (0.0, 0.5, 1.0, 1.5, 3600.0, 3600.5)
    clock = iter((0.0, *looks))
    monkeypatch.setattr(pulses.time, "monotonic", lambda: next(clock))
    pulse = Pulse()
    silences = [pulse.silence()]
    os.write(pulse.given, b"\0")
    silences += [pulse.silence() for _ in looks[1:]]
    pulse.handed_over()
    pulse.close()
    assert silences == [0.0, 0.0, 0.5, 1.0, 0.0, 0.5]


@pytest.mark.slow
def test_the_only_worker_is_replaced_when_it_is_frozen_and_its_job_done(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "models")
    with serve_process(tmp_path, silence_seconds=2) as running:
        wait_ready(running.client)
        frozen = worker_of(running.process.pid)
        frozen.send_signal(signal.SIGSTOP)
        answer = running.client.post("/jobs", files=form_files(head_images()))
        job = answer.json()["links"]["self"]
        wait_until(lambda: running.client.get(job).json()["state"] == "succeeded", 90)
        assert worker_of(running.process.pid).pid != frozen.pid
        running.stop(signal.SIGTERM, 60)
        causes = [event.get("cause") for event in running.events()]
    assert "no sign of life" in causes


def worker_of(supervisor: int) -> psutil.Process:
    children = psutil.Process(supervisor).children()
    (worker,) = [child for child in children if "worker" in child.cmdline()]
    return worker
