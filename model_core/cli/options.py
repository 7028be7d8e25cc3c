"""The options that several commands share, with their help texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from model_core.cpu import MEMORY_LIMIT_VARIABLE, THREADS_VARIABLE
from model_core.precision import PRECISION_VARIABLE
from model_core.types import LabelScheme, Tta

_FILES = "One study by its files"
_RUN = "How to run"

StudyFolders = Annotated[
    list[Path] | None,
    typer.Argument(
        exists=True,
        file_okay=False,
        show_default=False,
        help="A study's folder or a folder of studies, in BraTS or nnU-Net naming.",
    ),
]
StudyPlaces = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[STUDIES]...",
        show_default=False,
        help="A study's folder or a folder of studies, in BraTS or nnU-Net naming. With --server "
        "also s3://bucket/prefix, and DICOM studies as folders or zip archives.",
    ),
]
Image = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        metavar="FILE",
        rich_help_panel=_FILES,
        help="NIfTI image, .nii or .nii.gz.",
    ),
]
OutputPlace = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="Label map (.nii.gz); a folder for many studies; with --server also s3://…",
    ),
]
Report = Annotated[Path | None, typer.Option(help="Write what was done and found as JSON.")]
Preview = Annotated[
    Path | None, typer.Option(help="Write a picture (.png) of the tumour in three planes.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace results that are there already.")
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        rich_help_panel=_RUN,
        help="Name (see: segmamba models) or path of a bundle. (default: the bundled one)",
    ),
]
Mirroring = Annotated[
    Tta | None,
    typer.Option(
        "--tta",
        metavar="MODE",
        rich_help_panel=_RUN,
        help="Average over mirrored passes: none, fast (4) or full (8). (default: the card's)",
    ),
]
Scheme = Annotated[
    LabelScheme | None,
    typer.Option(
        "--label-scheme",
        metavar="SCHEME",
        rich_help_panel=_RUN,
        help="Enhancing tumour is written as 4 (brats2021) or 3 (brats2023). (default: the card's)",
    ),
]
Postprocess = Annotated[
    bool | None,
    typer.Option(
        "--postprocess/--no-postprocess",
        rich_help_panel=_RUN,
        help="Run the card's post-processing steps. (default: run them)",
    ),
]
Device = Annotated[str, typer.Option(rich_help_panel=_RUN, help="auto, cpu, cuda or cuda:N.")]
Backend = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_RUN,
        help="Scan backend: native, torch, triton, mamba-ssm or reference. "
        "(default: the best one here)",
    ),
]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(
        metavar="NAME",
        envvar=PRECISION_VARIABLE,
        rich_help_panel=_RUN,
        help="Arithmetic of the convolutions. auto: bfloat16 where this processor has "
        "instructions for it (segmamba doctor tells), else float32, the exact one.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        envvar=THREADS_VARIABLE,
        rich_help_panel=_RUN,
        help="CPU threads; give each of several processes its share. (default: the processors "
        "that this process may use)",
    ),
]
MemoryLimit = Annotated[
    int | None,
    typer.Option(
        "--memory-limit",
        min=1,
        metavar="MB",
        envvar=MEMORY_LIMIT_VARIABLE,
        rich_help_panel=_RUN,
        help="MiB that this process may hold; a study that needs more is refused before it "
        "starts. (default: what the system grants)",
    ),
]
Window = Annotated[
    Literal["card", "whole"] | None,
    typer.Option(
        metavar="SIZE",
        rich_help_panel=_RUN,
        help="card: the window that the model was validated with. whole: one window over the "
        "brain where memory allows, faster, and another result. (default: card)",
    ),
]
_SCANS = "Studies as they come from the scanner"
Dicom = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        metavar="PATH",
        rich_help_panel=_SCANS,
        help="A DICOM study instead of NIfTI: a folder or a zip archive. Which series is which is "
        "recognised (segmamba inspect tells).",
    ),
]
SeriesChoice = Annotated[
    list[str] | None,
    typer.Option(
        "--series",
        metavar="CONTRAST=UID",
        rich_help_panel=_SCANS,
        help="Take this DICOM series, by its uid from segmamba inspect; may be repeated.",
    ),
]
Preprocess = Annotated[
    Literal["auto", "none", "full"] | None,
    typer.Option(
        metavar="MODE",
        rich_help_panel=_SCANS,
        help="auto: register, resample and take the skull off where the images need it. none: take "
        "them as they are. full: every step. (default: auto for DICOM, none for NIfTI)",
    ),
]
GridOf = Annotated[
    Literal["t1", "t1ce", "t2", "flair"] | None,
    typer.Option(
        "--grid",
        metavar="CONTRAST",
        rich_help_panel=_SCANS,
        help="The contrast on whose own grid the label map is wanted. (default: t1ce for DICOM, t1 "
        "for NIfTI)",
    ),
]
BiasField = Annotated[
    bool,
    typer.Option("--n4", rich_help_panel=_SCANS, help="Correct bias fields first (N4)."),
]
SegType = Annotated[
    Literal["BINARY", "LABELMAP"],
    typer.Option(
        "--seg-type",
        metavar="KIND",
        rich_help_panel=_SCANS,
        help="How the DICOM SEG stores its voxels: BINARY, which every viewer reads, or LABELMAP.",
    ),
]
RunFile = Annotated[
    Path | None,
    typer.Option(
        "--run",
        help="Write run.json: checksums, versions and options, for segmamba replay.",
    ),
]
ReportPlace = Annotated[
    str | None,
    typer.Option("--report", metavar="PATH", help="Write what was done and found as JSON."),
]
ArchivePlace = Annotated[
    str | None,
    typer.Option(
        "--archive",
        metavar="PATH",
        help="Write all files of a study as one .zip: label map, report, table, run.json, and for "
        "DICOM the SEG and the structured report.",
    ),
]
Table = Annotated[
    Path | None,
    typer.Option(
        "--table", help="Write volumes, diameters and places of all studies as one CSV file."
    ),
]
AllowFewerPasses = Annotated[
    bool | None,
    typer.Option(
        "--allow-fewer-passes",
        show_default=False,
        rich_help_panel=_RUN,
        help="Where memory runs out, mirrored passes may be left out, which gives another result; "
        "the report tells. (default: they may not)",
    ),
]
_SERVICE = "At a service instead of here"
BatchServer = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        rich_help_panel=_SERVICE,
        help="Hand every study to this service, e.g. http://127.0.0.1:8000, and fetch the results. "
        "A manifest beside them lets the same command go on where it was.",
    ),
]
BatchKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        rich_help_panel=_SERVICE,
        help="A file that holds your key and nothing else. (default: the variable SEGMAMBA_KEY, if "
        "the service wants a key)",
    ),
]
InFlight = Annotated[
    int | None,
    typer.Option(
        "--in-flight",
        min=1,
        metavar="N",
        rich_help_panel=_SERVICE,
        help="So many studies wait or run there at a time. (default: 8)",
    ),
]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed",
        rich_help_panel=_SERVICE,
        help="Hand those in again that failed in an earlier call.",
    ),
]
