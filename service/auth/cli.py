"""``segmamba keys``: make, list and revoke API keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model_core.cli import epilog, err, out
from model_core.errors import OptionError

if TYPE_CHECKING:
    from service.auth.keys import Key, KeyStore

keys = typer.Typer(
    name="keys",
    help="Look after the API keys of the service: **add** makes one and shows it once, **list** "
    "shows all but the keys themselves, **revoke** ends one.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)


JobsUrl = Annotated[
    str | None,
    typer.Option(
        "--jobs-url",
        metavar="URL",
        envvar="SEGMAMBA_JOBS_URL",
        show_default="an SQLite file in the data folder",
        help="Job database of the service, where the keys are too.",
    ),
]
DataDir = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        envvar="SEGMAMBA_DATA_DIR",
        show_default="segmamba in the user's state folder",
        help="Data folder of the service.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@keys.command(
    epilog=epilog(
        "segmamba keys add viewer",
        "segmamba keys add prometheus --scopes metrics",
        "segmamba keys add trial --expires-days 30 --rate 120 --jobs 4 --storage-mb 2000",
    )
)
def add(  # noqa: PLR0913 - each parameter is an option of the command
    label: Annotated[
        str, typer.Argument(help="Your own word for whoever gets it; never a patient's.")
    ],
    scopes: Annotated[
        str,
        typer.Option(
            help="Comma-separated: segment (submit, read and cancel own jobs), read (own jobs), "
            "metrics, admin (everything, with everybody's jobs)."
        ),
    ] = "segment",
    expires_days: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Days it is good for.", show_default="for ever"),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Requests a minute.", show_default="no limit"),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Jobs that wait or run at a time.", show_default="no limit"
        ),
    ] = None,
    storage_mb: Annotated[
        int | None,
        typer.Option(min=1, metavar="MB", help="MiB kept of its jobs.", show_default="no limit"),
    ] = None,
    jobs_url: JobsUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it: now and never again, since only its hash is kept."""
    from service.auth.principal import Limits

    limits = Limits(rate_per_minute=rate, open_jobs=jobs, storage_mb=storage_mb)
    wanted = [word.strip() for word in scopes.split(",") if word.strip()]
    with _store(jobs_url, data_dir) as store:
        key, token = store.create(label, scopes=wanted, expires_days=expires_days, limits=limits)
    if as_json:
        typer.echo(json.dumps({**_plain(key), "key": token}, indent=2))
        return
    typer.echo(token)
    err().print(f"Key {key.id}. Keep it now: it is not shown again.", soft_wrap=True)


@keys.command("list", epilog=epilog("segmamba keys list", "segmamba keys list --json"))
def list_keys(jobs_url: JobsUrl = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """List all keys, without what is secret about them."""
    with _store(jobs_url, data_dir) as store:
        found = [_plain(key) for key in store.list()]
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif not found:
        out().print("No keys. Make one: segmamba keys add LABEL")
    else:
        _show(found)


@keys.command(epilog=epilog("segmamba keys revoke 0f3a5c7e9b1d2468"))
def revoke(
    key_id: Annotated[
        str, typer.Argument(metavar="ID", help="The key's id, from `segmamba keys list`.")
    ],
    jobs_url: JobsUrl = None,
    data_dir: DataDir = None,
) -> None:
    """End a key; running services refuse it within seconds. Its jobs stay."""
    with _store(jobs_url, data_dir) as store:
        if not store.revoke(key_id):
            raise OptionError(
                "ID",
                expected="the id of a key that has not been revoked",
                got="another word",  # it may be the key itself
                way_out="See segmamba keys list.",
            )
    out().print(f"Key {key_id} is revoked.", soft_wrap=True, markup=False)


@contextmanager
def _store(jobs_url: str | None, data_dir: str | None) -> Iterator[KeyStore]:
    import sqlalchemy as sa

    from service.auth.keys import KeyStore
    from service.cli import read_settings
    from service.jobs.database import open_database

    given = {"jobs_url": jobs_url, "data_dir": data_dir}
    settings = read_settings({name: value for name, value in given.items() if value is not None})
    engine = open_database(settings.database_url)
    try:
        store = KeyStore(engine)
        store.create_table()
        yield store
    except sa.exc.DatabaseError as error:
        raise OptionError(
            "SEGMAMBA_JOBS_URL",
            expected="a database that can be opened and written",
            got=type(error.orig).__name__,  # the message may hold the address
            way_out="Look whether it runs, and whether this user may use it.",
        ) from error
    finally:
        engine.dispose()


def _plain(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "label": key.label,
        "state": key.state,
        "scopes": sorted(key.scopes),
        "created": _time(key.created),
        "expires": _time(key.expires),
        "revoked": _time(key.revoked),
        "last_used": _time(key.last_used),
        "rate_per_minute": key.limits.rate_per_minute,
        "open_jobs": key.limits.open_jobs,
        "storage_mb": key.limits.storage_mb,
    }


def _time(milliseconds: int | None) -> str | None:
    from datetime import UTC, datetime

    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _show(found: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2))
    columns = ("id", "label", "state", "scopes", "expires", "last used", "rate", "jobs", "MB")
    for column in columns:
        table.add_column(column, overflow="fold")
    for key in found:
        values = (
            key["id"], key["label"], key["state"], ",".join(key["scopes"]),
            _day(key["expires"]), _day(key["last_used"]),
            key["rate_per_minute"], key["open_jobs"], key["storage_mb"],
        )  # fmt: skip
        table.add_row(*(Text("–" if value is None else str(value)) for value in values))
    out().print(table)


def _day(time: str | None) -> str | None:
    return None if time is None else time[:10]
