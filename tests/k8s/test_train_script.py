"""The training Job's script: it begins, goes on, and passes on signals and the run's status."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docker.files import stages
from tests.k8s.overlays import MANIFESTS
from tests.training.tiny import write_png_dataset
from training.runs.run_folder import RunFolder

SCRIPT = MANIFESTS / "base" / "training" / "train.sh"
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Starts the script with a program in the place of ``segmamba`` that does what it is told."""

    def started(*arguments: str, does: str, kernel: str = "true") -> subprocess.Popen[str]:
        program = tmp_path / "bin" / "segmamba"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\n{does}\n')
        program.chmod(0o755)
        environment = {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "RESULTS": str(tmp_path / "results"),
            "KERNEL_CHECK": kernel,
        }
        return subprocess.Popen(
            ["sh", SCRIPT, *arguments], env=environment, stderr=subprocess.PIPE, text=True
        )

    return started


def said(tmp_path: Path) -> list[str]:
    return (tmp_path / "said").read_text().split()


def test_a_new_run_is_started(start: Start, tmp_path: Path) -> None:
    with start("first", "small-segmamba", "--data", "/d", does="exit 0") as run:
        assert run.wait(20) == 0
    assert said(tmp_path) == [
        "train", "small-segmamba", "--data", "/d",
        "--out", str(tmp_path / "results"), "--name", "first",
    ]  # fmt: skip


@pytest.mark.parametrize("config", ["config.json", "fold_0/config.json"])
def test_a_run_that_was_begun_goes_on(start: Start, tmp_path: Path, config: str) -> None:
    file = tmp_path / "results" / "first" / config
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    with start("first", "small-segmamba", does="exit 0") as run:
        assert run.wait(20) == 0
    assert "--resume" in said(tmp_path)


def test_without_the_kernel_nothing_is_trained(start: Start, tmp_path: Path) -> None:
    with start("first", "small-segmamba", does="exit 0", kernel="false") as run:
        assert run.wait(20) == 1
    assert not (tmp_path / "said").exists()


def test_the_kernel_is_proved_by_the_script_of_the_image() -> None:
    (place,) = re.findall(r"^\"\$\{KERNEL_CHECK:-(.*)\}\"$", SCRIPT.read_text(), re.MULTILINE)
    folder, name = place.rsplit("/", 1)
    for stage in ("cpu", "gpu"):
        assert re.search(rf"^COPY .*docker/{name} .* {folder}/$", stages()[stage], re.MULTILINE)


@pytest.mark.parametrize("status", [1, 2, 74, 75, 137])
def test_the_status_is_the_run_s_own(start: Start, status: int) -> None:
    with start("first", "small-segmamba", does=f"exit {status}") as run:
        assert run.wait(20) == status


def test_a_signal_reaches_the_run_which_is_waited_for(start: Start, tmp_path: Path) -> None:
    slow = f"""trap 'sleep 0.5; touch {tmp_path}/saved; exit 75' TERM
touch {tmp_path}/ready
while :; do sleep 0.1; done"""
    with start("first", "small-segmamba", does=slow) as run:
        limit = time.monotonic() + 20
        while not (tmp_path / "ready").exists():
            assert time.monotonic() < limit
            time.sleep(0.02)
        run.send_signal(signal.SIGTERM)
        assert run.wait(20) == 75
    assert (tmp_path / "saved").exists()


STEPS = 60


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_run_is_evicted_and_the_next_pod_brings_it_to_its_end(tmp_path: Path) -> None:
    data = write_png_dataset(tmp_path / "raw")
    words = [
        "first", "lightm-unet-2d", "--data", str(data), "--steps", str(STEPS), "--device", "cpu",
        "--threads", "1", "--workers", "0", "--set", "patch=[1,64,64]",
        "--set", "network_args.init_filters=8",
    ]  # fmt: skip
    folder = RunFolder(tmp_path / "results" / "first")
    with a_pod(tmp_path, words) as pod:
        wait_for(lambda: any(folder.records("step")), pod)
        pod.send_signal(signal.SIGTERM)
        assert pod.wait(120) == 75
    (stopped,) = folder.records("end")
    with a_pod(tmp_path, words) as pod:
        assert pod.wait(300) == 0
    (finished,) = folder.records("end")
    assert (stopped["reason"], finished["reason"]) == ("stopped", "finished")
    assert stopped["step"] < finished["step"] == STEPS
    with a_pod(tmp_path, words) as pod:
        assert pod.wait(120) == 0, "a finished run is left alone"


def a_pod(tmp_path: Path, words: list[str]) -> subprocess.Popen[bytes]:
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "RESULTS": str(tmp_path / "results"),
        "KERNEL_CHECK": "true",
    }
    with (tmp_path / "pod.log").open("ab") as log:
        return subprocess.Popen(["sh", SCRIPT, *words], env=environment, stdout=log, stderr=log)


def wait_for(condition: Callable[[], bool], pod: subprocess.Popen[bytes]) -> None:
    limit = time.monotonic() + 240
    while not condition():
        assert pod.poll() is None, "the run ended before it was evicted"
        assert time.monotonic() < limit
        time.sleep(0.1)
