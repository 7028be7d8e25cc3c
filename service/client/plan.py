"""From the words of a command line to what is to do: a state to go on with, and its tasks."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from model_core.cli.outputs import Wish
from model_core.cli.segment import Job as Wanted
from model_core.cli.segment import gather
from model_core.errors import OptionError
from service.client.job import SubmitOptions
from service.client.state_file import Entry, RunState, StateFile, plain_options, usual_place
from service.client.submission import Task


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


def make_plan(asked: Asked) -> tuple[StateFile, list[Task]]:
    """The state of the run, an earlier one's or a new one, and every study with its way so far.

    Nothing is written yet.

    Raises:
        OptionError: no study, a state of another run, or the one result asked for is there already.
        StudyError: a folder without a complete study.
    """
    wanted = _wanted(asked)
    place = asked.resume or usual_place([study.targets for study in wanted])
    file = _former_run(place, asked) if place.exists() else _new_run(place, asked)
    sources = {study.targets.label_map.resolve(): study.sources for study in wanted}
    known = {entry.output.resolve() for entry in file.run.entries}
    tasks = [Task(entry, sources=sources.get(entry.output.resolve())) for entry in file.run.entries]
    fresh = [study for study in wanted if study.targets.label_map.resolve() not in known]
    if len(fresh) == 1 and not tasks and not asked.overwrite:
        _refuse_existing(fresh[0])
    return file, tasks + [_new_task(study, file, overwrite=asked.overwrite) for study in fresh]


def _wanted(asked: Asked) -> list[Wanted]:
    """The studies that were named; none where an earlier run's file alone shall tell."""
    named = bool(asked.studies) or any(asked.files.values())
    if not named and asked.resume is not None and asked.resume.exists():
        return []
    return gather(asked.studies, asked.files, asked.wish)


def _new_task(study: Wanted, file: StateFile, *, overwrite: bool) -> Task:
    entry = Entry(
        output=study.targets.label_map,
        report=study.targets.report,
        idempotency_key=uuid.uuid4().hex,
    )
    kept = study.targets.label_map.exists() and not overwrite
    if not kept:
        file.run.entries.append(entry)
    return Task(entry, sources=study.sources, kept=kept)


def _new_run(place: Path, asked: Asked) -> StateFile:
    own = asked.options.batch is None
    batch = secrets.token_hex(8) if own else asked.options.batch
    run = RunState(
        server=asked.server or "", options=replace(asked.options, batch=batch), own_batch=own
    )
    return StateFile(place, run)


def _former_run(place: Path, asked: Asked) -> StateFile:
    """An earlier run's state, with its server and options; those of now, if nothing was sent yet.

    Raises:
        OptionError: jobs were handed in, and to another server or with other options.
    """
    file = StateFile.load(place)
    begun = any(entry.job for entry in file.run.entries)
    stored, server = file.run.options, asked.server or file.run.server
    if begun and server.rstrip("/") != file.run.server.rstrip("/"):
        raise _of_another_run(
            "--server",
            "Leave --server and SEGMAMBA_SERVER out; if the service "
            "has moved, change its address in the file.",
        )
    file.run.server = server
    batch = asked.options.batch or stored.batch
    if batch == stored.batch and plain_options(asked.options) in ({}, plain_options(stored)):
        return file
    if begun:
        raise _of_another_run(
            "options",
            "Leave them out to go on; to begin another run, name "
            "another --output and --resume, or remove the file and forget the first.",
        )
    file.run.own_batch = file.run.own_batch and batch == stored.batch
    file.run.options = replace(asked.options, batch=batch)
    for entry in file.run.entries:  # another request, should the first have arrived unnoticed
        entry.idempotency_key = uuid.uuid4().hex
    return file


def _of_another_run(argument: str, way_out: str) -> OptionError:
    return OptionError(
        argument,
        expected="that of the unfinished run which the state file remembers",
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
