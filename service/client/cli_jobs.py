"""``segmamba jobs``: list, show and cancel the jobs that a service keeps for the caller."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from model_core.cli import out
from model_core.errors import OptionError
from service.client.connect import connect
from service.client.options import AsJson, KeyFile, Server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.client.job import Job

jobs = typer.Typer(
    rich_markup_mode="markdown",
    add_completion=False,
    no_args_is_help=True,
    help="List, show and cancel jobs at a service (made by `segmamba submit`).",
)
_Batch = Annotated[str | None, typer.Option(metavar="TOKEN", help="Only those of this batch.")]


@jobs.command("list")
def list_jobs(
    server: Server = None,
    key_file: KeyFile = None,
    state: Annotated[
        Literal["queued", "running", "succeeded", "failed", "cancelled"] | None,
        typer.Option(metavar="STATE", help="Only those queued, running, succeeded, …"),
    ] = None,
    batch: _Batch = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List your jobs, as the service gives them: the newest first."""
    with connect(server, key_file) as client:
        found = list(islice(client.jobs(state=state, batch=batch), limit))
    if as_json:
        typer.echo(json.dumps([job.model_dump(mode="json") for job in found], indent=2))
    else:
        _show_table(found)


@jobs.command("show")
def show_job(
    job_id: Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")],
    server: Server = None,
    key_file: KeyFile = None,
) -> None:
    """Show all that the service tells about a job, as JSON."""
    with connect(server, key_file) as client:
        typer.echo(client.job(job_id).model_dump_json(indent=2))


@jobs.command("cancel")
def cancel_jobs(
    job_ids: Annotated[
        list[str] | None, typer.Argument(metavar="JOB…", show_default=False, help="Jobs' ids.")
    ] = None,
    server: Server = None,
    key_file: KeyFile = None,
    batch: Annotated[
        str | None, typer.Option(metavar="TOKEN", help="All open jobs of this batch.")
    ] = None,
) -> None:
    """Cancel jobs that wait or run. One that has ended stays as it is, with its result."""
    if bool(job_ids) == (batch is not None):
        raise OptionError(
            "jobs",
            expected="either jobs' ids or --batch",
            got="both" if job_ids else "neither",
            way_out="See: segmamba jobs list",
        )
    with connect(server, key_file) as client:
        if batch is not None:
            client.cancel_batch(batch)
            told = client.batch(batch)
            counts = ", ".join(f"{count} {state}" for state, count in told.counts.items())
            out().print(f"batch {batch}: {counts}", markup=False)
        for job_id in job_ids or []:
            out().print(f"{job_id}: {client.cancel(job_id).state}", markup=False)


def _show_table(found: Sequence[Job]) -> None:
    from service.client.task import describe

    table = Table(box=None, padding=(0, 2))
    for column in ("job", "state", "now", "model", "priority", "batch", "created"):
        table.add_column(column)
    for job in found:
        now = describe(job) if job.open else (job.error.detail if job.error else "")
        created = job.created.astimezone().strftime("%Y-%m-%d %H:%M")
        cells = (job.id, job.state, now, job.model, job.priority, job.batch or "", created)
        table.add_row(*map(Text, cells))
    out().print(table if found else "No jobs.")
