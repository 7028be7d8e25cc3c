"""``segmamba segment``: from four contrasts, or folders of studies, to label maps."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import typer

from model_core.cli import examples, say_error, say_warning
from model_core.cli.engine import Engine, make_segmenter
from model_core.cli.interrupt import stop_on_interrupt
from model_core.cli.options import (
    Backend,
    Device,
    Image,
    MemoryLimit,
    Mirroring,
    Model,
    Output,
    Overwrite,
    Postprocess,
    Precision,
    Preview,
    Report,
    Scheme,
    StudyFolders,
    Threads,
    Window,
)
from model_core.cli.outputs import Targets, Wish, all_or_nothing, place
from model_core.cli.show import Outcome, Row, StudyProgress, show_outcome, show_summary
from model_core.errors import Cancelled, OptionError, SegMambaError
from model_core.types import CONTRASTS, CancelCheck, Contrast

if TYPE_CHECKING:
    from model_core.imaging.study import Study
    from model_core.inference.segmenter import Segmentation, Segmenter, SegmentOptions


@dataclass(frozen=True, kw_only=True)
class Job:
    """One study to segment and where its results go."""

    name: str
    sources: Mapping[Contrast, Path]
    targets: Targets


@examples(
    "segmamba segment --t1 t1.nii.gz --t1ce t1ce.nii.gz --t2 t2.nii.gz --flair flair.nii.gz"
    " -o seg.nii.gz",
    "segmamba segment BraTS2021_00006 -o seg.nii.gz --report run.json --preview p.png",
    "segmamba segment BraTS2021/ -o results/ --preview results/   (every study below the folder)",
    "segmamba segment imagesTs/ -o results/ --tta fast --label-scheme brats2023",
)
def segment(  # noqa: PLR0913 - each parameter is an option of the command
    output: Output,
    studies: StudyFolders = None,
    t1: Image = None,
    t1ce: Image = None,
    t2: Image = None,
    flair: Image = None,
    report: Report = None,
    preview: Preview = None,
    model: Model = None,
    tta: Mirroring = None,
    label_scheme: Scheme = None,
    postprocess: Postprocess = None,
    window: Window = None,
    device: Device = "auto",
    backend: Backend = None,
    precision: Precision = "auto",
    threads: Threads = None,
    memory_limit: MemoryLimit = None,
    overwrite: Overwrite = False,
) -> None:
    """Segment brain tumours: four co-registered contrasts in, a label map on their grid out.

    The label map has the grid of the t1 image. Several studies run one after another; a study that
    fails is reported and the others go on (exit code 1). Results appear whole or not at all.
    Existing results are not replaced unless asked: one study is refused, of many those are kept.
    """
    wish = Wish(label_map=output, report=report, preview=preview)
    files = {"t1": t1, "t1ce": t1ce, "t2": t2, "flair": flair}
    jobs = gather(studies or [], files, wish)
    if len(jobs) == 1 and not overwrite:
        _refuse_existing(jobs[0].targets)
    from model_core.inference.segmenter import SegmentOptions

    options = SegmentOptions(
        tta=tta, label_scheme=label_scheme, postprocess=postprocess, window=window
    )
    engine = Engine(
        model=model, device=device, backend=backend, precision=precision, threads=threads,
        memory_limit_mb=memory_limit,
    )  # fmt: skip
    segmenter = make_segmenter(engine)
    if len(jobs) == 1:
        _run_one(segmenter, jobs[0], options)
    else:
        _run_many(segmenter, jobs, options, overwrite=overwrite)


def gather(folders: Sequence[Path], files: Mapping[str, Path | None], wish: Wish) -> list[Job]:
    """The studies that were asked for, each with its targets.

    Raises:
        OptionError: folders and files together, neither, or two studies of one name.
        StudyError: a folder without a complete study.
    """
    from model_core.imaging.study import find_studies

    named = {contrast: path for contrast in CONTRASTS if (path := files.get(contrast))}
    if folders and not named:
        found = [study for folder in folders for study in find_studies(folder)]
        _refuse_equal_names([study.name for study in found])
        alone = len(found) == 1
        return [
            Job(name=study.name, sources=study.paths, targets=place(wish, study.name, alone=alone))
            for study in found
        ]
    _require_all_four(named, folders)
    name = "segmentation"
    return [Job(name=name, sources=named, targets=place(wish, name, alone=True))]


def _require_all_four(named: Mapping[Contrast, Path], folders: Sequence[Path]) -> None:
    given = " ".join([*(f"--{contrast}" for contrast in named), *("a folder" for _ in folders[:1])])
    if len(named) < len(CONTRASTS) or folders:
        raise OptionError(
            "studies",
            expected="either folders, or all of --t1 --t1ce --t2 --flair",
            got=given or "neither",
            way_out="See: segmamba segment --help",
        )


def _refuse_equal_names(names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise OptionError(
            "studies",
            expected="studies of different names, since results are named after them",
            got=f"{len(repeated)} name(s) more than once",
            way_out="Segment the folders one by one, into different output folders.",
        )


def _refuse_existing(targets: Targets) -> None:
    if targets.existing:
        raise OptionError(
            "--output",
            expected="files that do not exist yet",
            got=", ".join(path.name for path in targets.existing),
            way_out="Name others, or replace them with --overwrite.",
        )


def _run_one(segmenter: Segmenter, job: Job, options: SegmentOptions) -> None:
    with stop_on_interrupt() as cancelled, StudyProgress(total=1) as progress:
        outcome = process(segmenter, job, options, progress, cancelled)
    for warning in outcome.result.warnings:
        say_warning(warning)
    show_outcome(outcome, job.targets)


def _run_many(
    segmenter: Segmenter, jobs: Sequence[Job], options: SegmentOptions, *, overwrite: bool
) -> None:
    rows: list[Row] = []
    try:
        with stop_on_interrupt() as cancelled, StudyProgress(total=len(jobs)) as progress:
            for job in jobs:
                if job.targets.label_map.exists() and not overwrite:
                    rows.append(Row(job.name, note="kept: it is there already (--overwrite)"))
                    progress.finish_study()
                    continue
                rows.append(_attempt(segmenter, job, options, progress, cancelled))
    finally:
        show_summary(rows, total=len(jobs))
    if any(row.failed for row in rows):
        raise typer.Exit(1)


def _attempt(
    segmenter: Segmenter,
    job: Job,
    options: SegmentOptions,
    progress: StudyProgress,
    cancelled: CancelCheck,
) -> Row:
    """One study of many; what is wrong with it must not stop the others."""
    try:
        outcome = process(segmenter, job, options, progress, cancelled)
    except Cancelled:
        raise
    except (SegMambaError, OSError) as error:
        progress.finish_study()
        say_error(f"{job.name}: {error}")
        return Row(job.name, note="failed", failed=True)
    return Row(
        job.name,
        volumes_ml=outcome.result.volumes_ml,
        seconds=sum(outcome.seconds.values()),
        note="; ".join(outcome.result.warnings),
    )


def process(
    segmenter: Segmenter,
    job: Job,
    options: SegmentOptions,
    progress: StudyProgress,
    cancelled: CancelCheck,
) -> Outcome:
    """Read, segment and write one study; its files appear together at the end."""
    from model_core.imaging.study import load_study

    progress.start_study(job.name)
    began = perf_counter()
    study = load_study(job.sources)
    read = perf_counter() - began
    result = segmenter.segment(study, options, progress=progress.update, cancelled=cancelled)
    began = perf_counter()
    write_results(result, study, job.targets)
    progress.finish_study()
    seconds = {"read": read, **result.stage_seconds, "write": perf_counter() - began}
    return Outcome(result=result, seconds=seconds)


def write_results(result: Segmentation, study: Study, targets: Targets) -> None:
    """Write the label map and, where asked for, the report and the picture: all or none."""
    with all_or_nothing() as stage:
        data = result.encode()
        if targets.label_map.name.lower().endswith(".nii"):
            data = gzip.decompress(data)
        stage(targets.label_map).write_bytes(data)
        if targets.report:
            report: Mapping[str, Any] = result.report()
            stage(targets.report).write_text(json.dumps(report, indent=2) + "\n")
        if targets.preview:
            from model_core.preview import render_preview

            model = f"{result.model} {result.model_version}"
            render_preview(study, result.labels, stage(targets.preview), model=model)
