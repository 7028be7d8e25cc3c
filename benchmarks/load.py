"""``python -m benchmarks.load``: what one caller of many waits for."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.case import write_bundle
from benchmarks.commandline import Options, close_results, open_results, options, parser, say
from benchmarks.deployment import (
    MODEL,
    Deployment,
    cpu_seconds,
    databases,
    deployed,
    fill,
    form_files,
    leave_in_good_order,
    neighbours,
    small_form,
)
from benchmarks.machine import ROOT
from benchmarks.networks import OURS
from benchmarks.results import Results, Row
from benchmarks.timing import quantile
from service.jobs.tables import jobs

DESCRIPTION: Final = """\
Times GET /jobs/{id} and POST /jobs of a real `segmamba serve` for 64 callers at once (locust), on
SQLite and, with --postgres, on PostgreSQL, with one and with 10 000 ended jobs in the tables.
The worker runs as always, with a network so small that it is the service that is measured.
"""
NOTES: Final = (
    "A caller without a pause sends its next request as soon as the last one is answered, so its "
    "time is 64 divided by the requests a second: it says what the machine can do at most. With "
    "one request a second each, nine GET to one POST, it says what a caller waits for.",
    "The callers run on the same machine and take their part of it. The API is one process.",
    "The ended jobs are copies of one that was really done, in the job table and in the engine's. "
    "POST /jobs sends four images, about {kilobytes} kB together; every one becomes a job, synced "
    "to the disk before it is answered; the queue takes any number here.",
    "*requests* are all that count; of their times {kept} evenly spaced ranks are kept in the "
    "JSON. *p99* is of all. *errors* are requests without a 2xx answer. *waiting* are the jobs "
    "that waited at the end. *api cpu ms* is processor time of the API's process for each request "
    "of its phase, GET and POST together; a busy neighbour hardly moves it.",
)
KEPT: Final = 200
CALLERS: Final = 64


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A way of asking.

    Attributes:
        title: in the groups' names.
        gets: requests of that kind in so many.
        posts: likewise.
        rate: requests a second of every caller; 0: without a pause.
    """

    title: str
    gets: int
    posts: int
    rate: float = 0.0

    def groups(self) -> dict[str, str]:
        """The title of its rows, by the request's name."""
        names = [
            *(["GET /jobs/{id}"] if self.gets else []),
            *(["POST /jobs"] if self.posts else []),
        ]
        return {name: f"{name}, {CALLERS} callers, {self.title}" for name in names}


PHASES: Final = (
    Phase(title="without a pause", gets=1, posts=0),
    Phase(title="one request a second each", gets=9, posts=1, rate=1.0),
    Phase(title="without a pause", gets=0, posts=1),
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The requests of one name."""

    seconds: Sequence[float]
    errors: int
    span: float
    answered: int


@dataclass(frozen=True, kw_only=True)
class Case:
    """A database with so many ended jobs in it, and which rows are wanted of it."""

    name: str
    held: int
    phases: Sequence[Phase]


def wanted(database: str, held: int, results: Results, chosen: Options) -> Case:
    """What is to be measured of a database."""
    jobs_held = f"{held:,} jobs".replace(",", " ") if held > 1 else "1 job"
    name = f"{OURS}, {database}, {jobs_held}"
    phases = [
        phase
        for phase in PHASES
        if any(chosen.wants(results, group, name) for group in phase.groups().values())
    ]
    return Case(name=name, held=held, phases=phases)


def measure(
    deployment: Deployment,
    form: Mapping[str, bytes],
    case: Case,
    results: Results,
    *,
    folder: Path,
    seconds: float,
) -> None:
    """All rows of one deployment: its table is filled, then every phase runs."""
    with httpx.Client(base_url=deployment.address, timeout=60) as client:
        deployment.run_one(client, form)
    if case.held > 1:
        fill(deployment.database_url, case.held - 1)
    ids = [row[0] for row in deployment.rows(jobs.c.id)]
    api = deployment.child("api")
    for phase in case.phases:
        before = cpu_seconds(api)
        said = ask(deployment.address, phase, form, ids, folder=folder, seconds=seconds)
        answered = sum(asked.answered for asked in said.values())
        api_ms = 1000 * (cpu_seconds(api) - before) / max(1, answered)
        waiting = sum(row[0] == "queued" for row in deployment.rows(jobs.c.state))
        for request, group in phase.groups().items():
            more = {"api_cpu_ms": api_ms} | ({"waiting": waiting} if phase.posts else {})
            row = _row(group, case.name, said.get(request), more)
            results.add(row)
            say(f"  {group}  {case.name}  {row.typical or float('nan'):.4f} s  {dict(row.extra)}")


def ask(
    address: str,
    phase: Phase,
    form: Mapping[str, bytes],
    ids: Sequence[str],
    *,
    folder: Path,
    seconds: float,
) -> dict[str, Asked]:
    """Let the callers ask for so long; what they met, by the request's name.

    Raises:
        SystemExit: locust is not installed.
    """
    if importlib.util.find_spec("locust") is None:
        raise SystemExit("locust is missing: run benchmarks/setup.sh, and .venv-bench/bin/python.")
    request = httpx.Request("POST", address, files=form_files(form), data={"cache": "false"})
    body, order, answer = (folder / name for name in ("body", "order.json", "answer.json"))
    body.write_bytes(request.read())
    warmup = min(3.0, seconds / 4)
    asked: dict[str, Any] = {"body": str(body), "type": request.headers["content-type"]}
    asked |= {"ids": list(ids), "answer": str(answer), "warmup": warmup, **asdict(phase)}
    order.write_text(json.dumps(asked), encoding="utf-8")
    command = [
        *(sys.executable, "-W", "ignore", "-m", "locust", "-f", "benchmarks/clients.py"),
        *("--headless", "--only-summary", "--loglevel", "ERROR", "--host", address),
        *("--users", str(CALLERS), "--spawn-rate", str(CALLERS)),
        *("--run-time", f"{seconds + warmup:.0f}s", "--stop-timeout", "60"),
    ]
    environment = os.environ | {"BENCHMARK_ORDER": str(order), "PYTHONPATH": str(ROOT)}
    with (folder / "locust.log").open("wb") as log:  # it leaves with 1 where a request failed
        subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False)
    return grouped(json.loads(answer.read_text(encoding="utf-8")))


def grouped(said: Sequence[Sequence[Any]]) -> dict[str, Asked]:
    """Requests (name, when, seconds, error) by name.

    Those that ended before the time began are only *answered*; a failed one is only an error.
    """
    found = {}
    for name in sorted({one[0] for one in said}):
        everyone = [one for one in said if one[0] == name]
        mine = [one for one in everyone if one[1] + one[2] >= 0]
        ends = [one[1] + one[2] for one in mine]
        good = [one[2] for one in mine if one[3] is None]
        found[name] = Asked(
            seconds=good,
            errors=len(mine) - len(good),
            span=max(ends, default=0.0),
            answered=len(everyone),
        )
    return found


def ranks(seconds: Sequence[float], kept: int = KEPT) -> tuple[float, ...]:
    """Evenly spaced order statistics, first and last among them; all where there are no more."""
    ordered = sorted(seconds)
    if len(ordered) <= kept:
        return tuple(ordered)
    return tuple(ordered[round(i * (len(ordered) - 1) / (kept - 1))] for i in range(kept))


def _row(group: str, name: str, asked: Asked | None, more: dict[str, Any]) -> Row:
    if asked is None or not asked.seconds:
        return Row(group=group, way=name, seconds=(), bound="failed", remark="no answer")
    extra: dict[str, Any] = {
        "p99": quantile(asked.seconds, 0.99),
        "requests": len(asked.seconds),
        "a_second": len(asked.seconds) / asked.span,
        "errors": asked.errors,
    }
    rounded = tuple(round(one, 5) for one in ranks(asked.seconds))
    return Row(group=group, way=name, seconds=rounded, precision="", extra=extra | more)


def main() -> None:
    """Measure every row that was asked for, then write the page."""
    made = parser("load", DESCRIPTION, rounds=1)
    made.set_defaults(seconds=30.0)
    made.add_argument("--postgres", metavar="URL",
        help="a PostgreSQL server's database, e.g. postgresql://user@host/postgres, where "
        "databases may be created; without it SQLite alone is measured")  # fmt: skip
    values = made.parse_args()
    chosen = options(values)
    leave_in_good_order()
    held = 100 if chosen.quick else 10_000
    seconds = 4.0 if chosen.quick else values.seconds
    with tempfile.TemporaryDirectory(prefix="benchmark-") as place:
        folder = Path(place)
        form = small_form(folder / "study")
        kilobytes = sum(map(len, form.values())) // 1000
        notes = tuple(note.format(kilobytes=kilobytes, kept=KEPT) for note in NOTES)
        results = open_results("load", chosen, (neighbours(), *notes), peaks=False)
        with databases(values.postgres) as makers:
            for title, make in makers.items():
                for count in (1, held):
                    case = wanted(title, count, results, chosen)
                    here = folder / f"{title}-{count}"
                    if not case.phases:
                        continue
                    write_bundle(here / "models" / MODEL, "tiny SegMamba", window=32)
                    with deployed(
                        here, model=MODEL, database_url=make(), threads=1, queue_size=1_000_000
                    ) as deployment:
                        measure(deployment, form, case, results, folder=here, seconds=seconds)
    close_results(results, chosen)


if __name__ == "__main__":
    main()
