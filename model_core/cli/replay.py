"""``segmamba replay``: a run again from its ``run.json``, held against what it gave then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from model_core.cli import examples, out, say_warning
from model_core.cli.engine import Engine, engine_line, make_segmenter
from model_core.cli.interrupt import stop_on_interrupt
from model_core.cli.options import Backend, Model, Overwrite, Threads
from model_core.cli.show import StudyProgress
from model_core.errors import OptionError, StudyError

if TYPE_CHECKING:
    from model_core.imaging.volume import Volume
    from model_core.inference.segmenter import Segmentation, Segmenter
    from model_core.labels import LabelArray
    from model_core.provenance.compare import Comparison, Difference
    from model_core.provenance.inputs import FoundFiles
    from model_core.provenance.manifest import RunManifest
    from model_core.provenance.record import RunFacts
    from model_core.types import Contrast


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A run done again.

    Attributes:
        result: what came out now.
        encoded: its label map as a file.
        differences: what was not as it was then.
        comparison: of both label maps.
    """

    result: Segmentation
    encoded: bytes
    differences: tuple[Difference, ...]
    comparison: Comparison


@examples(
    "segmamba replay run.json --input study/",
    "segmamba replay run.json --input archive/ -o again.nii.gz",
    "segmamba replay run.json --input study/ --device cpu --tolerance 0.01"
    "   (another machine: borders may move)",
)
def replay(  # noqa: PLR0913 - each parameter is an option of the command
    manifest: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="The run.json of the run.")
    ],
    inputs: Annotated[
        list[Path],
        typer.Option(
            "--input",
            "-i",
            exists=True,
            help="A file or a folder to find the images in, by their content; may be repeated.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the new label map (.nii.gz).")
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="DICE",
            help="How far below 1 the Dice of a region may be; 0: every voxel must agree.",
        ),
    ] = 0.0,
    model: Model = None,
    device: Annotated[
        str | None,
        typer.Option(
            rich_help_panel="How to run", help="Another device than the run's. (default: its own)"
        ),
    ] = None,
    backend: Backend = None,
    threads: Threads = None,
    overwrite: Overwrite = False,
) -> None:
    """Segment a study again as its run.json says, and tell whether the same comes out.

    The images are found by their content, so they may have other names. What differs in model,
    program, libraries or machine is named. The first label map is looked for among the inputs and
    beside run.json; without it, a different result is only known to be different.
    Exit code 0: the same within the tolerance; 1: not.
    """
    from model_core.provenance.inputs import find_files
    from model_core.provenance.manifest import read_manifest

    _check_output(output, overwrite)
    run = read_manifest(manifest)
    beside = [path for path in manifest.absolute().parent.iterdir() if path.is_file()]
    found = find_files(run, inputs, beside=beside)
    engine = engine_of(run, model=model, device=device, backend=backend, threads=threads)
    replayed = replay_run(run, found, engine)
    if output is not None:
        _write(output, replayed.encoded)
    _show(run, replayed, output)
    if not replayed.comparison.within(tolerance):
        raise typer.Exit(1)


def replay_run(run: RunManifest, found: FoundFiles, engine: Engine) -> Replayed:
    """Do a run again.

    Args:
        run: its manifest.
        found: its files.
        engine: what to run it with.

    Raises:
        BundleError: its model is not installed.
        SegMambaError: it cannot be run here.
    """
    from model_core.provenance.compare import compare, differences
    from model_core.provenance.digests import sha256_of

    segmenter = make_segmenter(engine)
    began = datetime.now(UTC)
    volumes = {contrast: _read(run, contrast, paths) for contrast, paths in found.inputs.items()}
    result, facts = _segment(run, volumes, segmenter, began)
    encoded = result.encode()
    now = _manifest(volumes, result, encoded, facts, found)
    return Replayed(
        result=result,
        encoded=encoded,
        differences=differences(run, now),
        comparison=compare(run, result.labels, sha256_of(encoded), _first_labels(found)),
    )


def _read(run: RunManifest, contrast: Contrast, paths: Sequence[Path]) -> Volume:
    from model_core.imaging.nifti import read_nifti

    if run.source == "nifti":
        return read_nifti(paths[0], argument=contrast)
    return _read_dicom(paths, contrast, run.inputs[contrast].decoded_sha256)


def _read_dicom(paths: Sequence[Path], contrast: Contrast, decoded: str) -> Volume:
    """The volume of the run; files may hold several, and its content tells which it was."""
    from model_core.dicom.series import list_series
    from model_core.dicom.volume import read_series
    from model_core.provenance.digests import decoded_sha256

    listed = list_series(paths)
    usable = [one for one in listed if not one.problems] or listed  # a problem is told by the read
    volumes = [read_series(one, argument=contrast) for one in usable]
    if len(volumes) == 1:
        return volumes[0]
    same = (volume for volume in volumes if decoded_sha256(volume) == decoded)
    if (volume := next(same, None)) is not None:
        return volume
    raise StudyError(
        contrast,
        expected="the volume of the run among those of its files",
        got=f"{len(volumes)} volumes with other voxels",
        way_out="Replay it with the version of the program that wrote run.json.",
    )


def _segment(
    run: RunManifest, volumes: Mapping[Contrast, Volume], segmenter: Segmenter, began: datetime
) -> tuple[Segmentation, RunFacts]:
    """The label map on the grid that the run asked for, and the facts of this run."""
    import torch

    from model_core.inference.segmenter import SegmentOptions
    from model_core.preparation.options import PrepareOptions
    from model_core.preparation.prepare import prepare_study
    from model_core.provenance.digests import card_sha256
    from model_core.provenance.record import RunFacts

    options = SegmentOptions(**run.options.model_dump())
    prepare = PrepareOptions(**run.preparation.model_dump(exclude={"account"}))
    with stop_on_interrupt() as cancelled, StudyProgress(total=1) as progress:
        progress.start_study("replay")
        ready = prepare_study(volumes, prepare, progress=progress.update, cancelled=cancelled)
        found = segmenter.segment(
            ready.study, options, progress=progress.update, cancelled=cancelled
        )
        labels, native = ready.bring_back(found.labels)
    return replace(found, labels=labels, native=native), RunFacts(
        started=began,
        options=options,
        prepare=prepare,
        prepared=ready.report() if ready.steps else None,
        card_sha256=card_sha256(segmenter.card),
        threads=torch.get_num_threads(),
        memory_limit_mb=run.engine.memory_limit_mb,
        source=run.source,
    )


def _manifest(
    volumes: Mapping[Contrast, Volume],
    result: Segmentation,
    encoded: bytes,
    facts: RunFacts,
    found: FoundFiles,
) -> RunManifest:
    from model_core.provenance.record import manifest_of

    return manifest_of(volumes, result, sources=found.inputs, run=facts, encoded=encoded)


def _first_labels(found: FoundFiles) -> LabelArray | None:
    from model_core.imaging.nifti import read_label_map

    if found.label_map is None:
        return None
    labels, _ = read_label_map(found.label_map, argument="the run's label map")
    return labels


def engine_of(
    run: RunManifest,
    *,
    model: str | None = None,
    device: str | None = None,
    backend: str | None = None,
    threads: int | None = None,
) -> Engine:
    """The engine of the run, but for what is named; its model is wanted by name and version."""
    then = run.engine
    return Engine(
        model=model or f"{run.model.name}@{run.model.version}",
        device=device or then.device,
        backend=backend or then.backend,
        precision=then.precision,
        threads=threads or then.threads,
        memory_limit_mb=then.memory_limit_mb,
    )


def _check_output(output: Path | None, overwrite: bool) -> None:
    if output is None:
        return
    problem = ""
    if not output.name.lower().endswith(".nii.gz"):
        problem = "another name"
    elif output.exists() and not overwrite:
        problem = "one that exists"
    if problem:
        raise OptionError(
            "--output",
            expected="a new .nii.gz file",
            got=problem,
            way_out="Name another, or replace it with --overwrite.",
        )


def _write(output: Path, encoded: bytes) -> None:
    from model_core.imaging.atomic import write_atomically

    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, encoded)


# ---------------------------------------------------------------- showing


def _show(run: RunManifest, replayed: Replayed, output: Path | None) -> None:
    console, result = out(), replayed.result
    model = f"Model {result.model} {result.model_version}, {engine_line(result)}"
    console.print(model, soft_wrap=True, markup=False)
    if replayed.differences:
        console.print(_difference_table(replayed.differences))
    else:
        console.print("Model, program, libraries and machine are as they were.")
    if output is not None:
        console.print(f"label map  {output}", soft_wrap=True, markup=False)
    for warning in sorted(set(result.warnings) - set(run.warnings)):
        say_warning(f"new: {warning}")
    console.print(verdict(replayed.comparison), soft_wrap=True)


def _difference_table(differences: Sequence[Difference]) -> Table:
    from rich.text import Text

    table = Table(box=None, padding=(0, 2))
    for column in ("differs", "then", "now"):
        table.add_column(column, overflow="fold")
    for one in differences:
        table.add_row(*(Text(cell) for cell in (one.what, one.then, one.now)))
    return table


def verdict(comparison: Comparison) -> str:
    """One line on what a replay came to."""
    if comparison.identical and comparison.same_file:
        return "Identical: the label map is the same file, byte for byte."
    if comparison.identical:
        return "Identical: every voxel agrees. (The file differs in its header or compression.)"
    if comparison.dice is None:
        return "Different, and the first label map is not at hand to say by how much."
    dice = ", ".join(f"{region} {value:.4f}" for region, value in comparison.dice.items())
    return f"Different in {comparison.different_voxels} voxels. Dice: {dice}."
