"""``segmamba bench gpu``: one command that checks, times and reports what runs on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from model_core.cli import epilog, err, out, say_error
from model_core.cli.options import Model
from model_core.errors import OptionError

if TYPE_CHECKING:
    import torch

    from model_core.cli.bench_plan import BenchPlan
    from model_core.cli.bench_report import Report
    from model_core.cli.bench_steps import Row

bench = typer.Typer(
    name="bench",
    help="Measure this machine: **gpu** checks and times a GPU, and writes a report.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)

REPORT_FILES: Final = ("report.json", "report.md")


@bench.callback()
def about() -> None:
    """Measure this machine."""  # a callback keeps `gpu` a command of its own


@bench.command(
    epilog=epilog(
        "segmamba bench gpu",
        "segmamba bench gpu --device cuda:1 -o second-gpu/",
        "segmamba bench gpu --device cpu --quick   (a rehearsal where there is no GPU)",
    )
)
def gpu(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", file_okay=False, help="Folder for report.json and .md."),
    ] = Path("gpu-report"),
    device: Annotated[
        str, typer.Option(help="cuda or cuda:N; cpu rehearses the same steps without a GPU.")
    ] = "cuda",
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes: does everything run? No figures to keep.")
    ] = False,
    rounds: Annotated[
        int, typer.Option(min=1, help="Runs of each measurement that count, at most.")
    ] = 10,
    model: Model = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a report that is there already.")
    ] = False,
) -> None:
    """Check what a GPU computes, time it, and write one report to send back.

    Every scan kernel that is installed is compared with the reference in float64, forward and
    backward. Then the scan, whole windows, copies, a generated study and a training step are timed,
    in each precision that the GPU has, with and without recorded graphs. Label maps are compared
    with those of float32. Nothing of the report names a person, a host or a folder.

    Exit code 0: all that can run here agrees; 1: something failed or differs, the report says what;
    2: there is no such device.
    """
    from model_core.allocator import keep_freed_memory
    from model_core.cli.bench_plan import BenchPlan
    from model_core.cli.bench_report import Report, write_report
    from model_core.cpu import limit_threads

    keep_freed_memory()
    limit_threads()
    _refuse_old(output, overwrite)
    plan = BenchPlan(device=_device(device), quick=quick, rounds=rounds, model=model)
    report = Report.begin(plan)
    out().print(report.headline(), soft_wrap=True)
    try:
        _measure(plan, report)
    finally:  # also what was measured before somebody lost patience
        write_report(report, output)
    _show(report, output)
    raise typer.Exit(1 if report.failed() else 0)


def _device(name: str) -> torch.device:
    """The device, or exit code 2 with the way out."""
    from model_core.inference.device import usable_device

    try:
        return usable_device(name)
    except OptionError as error:
        raise OptionError(
            "device",
            expected="a CUDA device that PyTorch can use here",
            got=repr(name),
            way_out="segmamba doctor says what is missing; docs/gpu.md how to set a machine up. "
            "Without a GPU the same steps can be rehearsed: "
            "segmamba bench gpu --device cpu --quick",
        ) from error


def _refuse_old(folder: Path, overwrite: bool) -> None:
    if not overwrite and any((folder / name).exists() for name in REPORT_FILES):
        raise OptionError(
            "--output",
            expected="a folder without a report",
            got="one with a report in it",
            way_out="Choose another one, or add --overwrite.",
        )


def _measure(plan: BenchPlan, report: Report) -> None:
    """Make every measurement, and tell each as it is made."""
    from model_core.cli.bench_plan import steps_of
    from model_core.cli.bench_steps import made

    steps = steps_of(plan)
    report.planned = len(steps)
    for number, step in enumerate(steps, start=1):
        place = f"[{number}/{len(steps)}] {step.part}: {step.subject}, {step.way}"
        err().print(Text(f"{place} …"), soft_wrap=True)
        row = made(step, plan.accelerator)
        report.rows.append(row)
        told = Text(f"    {row.problem or in_words(row)}", style="red" if row.problem else "dim")
        err().print(told, soft_wrap=True)


def in_words(row: Row) -> str:
    """One measurement on a line."""
    from model_core.cli.bench_report import short

    parts = [f"{short(row.seconds['median'] * 1e3)} ms"] if row.seconds else []
    return ", ".join([*parts, *(f"{name} {short(value)}" for name, value in row.figures.items())])


def _show(report: Report, output: Path) -> None:
    console = out()
    table = Table(box=None, padding=(0, 2), title="Result", title_justify="left")
    for name in ("", "subject", "way", "result"):
        table.add_column(name, overflow="fold")
    for row in report.rows:
        said = row.problem or in_words(row)
        table.add_row(row.part, row.subject, row.way, Text(said, "red" if row.problem else ""))
    console.print(table)
    for row in report.failed():
        say_error(f"{row.part}, {row.subject}, {row.way}: {row.problem}")
    console.print(report.closing(), soft_wrap=True)
    for name in REPORT_FILES:
        console.print(f"{output / name}", soft_wrap=True, markup=False)
