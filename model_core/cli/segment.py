"""``segmamba segment``: from four contrasts, or folders of studies, to label maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import typer

from model_core.cli import examples, say_error, say_warning
from model_core.cli.batch import batch_of, hand_over, refuse_alone
from model_core.cli.engine import Engine, make_segmenter
from model_core.cli.interrupt import stop_on_interrupt
from model_core.cli.options import (
    AllowFewerPasses,
    ArchivePlace,
    Backend,
    BatchKeyFile,
    BatchServer,
    BiasField,
    Device,
    Dicom,
    GridOf,
    Image,
    InFlight,
    MemoryLimit,
    Mirroring,
    Model,
    OutputPlace,
    Overwrite,
    Postprocess,
    Precision,
    Preprocess,
    Preview,
    ReportPlace,
    RetryFailed,
    RunFile,
    Scheme,
    SegType,
    SeriesChoice,
    StudyPlaces,
    Table,
    Threads,
    Window,
)
from model_core.cli.outputs import Targets, Wish, place
from model_core.cli.results import Run, write_results
from model_core.cli.show import Outcome, Row, StudyProgress, show_outcome, show_summary
from model_core.errors import Cancelled, OptionError, SegMambaError
from model_core.types import CONTRASTS, CancelCheck, Contrast

if TYPE_CHECKING:
    from model_core.dicom.seg import SegKind
    from model_core.findings import Statistics
    from model_core.inference.segmenter import Segmenter, SegmentOptions
    from model_core.pipeline.images import Images
    from model_core.preparation.options import PrepareMode, PrepareOptions
    from model_core.preparation.prepared import PreparedStudy


@dataclass(frozen=True, kw_only=True)
class Job:
    """One study to segment and where its results go."""

    name: str
    sources: Mapping[Contrast, Path]
    targets: Targets
    dicom: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Way:
    """How scans become what the network sees, and what is made of the result.

    Attributes:
        prepare: what is done to the images; None: as DICOM or NIfTI has it.
        grid: the contrast on whose grid the label map is wanted; None: likewise.
        n4: whether bias fields are corrected first.
        series: contrast → uid of the DICOM series that the user chose.
        seg_type: how a DICOM SEG stores its voxels.
    """

    prepare: PrepareMode | None = None
    grid: Contrast | None = None
    n4: bool = False
    series: Mapping[Contrast, str] = field(default_factory=dict)
    seg_type: SegKind = "BINARY"

    def options(self, *, dicom: bool) -> PrepareOptions:
        """The choices for one study."""
        from model_core.preparation.options import PrepareOptions

        return PrepareOptions(
            mode=self.prepare or ("auto" if dicom else "none"),
            onto=self.grid or ("t1ce" if dicom else "t1"),
            n4=self.n4,
        )


@examples(
    "segmamba segment --t1 t1.nii.gz --t1ce t1ce.nii.gz --t2 t2.nii.gz --flair flair.nii.gz"
    " -o seg.nii.gz",
    "segmamba segment BraTS2021_00006 -o seg.nii.gz --report report.json --preview p.png",
    "segmamba segment BraTS2021/ -o results/ --preview results/   (every study below the folder)",
    "segmamba segment imagesTs/ -o results/ --tta fast --label-scheme brats2023",
    "segmamba segment --dicom study.zip -o seg.nii.gz --archive results.zip   (SEG and SR inside)",
    "segmamba segment --t1 t1.nii.gz --t1ce t1c.nii.gz --t2 t2.nii.gz --flair fla.nii.gz"
    " --preprocess auto --grid flair -o seg.nii.gz",
    "segmamba segment s3://bucket/studies -o s3://bucket/results --server http://127.0.0.1:8000",
)
def segment(  # noqa: PLR0913 - each parameter is an option of the command
    context: typer.Context,
    output: OutputPlace,
    studies: StudyPlaces = None,
    t1: Image = None,
    t1ce: Image = None,
    t2: Image = None,
    flair: Image = None,
    report: ReportPlace = None,
    preview: Preview = None,
    table: Table = None,
    run: RunFile = None,
    archive: ArchivePlace = None,
    dicom: Dicom = None,
    series: SeriesChoice = None,
    preprocess: Preprocess = None,
    grid: GridOf = None,
    n4: BiasField = False,
    seg_type: SegType = "BINARY",
    model: Model = None,
    tta: Mirroring = None,
    label_scheme: Scheme = None,
    postprocess: Postprocess = None,
    window: Window = None,
    allow_fewer_passes: AllowFewerPasses = None,
    device: Device = "auto",
    backend: Backend = None,
    precision: Precision = "auto",
    threads: Threads = None,
    memory_limit: MemoryLimit = None,
    server: BatchServer = None,
    key_file: BatchKeyFile = None,
    in_flight: InFlight = None,
    retry_failed: RetryFailed = False,
    overwrite: Overwrite = False,
) -> None:
    """Segment brain tumours: four contrasts in, a label map on the grid of one of them out.

    NIfTI images are taken as they are, on the grid of t1, unless --preprocess says otherwise; DICOM
    is prepared as far as it needs it. Several studies run one after another; a study that
    fails is reported and the others go on (exit code 1). Results appear whole or not at all.
    Existing results are not replaced unless asked: one study is refused, of many those are kept.
    """
    if server is not None:
        raise typer.Exit(hand_over(batch_of(context)))
    refuse_alone({"--key-file": key_file, "--in-flight": in_flight, "--retry-failed": retry_failed})
    wish = Wish(
        label_map=Path(output), report=_path(report), preview=preview, run=run,
        archive=_path(archive),
    )  # fmt: skip
    files = {"t1": t1, "t1ce": t1ce, "t2": t2, "flair": flair}
    jobs = gather(_folders(studies or []), files, wish, dicom=dicom)
    way = Way(
        prepare=preprocess, grid=grid, n4=n4, series=chosen_series(series or []), seg_type=seg_type
    )
    for one in jobs:
        way.options(dicom=one.dicom is not None)  # what does not go together is told at once
    if len(jobs) == 1 and not overwrite:
        _refuse_existing(jobs[0].targets)
    from model_core.inference.segmenter import SegmentOptions

    options = SegmentOptions(
        tta=tta, label_scheme=label_scheme, postprocess=postprocess, window=window,
        allow_fewer_passes=allow_fewer_passes,
    )  # fmt: skip
    engine = Engine(
        model=model, device=device, backend=backend, precision=precision, threads=threads,
        memory_limit_mb=memory_limit,
    )  # fmt: skip
    studio = Studio(segmenter=make_segmenter(engine), options=options, way=way)
    figures: dict[str, Statistics] = {}
    try:
        if len(jobs) == 1:
            _run_one(studio, jobs[0], figures)
        else:
            _run_many(studio, jobs, figures, overwrite=overwrite)
    finally:
        if table is not None and figures:
            _write_table(table, figures)


@dataclass(frozen=True, eq=False, kw_only=True)
class Studio:
    """What every study of a command is segmented with."""

    segmenter: Segmenter
    options: SegmentOptions
    way: Way = Way()


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _folders(texts: Sequence[str]) -> list[Path]:
    """The folders that were named.

    Raises:
        OptionError: one of them is none.
    """
    for text in texts:
        if not Path(text).is_dir():
            remote = "://" in text
            raise OptionError(
                "studies",
                expected="a folder",
                got="an address" if remote else "none that is there",
                way_out="Name a service too, with --server." if remote else "Check the path.",
            )
    return [Path(text) for text in texts]


def _write_table(path: Path, figures: Mapping[str, Statistics]) -> None:
    from model_core.findings import to_csv
    from model_core.imaging.atomic import write_atomically

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, to_csv(figures).encode())


def chosen_series(texts: Sequence[str]) -> dict[Contrast, str]:
    """The user's own choice of series.

    Raises:
        OptionError: not CONTRAST=UID, or a contrast twice.
    """
    found: dict[Contrast, str] = {}
    for text in texts:
        name, _, uid = text.partition("=")
        contrast = next((one for one in CONTRASTS if one == name), None)
        if contrast is None or contrast in found or not uid:
            raise OptionError(
                "--series",
                expected="CONTRAST=UID, each contrast once",
                got="something else",
                way_out="Copy the uid from segmamba inspect: --series t1ce=1.2.840…",
            )
        found[contrast] = uid
    return found


def gather(
    folders: Sequence[Path],
    files: Mapping[str, Path | None],
    wish: Wish,
    *,
    dicom: Path | None = None,
) -> list[Job]:
    """The studies that were asked for, each with its targets.

    Raises:
        OptionError: folders and files together, neither, or two studies of one name.
        StudyError: a folder without a complete study.
    """
    from model_core.imaging.study import find_studies

    named = {contrast: path for contrast in CONTRASTS if (path := files.get(contrast))}
    if dicom is not None:
        _refuse_beside_dicom(named, folders)
        targets = place(wish, "segmentation", alone=True)
        return [Job(name="segmentation", sources={}, targets=targets, dicom=dicom)]
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


def _refuse_beside_dicom(named: Mapping[Contrast, Path], folders: Sequence[Path]) -> None:
    if named or folders:
        raise OptionError(
            "--dicom",
            expected="a DICOM study alone",
            got="other images beside it",
            way_out="Segment one after the other.",
        )


def _require_all_four(named: Mapping[Contrast, Path], folders: Sequence[Path]) -> None:
    given = " ".join([*(f"--{contrast}" for contrast in named), *("a folder" for _ in folders[:1])])
    if len(named) < len(CONTRASTS) or folders:
        raise OptionError(
            "studies",
            expected="either folders, or all of --t1 --t1ce --t2 --flair, or --dicom",
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


def _run_one(studio: Studio, job: Job, figures: dict[str, Statistics]) -> None:
    with stop_on_interrupt() as cancelled, StudyProgress(total=1) as progress:
        outcome = process(studio, job, progress, cancelled)
    figures[job.name] = outcome.statistics
    for flag in outcome.flags:
        say_warning(f"{flag.severity}: {flag.reason}")
    for warning in outcome.result.warnings:
        say_warning(warning)
    show_outcome(outcome, job.targets)


def _run_many(
    studio: Studio, jobs: Sequence[Job], figures: dict[str, Statistics], *, overwrite: bool
) -> None:
    rows: list[Row] = []
    try:
        with stop_on_interrupt() as cancelled, StudyProgress(total=len(jobs)) as progress:
            for job in jobs:
                if job.targets.label_map.exists() and not overwrite:
                    rows.append(Row(job.name, note="kept: it is there already (--overwrite)"))
                    progress.finish_study()
                    continue
                rows.append(_attempt(studio, job, figures, progress, cancelled))
    finally:
        show_summary(rows, total=len(jobs))
    if any(row.failed for row in rows):
        raise typer.Exit(1)


def _attempt(
    studio: Studio,
    job: Job,
    figures: dict[str, Statistics],
    progress: StudyProgress,
    cancelled: CancelCheck,
) -> Row:
    """One study of many; what is wrong with it must not stop the others."""
    try:
        outcome = process(studio, job, progress, cancelled)
    except Cancelled:
        raise
    except (SegMambaError, OSError) as error:
        progress.finish_study()
        say_error(f"{job.name}: {error}")
        return Row(job.name, note="failed", failed=True)
    figures[job.name] = outcome.statistics
    flags = (f"{flag.severity}: {flag.code}" for flag in outcome.flags)
    return Row(
        job.name,
        volumes_ml=outcome.result.volumes_ml,
        seconds=sum(outcome.seconds.values()),
        note="; ".join((*flags, *outcome.result.warnings)),
    )


def process(studio: Studio, job: Job, progress: StudyProgress, cancelled: CancelCheck) -> Outcome:
    """Read, prepare, segment and write one study; its files appear together at the end."""
    from model_core.pipeline.answer import answer

    progress.start_study(job.name)
    started, began = datetime.now(UTC), perf_counter()
    with _opened(job, studio.way) as images:
        ready = _prepared(job, images, studio.way, progress, cancelled)
        read = perf_counter() - began
        found = answer(
            studio.segmenter,
            ready,
            studio.options,
            warnings=images.warnings,
            progress=progress.update,
            cancelled=cancelled,
        )
        began = perf_counter()
        run = Run(job=job, studio=studio, images=images, ready=ready, found=found, started=started)
        write_results(run)
    progress.finish_study()
    result = found.segmentation
    seconds = {"read": read, **result.stage_seconds, "write": perf_counter() - began}
    return Outcome(result=result, seconds=seconds, statistics=found.statistics, flags=found.flags)


@contextmanager
def _opened(job: Job, way: Way) -> Iterator[Images]:
    """The images of a study; what an archive holds is there as long as the context."""
    from model_core.pipeline.images import images_of_dicom, images_of_nifti

    if job.dicom is None:
        yield images_of_nifti(job.sources)
        return
    from model_core.dicom.gather import gathered

    with gathered(job.dicom) as files:
        yield images_of_dicom(files, override=way.series)


def _prepared(
    job: Job, images: Images, way: Way, progress: StudyProgress, cancelled: CancelCheck
) -> PreparedStudy:
    from model_core.imaging.study import make_study
    from model_core.preparation.prepare import prepare_study
    from model_core.preparation.prepared import as_it_is

    options = way.options(dicom=job.dicom is not None)
    if options.mode == "none":
        return as_it_is(make_study(images.volumes, reference=options.onto))
    return prepare_study(images.volumes, options, progress=progress.update, cancelled=cancelled)
