"""A paper model of many workers: what is measured on one machine, times what is asked for.

Nothing here was observed beyond the workers that were measured. It says where to look first, not
what will happen: every line is a rate per job, per worker or per second, times a number of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.stats import theilslopes

from benchmarks.commandline import OUT
from benchmarks.results import Row, read
from benchmarks.table import significant

WORKING: Final = "workers that always have a job of 5 s"
WAITING: Final = "workers that wait, and single jobs"
USUAL: Final = "studies of the usual size"
FLEETS: Final = (1, 10, 100, 1000)
_DAY: Final = 86_400


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured; statements are all that the server executes, BEGIN and COMMIT too.

    Attributes:
        job: statements of a job, from its submission to its end, beside the next four.
        running: statements a second of a worker with a job.
        idle: statements a second of a worker without one.
        herd: statements of each idle worker for each job that comes.
        asked: statements of a `GET /jobs/{id}`.
        lead: statements a second of the one worker that does the queue's housework.
        database_ms: processor milliseconds of the server for a statement.
        api_seconds: processor seconds of the APIs for a study of the usual size.
        worker_seconds: processor seconds of a worker's host for it, its device left out.
        bytes_in: of its four images.
        bytes_out: of its results.
        worker_connections: of a worker to the database.
        api_connections: of an API.
    """

    job: float
    running: float
    idle: float
    herd: float
    asked: float
    lead: float
    database_ms: float
    api_seconds: float
    worker_seconds: float
    bytes_in: float
    bytes_out: float
    worker_connections: float
    api_connections: float


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What nobody has measured here: devices, callers and prices.

    Attributes:
        device_seconds: of a study on its device.
        overhead_seconds: of a study on the worker beside the device: reading, packing.
        busy: share of the time that a worker has a job.
        asked: how often a job's state is asked for.
        keep_hours: `SEGMAMBA_KEEP_HOURS`.
        gpu_hour: price of a host with one GPU for an hour.
        core_hour: price of a processor core of the other hosts for an hour.
        gigabyte_month: price of storage.
        least_cores: that the other hosts have, however little is to be done.
    """

    device_seconds: float = 20.0
    overhead_seconds: float = 4.0
    busy: float = 0.6
    asked: float = 10.0
    keep_hours: float = 24.0
    gpu_hour: float = 1.0
    core_hour: float = 0.05
    gigabyte_month: float = 0.025
    least_cores: float = 4.0


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a fleet asks of everything around it; rates are per second.

    Attributes:
        studies_a_day: that it does.
        statements: of the database.
        database_cores: that these keep busy.
        connections: to the database.
        api_cores: that submissions keep busy.
        apis: processes, at half a core of work each, two at least.
        megabytes_in: written into and read from storage, images.
        megabytes_out: written into storage, results; read once.
        gigabytes: of storage: images that wait or run, results that are kept.
        price: of a study.
    """

    studies_a_day: float
    statements: float
    database_cores: float
    connections: float
    api_cores: float
    apis: int
    megabytes_in: float
    megabytes_out: float
    gigabytes: float
    price: float


def load_of(workers: int, figures: Figures, assumed: Assumptions) -> Load:
    """The model: a fleet's load, by the figures and the assumptions."""
    f, a = figures, assumed
    seconds = a.device_seconds + a.overhead_seconds
    rate = workers * a.busy / seconds
    working, waiting = workers * a.busy, workers * (1 - a.busy)
    api_cores = rate * f.api_seconds
    apis = max(2, int(np.ceil(api_cores / 0.5)))
    statements = (
        rate * (f.job + f.herd * waiting + f.asked * a.asked)
        + working * f.running
        + waiting * f.idle
        + f.lead
    )
    cores = statements * f.database_ms / 1000
    kept = rate * a.keep_hours * 3600 * f.bytes_out / 1e9
    gigabytes = kept + 2 * workers * f.bytes_in / 1e9
    hourly = (
        workers * a.gpu_hour
        + max(a.least_cores, 2 * (cores + api_cores)) * a.core_hour
        + gigabytes * a.gigabyte_month / 730
    )
    return Load(
        studies_a_day=rate * _DAY,
        statements=statements,
        database_cores=cores,
        connections=workers * f.worker_connections + apis * f.api_connections,
        api_cores=api_cores,
        apis=apis,
        megabytes_in=2 * rate * f.bytes_in / 1e6,
        megabytes_out=2 * rate * f.bytes_out / 1e6,
        gigabytes=gigabytes,
        price=hourly / (3600 * rate),
    )


def figures_of(rows: Sequence[Row]) -> Figures:
    """What the rows of `benchmarks.scale_out` say.

    Statements of waiting, of working workers and of single jobs grow with the workers: straight
    lines are laid through them, with the median of the slopes between all pairs of fleets, which
    one fleet that was disturbed does not move (Theil and Sen).
    """
    waiting, working = _extras(rows, WAITING), _extras(rows, WORKING)
    usual = next(iter(_extras(rows, USUAL).values()))
    manned = {n: extra for n, extra in waiting.items() if n}
    idle, lead = _line(manned, "idle_statements")
    herd, alone = _line(manned, "single")
    running, _ = _line(working, "running")
    short = float(np.median([extra["single_seconds"] for extra in manned.values()]))
    connections = [(n, x["connections"]) for n, x in sorted(waiting.items())]
    grown = [(more[1] - less[1]) / (more[0] - less[0]) for less, more in pairwise(connections)]
    return Figures(
        job=float(alone + herd - running * short),
        running=float(running),
        idle=float(idle),
        herd=float(max(0.0, herd)),
        asked=float(np.median([extra["asked"] for extra in manned.values()])),
        lead=float(max(0.0, lead)),
        database_ms=float(np.median([extra["database_ms"] for extra in working.values()])),
        api_seconds=float(usual["api_seconds"]),
        worker_seconds=float(usual["worker_seconds"]),
        bytes_in=float(usual["bytes_in"]),
        bytes_out=float(usual["bytes_out"]),
        worker_connections=float(np.median(grown)),
        api_connections=connections[0][1] / 2,
    )


def newest() -> Figures:
    """By the newest results that are kept.

    Raises:
        FileNotFoundError: nothing has been measured.
    """
    found = sorted(OUT.glob("scale_out_*.json"), key=_date)
    if not found:
        raise FileNotFoundError(f"no scale_out_*.json in {OUT}: python -m benchmarks.scale_out")
    return figures_of(read(found[-1]).rows)


def tables(figures: Figures, assumed: Assumptions) -> str:
    """The figures and the model as Markdown, as docs/concepts/scale.md shows them."""
    loads = {workers: load_of(workers, figures, assumed) for workers in FLEETS}
    measured = [(text, getattr(figures, name)) for name, text in _MEASURED.items()]
    head = ["GPUs", *(f"{workers:,}".replace(",", " ") for workers in FLEETS)]
    body = [
        [text, *(_number(getattr(load, name)) for load in loads.values())]
        for name, text in _MODELLED.items()
    ]
    return "\n".join(
        [
            "| measured | |", "|---|--:|",
            *(f"| {text} | {_number(value)} |" for text, value in measured),
            "",
            f"| {' | '.join(head)} |", "|---|" + "--:|" * len(FLEETS),
            *(f"| {' | '.join(cells)} |" for cells in body),
        ]
    )  # fmt: skip


_MEASURED: Final[Mapping[str, str]] = {
    "job": "statements of a job",
    "running": "statements a second of a worker with a job",
    "idle": "statements a second of a worker without one",
    "lead": "statements a second of the queue's housework, one worker at a time",
    "herd": "statements of each idle worker for each job that comes",
    "asked": "statements of `GET /jobs/{id}`",
    "database_ms": "processor ms of PostgreSQL for a statement",
    "api_seconds": "processor s of the APIs for a study of the usual size",
    "worker_seconds": "processor s of a worker's host for it, without the network",
    "bytes_in": "bytes of its four images",
    "bytes_out": "bytes of its results",
    "worker_connections": "connections of a worker to the database",
    "api_connections": "connections of an API",
}
_MODELLED: Final[Mapping[str, str]] = {
    "studies_a_day": "studies a day",
    "statements": "statements a second",
    "database_cores": "cores of PostgreSQL, busy",
    "connections": "connections",
    "api_cores": "cores of the APIs, busy",
    "apis": "APIs",
    "megabytes_in": "images, MB/s through storage",
    "megabytes_out": "results, MB/s through storage",
    "gigabytes": "storage, GB",
    "price": "price of a study, example",
}


def _number(value: float) -> str:
    if value >= 1000:
        rounded = float(f"{value:.3g}")
        return f"{rounded:,.0f}".replace(",", " ")
    return str(value) if isinstance(value, int) else significant(value)


def _extras(rows: Sequence[Row], group: str) -> dict[int, Mapping[str, Any]]:
    """What is known of each fleet of a group, by its size."""
    return {int(row.extra["workers"]): row.extra for row in rows if row.group == group}


def _line(extras: Mapping[int, Mapping[str, Any]], name: str) -> tuple[float, float]:
    """Slope and intercept over the workers."""
    found = theilslopes([float(extra[name]) for extra in extras.values()], list(extras))
    return float(found.slope), float(found.intercept)


def _date(path: Path) -> str:
    return path.stem.rsplit("_", 1)[-1]
