"""``segmamba demo``: a generated study through the whole program, compared with its truth."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from model_core.cli import examples, out, say_warning
from model_core.cli.engine import Engine, engine_line, make_segmenter
from model_core.cli.interrupt import stop_on_interrupt
from model_core.cli.options import (
    Backend,
    Device,
    MemoryLimit,
    Mirroring,
    Model,
    Precision,
    Threads,
    Window,
)
from model_core.cli.outputs import Targets
from model_core.cli.segment import Job, Studio, process
from model_core.cli.show import VOLUME_MEANINGS, Outcome, StudyProgress, show_paths, stages_line
from model_core.types import CONTRASTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_core.inference.segmenter import Segmenter, SegmentOptions
    from model_core.types import Shape3


@examples(
    "segmamba demo",
    "segmamba demo --seed 7 --tta full -o /tmp/demo",
    "segmamba demo --precision float32 --threads 1   (how long would it take with less?)",
)
def demo(  # noqa: PLR0913 - each parameter is an option of the command
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the study and the results.")
    ] = Path("build/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Which phantom to generate.")] = 0,
    model: Model = None,
    tta: Mirroring = None,
    window: Window = None,
    device: Device = "auto",
    backend: Backend = None,
    precision: Precision = "auto",
    threads: Threads = None,
    memory_limit: MemoryLimit = None,
) -> None:
    """Segment a generated sample study and compare the result with its known truth.

    The study is a digital phantom: no patient's data, and no measure of accuracy on patients.
    It shows that the installation works and how long each stage takes here.
    """
    from model_core.inference.segmenter import SegmentOptions
    from model_core.phantom import FULL_SHAPE

    engine = Engine(
        model=model, device=device, backend=backend, precision=precision, threads=threads,
        memory_limit_mb=memory_limit,
    )  # fmt: skip
    options = SegmentOptions(tta=tta, window=window)
    run_demo(make_segmenter(engine), options, output, seed=seed, shape=FULL_SHAPE)


def run_demo(
    segmenter: Segmenter, options: SegmentOptions, folder: Path, *, seed: int, shape: Shape3
) -> None:
    """The demo with a phantom of any size (voxels)."""
    from model_core.phantom import write_phantom

    with stop_on_interrupt() as cancelled, StudyProgress(total=1) as progress:
        progress.start_study("phantom", "generate")
        began = time.perf_counter()
        phantom, paths = write_phantom(folder / "study", seed=seed, shape=shape)
        generated = time.perf_counter() - began
        job = Job(
            name=phantom.name,
            sources={contrast: paths[contrast] for contrast in CONTRASTS},
            targets=_targets(folder),
        )
        studio = Studio(segmenter=segmenter, options=options)
        outcome = process(studio, job, progress, cancelled)
    for warning in outcome.result.warnings:
        say_warning(warning)
    _show(outcome, job.targets, phantom.truth_ml, paths["seg"], generated)


def _targets(folder: Path) -> Targets:
    return Targets(
        label_map=folder / "segmentation.nii.gz",
        report=folder / "report.json",
        preview=folder / "preview.png",
    )


def _show(
    outcome: Outcome,
    targets: Targets,
    truth_ml: Mapping[str, float],
    truth: Path,
    generated: float,
) -> None:
    console, result = out(), outcome.result
    engine = engine_line(result)
    console.print(f"Model {result.model} {result.model_version}, {engine}", soft_wrap=True)
    dice = _dice(targets.label_map, truth)
    table = Table(box=None, padding=(0, 2))
    for column in ("region", "found mL", "true mL", "Dice"):
        table.add_column(column, justify="left" if column == "region" else "right")
    table.add_column("", style="dim")
    for name, meaning in VOLUME_MEANINGS.items():
        score = f"{dice[name]:.3f}" if name in dice else ""
        table.add_row(
            name, f"{result.volumes_ml[name]:.1f}", f"{truth_ml[name]:.1f}", score, meaning
        )
    console.print(table)
    console.print(f"phantom {generated:.1f} s · {stages_line(outcome.seconds)}", soft_wrap=True)
    show_paths(console, targets)
    console.print(
        "A generated phantom: no measure of accuracy on patients. Not a medical device.",
        style="dim",
    )


def _dice(label_map: Path, truth: Path) -> dict[str, float]:
    """Dice by region between two written label maps, as ``segmamba evaluate`` computes it."""
    from model_core.imaging.nifti import read_label_map
    from model_core.metrics.evaluate import evaluate_case

    found, volume = read_label_map(label_map, argument="label map")
    expected, _ = read_label_map(truth, argument="truth")
    scores = evaluate_case(found, expected, volume.spacing_mm)
    return {str(region): metrics.dice for region, metrics in scores.regions.items()}
