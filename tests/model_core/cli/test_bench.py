"""`segmamba bench gpu`: true figures, failures that are told, and a report that names nobody."""

from __future__ import annotations

import getpass
import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import Result

from model_core.cli import bench_facts, bench_kernels, bench_plan, bench_steps
from model_core.cli.bench_plan import BenchPlan, steps_of
from model_core.cli.bench_report import TITLES, Report, write_report
from model_core.cli.bench_steps import Measured, Row, Step, made, spread, timed
from model_core.cli.bench_windows import subjects
from model_core.ops import scan
from model_core.ops.backends import CUDA_KERNELS

Run = Callable[..., Result]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, models_folder: Path) -> BenchPlan:
    """A rehearsal on the CPU with the tests' tiny model."""
    monkeypatch.setenv("SEGMAMBA_MODELS", str(models_folder))
    return BenchPlan(device=torch.device("cpu"), quick=True, rounds=1, model="tiny")


def test_without_a_gpu_it_says_so_and_how_to_rehearse(segmamba: Run, tmp_path: Path) -> None:
    done = segmamba("bench", "gpu", "--device", "cuda:99", "-o", tmp_path / "report")
    assert done.exit_code == 2
    assert "expected a CUDA device" in done.stderr
    assert "segmamba bench gpu --device cpu --quick" in done.stderr
    assert not (tmp_path / "report").exists()


def test_a_report_is_replaced_only_when_that_is_wanted(segmamba: Run, tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("kept")
    done = segmamba("bench", "gpu", "--device", "cpu", "--quick", "-o", tmp_path)
    assert done.exit_code == 2
    assert "--overwrite" in done.stderr
    assert (tmp_path / "report.md").read_text() == "kept"


@pytest.mark.slow
def test_the_rehearsal_runs_every_part_and_writes_one_report(segmamba: Run, tmp_path: Path) -> None:
    done = segmamba(
        "bench", "gpu", "--device", "cpu", "--quick", "--model", "tiny", "-o", tmp_path / "r"
    )
    assert done.exit_code == 0, done.stdout
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert report["rehearsal"] is True
    assert report["complete"] is True
    assert {row["part"] for row in report["rows"]} == set(TITLES)
    assert not [row for row in report["rows"] if row["problem"]]
    timed_rows = [row for row in report["rows"] if row["part"] != "kernels"]
    assert all(row["seconds"]["median"] > 0 for row in timed_rows)
    errors = [row["figures"]["forward error"] for row in report["rows"] if row["part"] == "kernels"]
    assert errors
    assert max(errors) < 1e-5
    page = (tmp_path / "r" / "report.md").read_text()
    assert all(title in page for title in TITLES.values())
    assert "nothing to send" in page
    assert "nothing to send" in done.stdout
    for secret in (getpass.getuser(), platform.node(), str(tmp_path)):
        assert secret not in (tmp_path / "r" / "report.json").read_text().split()
        assert f'"{secret}' not in (tmp_path / "r" / "report.json").read_text()


def kernels_of(plan: BenchPlan, way: str) -> list[Row]:
    steps = [step for step in bench_kernels.kernel_steps(plan) if step.way == way]
    return [made(step, plan.accelerator) for step in steps]


def test_kernels_are_held_against_the_reference(plan: BenchPlan) -> None:
    rows = kernels_of(plan, "torch")
    assert len(rows) == 2
    for row in rows:
        assert not row.problem
        assert 0 < float(row.figures["forward error"]) < 1e-6
        assert 0 < float(row.figures["largest gradient error"]) < 1e-5


@pytest.mark.parametrize("wrong", ["forward", "gradient"])
def test_a_kernel_that_is_wrong_fails(
    plan: BenchPlan, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    right = scan.scan_torch

    class Off(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, y: torch.Tensor) -> torch.Tensor:
            return y * 1.001 if wrong == "forward" else y.clone()

        @staticmethod
        def backward(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
            return dy * 1.001

    monkeypatch.setattr(scan, "scan_torch", lambda inputs: Off.apply(right(inputs)))
    rows = kernels_of(plan, "torch")
    assert [row.problem for row in rows] == ["differs by more than it may"] * 2
    error = float(rows[0].figures["forward error"])
    assert (error > 9e-4) is (wrong == "forward")


@pytest.mark.parametrize("name", CUDA_KERNELS)
def test_a_named_scan_for_cuda_leaves_the_truth_to_the_cpu(
    plan: BenchPlan, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SEGMAMBA_SCAN_BACKEND", name)
    subject = subjects(plan)[1]
    assert subject.truth.isfinite().all()
    assert subject.truth.shape[2:] == plan.window


def step(measure: Callable[[], Measured]) -> Step:
    return Step(part="scan", subject="D 1, L 1", way="torch", measure=measure)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("no kernel image\nfor this GPU"), "RuntimeError: no kernel image"),
        (torch.OutOfMemoryError("tried to allocate"), "memory is used up"),
        (ValueError("unexpected"), "ValueError: unexpected"),
    ],
)
def test_whatever_fails_is_a_row(plan: BenchPlan, error: Exception, told: str) -> None:
    def fail() -> Measured:
        raise error

    row = made(step(fail), plan.accelerator)
    assert (row.problem, row.seconds, row.way) == (told, {}, "torch")


def test_an_interrupt_is_none_of_these(plan: BenchPlan) -> None:
    def interrupted() -> Measured:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(step(interrupted), plan.accelerator)


def failing(*_: object) -> Measured:
    raise RuntimeError("broken")


def stopped(*_: object) -> Measured:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("measures", "code", "complete", "rows"),
    [
        ([lambda: Measured(seconds=(0.5,))], 0, True, 1),
        ([failing, lambda: Measured(seconds=(0.5,))], 1, True, 2),
        ([lambda: Measured(seconds=(0.5,)), stopped, failing], 130, False, 1),
    ],
    ids=["sound", "one fails", "stopped"],
)
def test_what_was_measured_is_written_and_the_exit_code_tells(
    segmamba: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    measures: list[Callable[[], Measured]],
    code: int,
    complete: bool,
    rows: int,
) -> None:
    monkeypatch.setattr(bench_plan, "steps_of", lambda _: [step(one) for one in measures])
    done = segmamba("bench", "gpu", "--device", "cpu", "--model", "tiny", "-o", tmp_path)
    assert done.exit_code == code
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["complete"] is complete
    assert len(report["rows"]) == rows
    page = (tmp_path / "report.md").read_text()
    assert ("scan, D 1, L 1, torch: RuntimeError: broken" in page) is (code == 1)
    assert ("broken" in done.stderr) is (code == 1)


def test_a_time_has_its_spread() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"min": 1.0, "median": 2.0, "p90": 3.0, "count": 3}
    assert spread([float(n) for n in range(1, 11)])["p90"] == 9.0
    assert spread([]) == {}


def test_the_device_is_waited_for_around_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    device = SimpleNamespace(synchronise=lambda: log.append("wait"))
    timed(lambda: log.append("run"), device, warm_up=2, rounds=2)  # type: ignore[arg-type]
    assert log == ["run", "run", "wait", "run", "wait", "wait", "run", "wait"]
    clock = iter(range(0, 1000, 15))
    monkeypatch.setattr(bench_steps, "perf_counter", lambda: next(clock))
    seconds = timed(lambda: None, device, warm_up=0, rounds=9)  # type: ignore[arg-type]
    assert seconds == (15, 15)  # the second one ends after the limit


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A GPU as PyTorch and nvidia-smi show it; nothing can run on it."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 595.10\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    properties = SimpleNamespace(name="Test GPU", major=8, minor=6, multi_processor_count=84)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: properties)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (3 * 2**30, 8 * 2**30))
    return iter(())


@pytest.mark.usefixtures("card")
def test_on_a_gpu_every_precision_and_both_ways_are_planned(
    plan: BenchPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_plan.BenchPlan, "usable", ("torch",))
    monkeypatch.setattr(bench_plan.BenchPlan, "backend", "torch")
    there = BenchPlan(device=torch.device("cuda"), quick=False, rounds=3, model="tiny")
    steps = steps_of(there)
    ways = [one.way for one in steps if one.part == "study"]
    assert ways == [
        f"{precision}{more}"
        for precision in ("float32", "bfloat16", "float16")
        for more in ("", ", recorded")
    ]
    assert len({(one.part, one.subject, one.way) for one in steps}) == len(steps)
    assert {one.part for one in steps} == set(TITLES)
    facts = bench_facts.facts_of(there)
    assert facts["device"]["name"] == "Test GPU"
    assert facts["device"]["capability"] == "8.6"
    assert facts["device"]["driver"] == "595.10"
    assert facts["chosen"]["precision"] == "bfloat16"
    report = Report.begin(there)
    assert report.headline() == (
        "Test GPU, capability 8.6, driver 595.10, scan torch, convolutions bfloat16"
    )
    assert "issue in the project's repository" in report.to_markdown()


def test_settings_that_may_hold_secrets_stay_out(
    plan: BenchPlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEGMAMBA_S3_SECRET", "hidden")
    monkeypatch.setenv("SEGMAMBA_PRECISION", "float32")
    report = Report.begin(plan)
    write_report(report, tmp_path)
    text = (tmp_path / "report.json").read_text()
    assert "hidden" not in text
    assert json.loads(text)["settings"] == {"SEGMAMBA_PRECISION": "float32"}
