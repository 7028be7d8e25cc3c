"""``segmamba segment --server``: a folder or a prefix of studies, done by a service.

The manifest stays beside the results. The same command again does what is missing: what is done is
left alone, what still runs is waited for, what has changed is done anew.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from model_core.cli import say_warning
from model_core.cli.batch import Batch
from model_core.cli.outputs import LABEL_MAP_SUFFIXES
from model_core.errors import OptionError
from model_core.imaging.atomic import write_atomically
from service.client.client import Client
from service.client.connect import connect
from service.client.errors import ClientError
from service.client.find import Found, find
from service.client.job import SubmitOptions
from service.client.manifest import Entry, Manifest
from service.client.places import open_place
from service.client.plan import go_on, new_run
from service.client.results import fetch_figures
from service.client.session import Session
from service.client.task import Task, adopt

NAME: Final = "segmamba-manifest.json"
"""What the manifest is called in the place of the results."""
_AGAIN: Final = "the same command"


def run_batch(batch: Batch) -> int:
    """Do a batch in front of a user; the exit code.

    Raises:
        OptionError: what was asked for does not go together, or is not how it was begun.
        StudyError: a source without a study.
        PlaceUnreachable: storage that does not answer.
    """
    _refuse_odd_output(batch)
    found = _found(batch.sources)
    file = _manifest(batch)
    tasks = _tasks(batch, file, found)
    file.save()
    session = Session(
        file, tasks, key_file=batch.key_file, keep_file=True, most=batch.in_flight,
        figures=batch.table is not None, again=_AGAIN, brief=True,
    )  # fmt: skip
    code = session.run(wait=True, cancel_at_once=False, as_json=False)
    if batch.table is not None:
        _write_table(batch.table, file, batch)
    return code


def _refuse_odd_output(batch: Batch) -> None:
    if batch.output.lower().endswith(LABEL_MAP_SUFFIXES):
        raise OptionError(
            "--output",
            expected="a folder, or a prefix such as s3://bucket/results, together with --server",
            got="a label map",
            way_out="One study goes to a service with segmamba submit.",
        )
    if _plain(batch.output) in map(_plain, batch.sources):
        raise OptionError(
            "--output",
            expected="another place than that of the studies",
            got="the same",
            way_out="Name a folder of its own: results would be taken for studies.",
        )


def _plain(place: str) -> str:
    return place.rstrip("/") if "://" in place else str(Path(place).resolve())


def _found(sources: Iterable[str]) -> Found:
    """The studies of all sources.

    Raises:
        OptionError: a source that is no folder, or two studies of one name.
    """
    whole = Found()
    for source in sources:
        if "://" not in source and not Path(source).is_dir():
            raise OptionError(
                "studies", expected="a folder", got="none that is there", way_out="Check the path."
            )
        name = PurePosixPath(_plain(source)).name or "study"
        one = find(open_place(source), called=name)
        repeated = {*whole.studies, *whole.broken} & {*one.studies, *one.broken}
        if repeated:
            raise OptionError(
                "studies",
                expected="studies of different names, since results are named after them",
                got=f"{len(repeated)} name(s) more than once",
                way_out="Segment the places one by one, into different outputs.",
            )
        whole.studies |= one.studies
        whole.broken |= one.broken
    return whole


def _manifest(batch: Batch) -> Manifest:
    options: Mapping[str, Any] = batch.options
    wanted = SubmitOptions(**options)
    place = open_place(batch.output)
    if not place.exists(NAME):
        return Manifest(place, NAME, new_run(batch.server, wanted))
    file = Manifest.load(place, NAME, option=NAME)
    go_on(file, server=batch.server, options=wanted)
    return file


def _tasks(batch: Batch, file: Manifest, found: Found) -> list[Task]:
    """Every study, those first that the manifest knows."""
    there = set(file.place.files())
    tasks = []
    for entry in file.run.entries:
        _expect(batch, entry, there)
        if why := found.broken.pop(entry.name, None):
            tasks.append(_broken(entry, why))
        else:
            source = found.studies.pop(entry.name, None)
            tasks.append(adopt(entry, source, again=batch.retry_failed))
    for name, source in sorted(found.studies.items()):
        entry = Entry(output=f"{name}.nii.gz")
        _expect(batch, entry, there)
        kept = entry.output in there and not batch.overwrite
        if not kept:
            file.run.entries.append(entry)
        tasks.append(Task(entry, source=source, kept=kept))
    for name, why in sorted(found.broken.items()):
        entry = Entry(output=f"{name}.nii.gz")
        file.run.entries.append(entry)
        tasks.append(_broken(entry, why))
    return tasks


def _expect(batch: Batch, entry: Entry, there: set[str]) -> None:
    """Set down which files a study shall have; what is missing is fetched again."""
    if batch.report:
        entry.report = f"{entry.name}.json"
    if batch.archive:
        entry.archive = f"{entry.name}.zip"
    wished = (entry.output, entry.report, entry.archive)
    if any(name and name not in there for name in wished):
        entry.written = False


def _broken(entry: Entry, why: str) -> Task:
    """A study that cannot be sent; a result that it had, when it was whole, stays."""
    if not entry.written:
        entry.state, entry.error, entry.job = "failed", why, None
        entry.inputs, entry.mark = {}, ""
    return Task(entry)


def _write_table(path: Path, file: Manifest, batch: Batch) -> None:
    """The figures of all studies that are done as one CSV file."""
    done = [entry for entry in file.run.entries if entry.written]
    lacking = [entry for entry in done if entry.figures is None and entry.job]
    if lacking:
        with connect(batch.server, batch.key_file) as client:
            _fetch_lacking(client, lacking)
        file.save()
    rows = [row for entry in done for row in _rows(entry)]
    missing = sum(entry.figures is None for entry in done)
    if missing:
        say_warning(f"{missing} studies are not in the table: the server has their figures no more")
    if rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _csv(rows).encode())


def _fetch_lacking(client: Client, entries: Iterable[Entry]) -> None:
    for entry in entries:
        try:
            fetch_figures(client, entry)
        except ClientError:
            continue  # counted and told by the caller


def _rows(entry: Entry) -> list[dict[str, str]]:
    """A study's rows, under its own name: the service knows none."""
    rows = csv.DictReader(io.StringIO(entry.figures or ""))
    return [{"study": entry.name} | {k: v for k, v in row.items() if k != "study"} for row in rows]


def _csv(rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
