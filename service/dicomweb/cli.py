"""``segmamba dicom``: studies out of a PACS, results into it, and images without their patient."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from model_core.cli import epilog, err, out, say_error, say_warning
from model_core.errors import OptionError

if TYPE_CHECKING:
    from model_core.dicom.deidentify import Cleaning
    from model_core.dicom.gather import Gathered
    from model_core.pipeline.deface import Faces
    from service.dicomweb.receipt import Receipt
    from service.dicomweb.servers import DicomwebServer

SERVER_VARIABLE: Final = "SEGMAMBA_DICOMWEB_SERVER"

dicom = typer.Typer(
    name="dicom",
    help="Speak with a PACS over DICOMweb: **pull** a study, **push** results; and **deidentify** "
    "MR images.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar=SERVER_VARIABLE,
        help="Root of its DICOMweb services, e.g. https://pacs.example/dicom-web, or a name from "
        "SEGMAMBA_DICOMWEB_SERVERS. Credentials are in SEGMAMBA_DICOMWEB_USER and …_PASSWORD, or "
        "…_TOKEN.",
    ),
]
Folder = Annotated[
    Path,
    typer.Option("--output", "-o", file_okay=False, help="Folder for the files; made if need be."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@dicom.command(
    epilog=epilog(
        "segmamba dicom pull 1.2.840.113619.2.5.1762583153 --server https://pacs.example/dicom-web"
        " -o study/",
        "segmamba dicom pull STUDY_UID --server hospital -o study/ --series SERIES_UID",
    )
)
def pull(
    study_uid: Annotated[str, typer.Argument(metavar="STUDY_UID", help="StudyInstanceUID.")],
    output: Folder,
    server: Server = None,
    series: Annotated[
        list[str] | None,
        typer.Option(metavar="SERIES_UID", help="Only this series; may be given several times."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a study from a PACS into a folder of numbered files.

    Exit codes: 0 all there, 2 wrong usage or a refusal (then no file stays), 130 stopped.
    """
    from service.dicomweb.pull import pull_study

    archive = _server(server)
    with _bar("images") as progress:
        files = pull_study(archive, study_uid, output, series=series or None, progress=progress)
    if as_json:
        typer.echo(json.dumps({"archive": archive.name, "files": [str(file) for file in files]}))
    else:
        out().print(f"{len(files)} images in {output}", soft_wrap=True, markup=False)


@dicom.command(
    epilog=epilog(
        "segmamba dicom push seg.dcm report.dcm --server https://pacs.example/dicom-web",
        "segmamba dicom push results/ --server hospital --json > receipt.json",
    )
)
def push(
    files: Annotated[
        list[Path],
        typer.Argument(exists=True, metavar="FILE...", help="DICOM files, or folders of them."),
    ],
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Hand DICOM files to a PACS and show what it said to each.

    Exit codes: 0 all stored, 1 some refused, 2 wrong usage or nothing stored, 130 stopped.
    """
    from service.dicomweb.push import push as push_objects

    archive = _server(server)
    found = _files_in(files)
    with _bar("objects") as progress:
        receipt = push_objects(archive, found, progress=progress)
    if as_json:
        typer.echo(json.dumps(receipt.as_dict(), indent=2))
    else:
        _show_receipt(receipt, found)
    if not receipt.complete:
        raise typer.Exit(1)


@dicom.command(
    epilog=epilog(
        "segmamba dicom deidentify study/ -o clean/",
        "segmamba dicom deidentify study/ -o clean/ --key-file trial.key   (the same UIDs again)",
        "segmamba dicom deidentify study/ -o clean/ --deface",
    )
)
def deidentify(
    files: Annotated[
        list[Path],
        typer.Argument(
            exists=True, metavar="IN...", help="A folder, a zip archive, or DICOM files."
        ),
    ],
    output: Folder,
    key_file: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            metavar="FILE",
            help="A file of at least 16 secret bytes: the same key gives the same UIDs and "
            "pseudonyms again, and links them to the patient. (default: a random key, not kept)",
        ),
    ] = None,
    deface: Annotated[
        bool,
        typer.Option(
            "--deface",
            help="Take the face out of every series too: a skull-strip tool finds the brain, and "
            "what lies in front of and below it becomes 0. Series that make no volume are refused.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write MR images anew without their patient: the basic profile of PS3.15, and stricter.

    Only MR images are taken; what may have text drawn into it is refused. Faces stay unless you
    ask for **--deface**.

    Exit codes: 0 all written, 1 some refused, 2 wrong usage, 130 stopped.
    """
    from model_core.dicom.deidentify import Deidentifier
    from model_core.dicom.deidentify import deidentify as clean
    from model_core.dicom.gather import gathered

    deidentifier = Deidentifier(key_file.read_bytes().strip() if key_file else None)
    source = files[0] if len(files) == 1 else _files_in(files)
    with gathered(source) as found:
        faces = _find_faces(found) if deface else None
        with _bar("images") as progress:
            cleaning = clean(
                found,
                output,
                deidentifier=deidentifier,
                progress=lambda done: progress(done, len(found)),
                deface=faces.change_for if faces else None,
            )
    if as_json:
        typer.echo(json.dumps(_plain(cleaning, found.left_out), indent=2))
    else:
        _show_cleaning(cleaning, found, output)
    if cleaning.refused:
        raise typer.Exit(1)


def _server(text: str | None) -> DicomwebServer:
    from service.auth.modes import is_loopback
    from service.dicomweb.servers import find_server

    if not text:
        raise OptionError(
            "--server",
            expected="the address of a PACS",
            got="none",
            way_out=f"Name it, or set {SERVER_VARIABLE}.",
        )
    server = find_server(text)
    parts = urlsplit(server.url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        say_warning("images and credentials travel unencrypted: ask for an https address")
    return server


def _files_in(paths: Sequence[Path]) -> list[Path]:
    """Every file that was named, and every one below a folder that was, in order."""
    found: list[Path] = []
    for path in paths:
        below = sorted(path.rglob("*")) if path.is_dir() else [path]
        found += [one for one in below if one.is_file() and one.name != "DICOMDIR"]
    if not found:
        raise OptionError(
            "files",
            expected="at least one file",
            got="empty folders",
            way_out="Name files, or a folder that has some.",
        )
    return found


def _find_faces(files: Sequence[Path]) -> Faces:
    from model_core.cpu import usable_cpus
    from model_core.pipeline.deface import find_faces
    from model_core.preparation.confined import Bounds
    from model_core.preparation.skull_tools import find_tool
    from model_core.preparation.watch import Watch

    tool = find_tool()
    with _bar("series, looking for faces") as progress:
        watch = Watch(progress=lambda _, done, total: progress(done, total))
        return find_faces(files, tool, bounds=Bounds(threads=usable_cpus()), watch=watch)


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr where it is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = err()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _show_receipt(receipt: Receipt, files: Sequence[Path]) -> None:
    for delivery in receipt.deliveries:
        name = files[delivery.number - 1].name
        if not delivery.stored:
            say_error(f"{name}: {delivery.reason}")
        elif delivery.reason:
            say_warning(f"{name}: {delivery.reason}")
    stored = len(receipt.stored)
    out().print(f"{stored} of {len(files)} stored in {receipt.archive}", markup=False)


def _show_cleaning(cleaning: Cleaning, files: Gathered, output: Path) -> None:
    for refusal in cleaning.refused:
        say_error(f"{files[refusal.number - 1].name}: {refusal.error}")
    if files.left_out:
        say_warning(f"{files.left_out} files are no DICOM images and were left out")
    out().print(
        f"{len(cleaning.written)} of {len(files)} images in {output}", soft_wrap=True, markup=False
    )


def _plain(cleaning: Cleaning, left_out: int) -> dict[str, Any]:
    return {
        "left_out": left_out,
        "written": [str(path) for path in cleaning.written],
        "refused": [
            {"number": one.number, "reason": one.error.got, "way_out": one.error.way_out}
            for one in cleaning.refused
        ],
    }
