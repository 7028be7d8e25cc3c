"""From the words of ``segmamba submit`` to what is to do: a manifest to go on with, and tasks."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from model_core.cli.outputs import Wish
from model_core.cli.segment import Job as Wanted
from model_core.cli.segment import gather
from model_core.errors import OptionError
from service.client.job import SubmitOptions
from service.client.manifest import (
    Entry,
    Manifest,
    Run,
    beside,
    plain_options,
    relative_name,
    usual_place,
)
from service.client.places import Folder
from service.client.source import source_of
from service.client.task import Task, adopt


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user asked for.

    Args:
        studies: folders.
        files: one study by its files, by contrast.
        wish: where the results go.
        options: how to segment.
        server: the service; None where the state tells.
        resume: the state file that was named.
        overwrite: whether results that are there may be replaced.
    """

    studies: Sequence[Path]
    files: Mapping[str, Path | None]
    wish: Wish
    options: SubmitOptions
    server: str | None = None
    resume: Path | None = None
    overwrite: bool = False


def make_plan(asked: Asked) -> tuple[Manifest, list[Task]]:
    """The manifest of the run, an earlier one's or a new one, and every study with its way so far.

    Nothing is written yet.

    Raises:
        OptionError: no study, a file of another run, or the one result asked for is there already.
        StudyError: a folder without a complete study.
    """
    wanted = _wanted(asked)
    place, name = beside(asked.resume or usual_place([study.targets for study in wanted]))
    if place.exists(name):
        file = Manifest.load(place, name)
        go_on(file, server=asked.server, options=asked.options)
    else:
        file = Manifest(place, name, new_run(asked.server, asked.options))
    named = {relative_name(place, study.targets.label_map): study for study in wanted}
    known = {entry.output for entry in file.run.entries}
    tasks = [_known_task(entry, named.get(entry.output)) for entry in file.run.entries]
    fresh = {output: study for output, study in named.items() if output not in known}
    if len(fresh) == 1 and not tasks and not asked.overwrite:
        _refuse_existing(next(iter(fresh.values())))
    added = [_new_task(study, file, place, asked.overwrite) for study in fresh.values()]
    return file, tasks + added


def _wanted(asked: Asked) -> list[Wanted]:
    """The studies that were named; none where an earlier run's file alone shall tell."""
    named = bool(asked.studies) or any(asked.files.values())
    if not named and asked.resume is not None and asked.resume.exists():
        return []
    return gather(asked.studies, asked.files, asked.wish)


def _known_task(entry: Entry, study: Wanted | None) -> Task:
    """A study that was refused before it became a job may be sent again."""
    source = source_of(study.sources) if study else None
    return adopt(entry, source, again=entry.job is None)


def _new_task(study: Wanted, file: Manifest, place: Folder, overwrite: bool) -> Task:
    report = study.targets.report
    entry = Entry(
        output=relative_name(place, study.targets.label_map),
        report=relative_name(place, report) if report else None,
    )
    kept = study.targets.label_map.exists() and not overwrite
    if not kept:
        file.run.entries.append(entry)
    return Task(entry, source=source_of(study.sources), kept=kept)


def new_run(server: str | None, options: SubmitOptions) -> Run:
    """A run of which nothing has been handed in; its batch is its own where none was named."""
    own = options.batch is None
    batch = secrets.token_hex(8) if own else options.batch
    return Run(server=server or "", options=replace(options, batch=batch), own_batch=own)


def go_on(file: Manifest, *, server: str | None, options: SubmitOptions) -> None:
    """Take up an earlier run with its server and options; with those of now, if nothing was sent.

    Raises:
        OptionError: jobs were handed in with other options, or are still open at another server.
    """
    run = file.run
    begun = any(entry.job for entry in run.entries)
    open_there = any(entry.open for entry in run.entries)
    server = server or run.server
    if open_there and server.rstrip("/") != run.server.rstrip("/"):
        raise _of_another_run(
            "--server",
            "Leave --server and SEGMAMBA_SERVER out; if the service "
            "has moved, change its address in the file.",
        )
    run.server = server
    batch = options.batch or run.options.batch
    if batch == run.options.batch and plain_options(options) in ({}, plain_options(run.options)):
        return
    if begun:
        raise _of_another_run(
            "options",
            "Leave them out to go on; to begin another run, name another --output (and --resume, "
            "if given), or remove the file and forget the first.",
        )
    run.own_batch = run.own_batch and batch == run.options.batch
    run.options = replace(options, batch=batch)


def _of_another_run(argument: str, way_out: str) -> OptionError:
    return OptionError(
        argument,
        expected="that of the unfinished run which the file remembers",
        got="another",
        way_out=way_out,
    )


def _refuse_existing(study: Wanted) -> None:
    if study.targets.existing:
        raise OptionError(
            "--output",
            expected="files that do not exist yet",
            got=", ".join(path.name for path in study.targets.existing),
            way_out="Name others, or replace them with --overwrite.",
        )
