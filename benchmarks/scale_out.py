"""``python -m benchmarks.scale_out``: what more workers bring, and what they cost the database."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.case import StudyPaths, study_paths
from benchmarks.commandline import Options, close_results, open_results, options, parser, say
from benchmarks.deployment import databases, leave_in_good_order, neighbours
from benchmarks.machine import cores
from benchmarks.results import Results, Row
from benchmarks.scale_meter import Meter, Reading
from benchmarks.scale_model import USUAL, WAITING, WORKING, Assumptions, newest, tables
from benchmarks.scale_site import APIS, Site, site
from benchmarks.timing import quantile
from service.jobs.tables import jobs

DESCRIPTION: Final = """\
Two APIs, PostgreSQL and more and more workers whose device only waits (benchmarks/scale_worker.py),
all on this machine: how many jobs they do, how soon a worker has the next one, and what the
database, the APIs and the workers' hosts spend on it. With --model nothing is measured: the paper
model of docs/concepts/scale.md is printed, by the newest results.
"""
NOTES: Final = (
    "Workers are real processes on the whole way of a job; only the network is left out. A device "
    "that waits leaves its processor free, so that what is measured is everything else, "
    "the workers' own reading and packing of images included.",
    "*seconds* of a working fleet are means of one round: from one start to the next of the same "
    "worker. *efficiency* is 5 s divided by that. *gap* is from a job's end to the next one's "
    "start. The study is small, so that many workers fit on one machine. Clock: the database's.",
    "*seconds* of a waiting fleet are from a job's row to its start. *idle statements* and *idle "
    "transactions* are a second's, of all workers and APIs; *single* are statements of a job of "
    "half a second beyond those. *asked* are those of a `GET /jobs/{id}`.",
    "Statements are all that pg_stat_statements counts, BEGIN and COMMIT too. *cores* are kept "
    "busy by PostgreSQL, APIs and workers together, *database cores* by PostgreSQL; "
    "*api ms* and *worker ms* are processor time for a job. *load* is the machine's load average "
    "just before: above 2 it was busy with other things as well.",
)
FLEETS: Final = (1, 2, 4, 8, 16, 32)
LONG_SECONDS: Final = 5.0
SHORT_SECONDS: Final = 0.5
JOBS_EACH: Final = 3
SINGLES: Final = 5
PAUSE: Final = 2.0
SETTLE_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 8.0
ASKED: Final = 40
BUSY_LOAD: Final = 2.0


def waiting(at: Site, meter: Meter, form: Mapping[str, bytes], count: int) -> Row:
    """What workers cost that wait, and a single job among them."""
    time.sleep(SETTLE_SECONDS)
    before = meter.read()
    time.sleep(IDLE_SECONDS)
    idle = meter.read() - before
    extra: dict[str, Any] = {
        "workers": count,
        "idle_statements": idle.statements / idle.seconds,
        "idle_transactions": idle.transactions / idle.seconds,
        "idle_database_cores": idle.database / idle.seconds,
        "connections": meter.connections(),
    }
    seconds: list[float] = []
    if count:
        at.seconds.write_text(str(SHORT_SECONDS), encoding="utf-8")
        since, before = at.last(), meter.read()
        for _ in range(SINGLES):
            at.send(form, 1)
            time.sleep(PAUSE)
        at_work = meter.read() - before
        found = at.rows(jobs.c.created, jobs.c.started, jobs.c.ended, since=since)
        seconds = [(row[1] - row[0]) / 1000 for row in found]
        own = at_work.statements - idle.statements / idle.seconds * at_work.seconds
        ran = [(row[2] - row[1]) / 1000 for row in found]
        extra |= {"single": own / SINGLES, "single_seconds": sum(ran) / len(ran)}
        extra["asked"] = asked(at, meter, idle)
    return Row(group=WAITING, way=_way(count), seconds=tuple(seconds), precision="", extra=extra)


def asked(at: Site, meter: Meter, idle: Reading) -> float:
    """Statements of a question for a job that has ended."""
    job = at.rows(jobs.c.id)[-1][0]
    before = meter.read()
    with httpx.Client(base_url=at.addresses[0], timeout=60) as client:
        for _ in range(ASKED):
            client.get(f"/jobs/{job}").raise_for_status()
    found = meter.read() - before
    return (found.statements - idle.statements / idle.seconds * found.seconds) / ASKED


def running_statements(at: Site, meter: Meter, form: Mapping[str, bytes], count: int) -> float:
    """Statements a second while every worker is in the middle of a job, all together."""
    at.seconds.write_text(str(LONG_SECONDS), encoding="utf-8")
    at.send(form, count)
    time.sleep(LONG_SECONDS / 4)
    before = meter.read()
    time.sleep(LONG_SECONDS / 2)
    found = meter.read() - before
    at.wait_done()
    return found.statements / found.seconds


def working(
    at: Site, meter: Meter, form: Mapping[str, bytes], count: int, rounds: int
) -> dict[str, Any]:
    """Rounds of a fleet that always has a job: cycles, gaps, and a job's share of everything."""
    at.seconds.write_text(str(LONG_SECONDS), encoding="utf-8")
    cycles: list[float] = []
    gaps: list[float] = []
    spans: list[Reading] = []
    apis, hands = 0.0, 0.0
    for _ in range(rounds):
        since, sent = at.last(), meter.read()
        at.send(form, count * JOBS_EACH)
        began = meter.read()
        time.sleep(LONG_SECONDS * (JOBS_EACH - 1))
        ended = meter.read()
        at.wait_done()
        found = at.rows(jobs.c.worker, jobs.c.started, jobs.c.ended, since=since)
        cycle, gap = cycles_of(found)
        cycles.append(sum(cycle) / len(cycle))
        gaps += gap
        spans.append(ended - began)
        apis += (began - sent).apis
        hands += (meter.read() - sent).workers
    number = rounds * count * JOBS_EACH
    times = {"gap_p50": quantile(gaps, 0.5), "gap_p95": quantile(gaps, 0.95)}
    spent = {"api_ms": 1000 * apis / number, "worker_ms": 1000 * hands / number}
    return {"cycles": cycles} | times | _rates(spans) | spent


def cycles_of(found: Sequence[Sequence[Any]]) -> tuple[list[float], list[float]]:
    """From start to start, and from end to start, of each worker's jobs (worker, start, end)."""
    lives = defaultdict(list)
    for worker, started, ended in found:
        lives[worker].append((started, ended))
    pairs = [pair for life in lives.values() for pair in pairwise(sorted(life))]
    return (
        [(later[0] - earlier[0]) / 1000 for earlier, later in pairs],
        [(later[0] - earlier[1]) / 1000 for earlier, later in pairs],
    )


def _rates(spans: Sequence[Reading]) -> dict[str, Any]:
    """Of the spans together."""
    names = ("seconds", "statements", "database", "apis", "workers")
    seconds, statements, database, apis, hands = (
        sum(getattr(span, name) for span in spans) for name in names
    )
    return {
        "statements": statements / seconds,
        "transactions": sum(span.transactions for span in spans) / seconds,
        "database_cores": database / seconds,
        "database_ms": 1000 * database / statements,
        "cores": (database + apis + hands) / seconds,
    }


def working_row(count: int, found: dict[str, Any], load: float) -> Row:
    """The row of a working fleet."""
    cycles = found.pop("cycles")
    cycle = sum(cycles) / len(cycles)
    rates = {"jobs_a_minute": 60 * count / cycle, "efficiency": LONG_SECONDS / cycle}
    extra = {"workers": count} | rates | found | {"of_cores": cores(), "load": load}
    remark = "busy machine" if load > BUSY_LOAD else ""
    return Row(
        group=WORKING, way=_way(count), seconds=tuple(cycles), precision="", extra=extra,
        remark=remark, reference=count == 1,
    )  # fmt: skip


def usual_row(at: Site, meter: Meter, form: Mapping[str, bytes], count: int) -> Row:
    """What studies of the usual size cost: bytes, and processor time beside the device's."""
    found = working(at, meter, form, count, rounds=1)
    newest_job = at.rows(jobs.c.input_bytes, jobs.c.result_bytes)[-1]
    extra = {
        "workers": count,
        "bytes_in": newest_job[0],
        "bytes_out": newest_job[1],
        "api_seconds": found["api_ms"] / 1000,
        "worker_seconds": found["worker_ms"] / 1000,
    }
    cycles = tuple(found["cycles"])
    return Row(group=USUAL, way=_way(count), seconds=cycles, precision="", extra=extra)


def _way(count: int) -> str:
    return f"this project, {count} worker{'s' if count != 1 else ''}"


def _form(study: StudyPaths) -> dict[str, bytes]:
    return {contrast: Path(path).read_bytes() for contrast, path in study.images.items()}


def measure(at: Site, count: int, small: StudyPaths, results: Results, chosen: Options) -> None:
    """All rows of one size of fleet."""
    groups = [WAITING, WORKING] if count else [WAITING]
    wanted = [group for group in groups if chosen.wants(results, group, _way(count))]
    if not wanted:
        return
    form, load = _form(small), os.getloadavg()[0]
    with at.fleet(count, small.truth) as meter:
        if WAITING in wanted:
            _keep(results, waiting(at, meter, form, count))
        if WORKING in wanted:
            found = working(at, meter, form, count, 1 if chosen.quick else chosen.plan.rounds)
            found["running"] = running_statements(at, meter, form, count)
            _keep(results, working_row(count, found, load))


def measure_usual(at: Site, usual: StudyPaths, results: Results, chosen: Options) -> None:
    """The row of a study of the usual size."""
    if chosen.wants(results, USUAL, _way(APIS)):
        with at.fleet(APIS, usual.truth) as meter:
            _keep(results, usual_row(at, meter, _form(usual), APIS))


def _keep(results: Results, row: Row) -> None:
    results.add(row)
    typical = float("nan") if row.typical is None else row.typical
    say(f"  {row.group}  {row.way}  {typical:.3f} s  {dict(row.extra)}")


def main() -> None:
    """Measure every row that was asked for, then write the page; or print the model."""
    made = parser("scale_out", DESCRIPTION, rounds=3)
    made.add_argument("--postgres", metavar="URL",
        help="a PostgreSQL server's database, where databases may be created, with "
        "shared_preload_libraries=pg_stat_statements and max_connections=500")  # fmt: skip
    made.add_argument("--fleet", type=int, action="append", metavar="N",
        help=f"workers; may be repeated (default {', '.join(map(str, FLEETS))})")  # fmt: skip
    made.add_argument("--model", action="store_true", help="print the paper model, and end")
    values = made.parse_args()
    if values.model:
        say(tables(newest(), Assumptions()))
        return
    chosen = options(values)
    leave_in_good_order()
    if values.postgres is None:
        sys.exit("--postgres: expected the URL of a server's database, got nothing.")
    results = open_results("scale_out", chosen, (neighbours(), *NOTES), peaks=False)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as place, ExitStack() as stack:
        folder = Path(place)
        small = study_paths(None, 0, folder / "small", quick=True)
        usual = study_paths(None, 0, folder / "usual", quick=chosen.quick)
        makers = stack.enter_context(databases(values.postgres))
        url = makers["PostgreSQL"]()
        assert url is not None
        at = stack.enter_context(site(folder, values.postgres, url))
        measure_usual(at, usual, results, chosen)
        for count in (0, *(values.fleet or (FLEETS[:2] if chosen.quick else FLEETS))):
            measure(at, count, small, results, chosen)
    close_results(results, chosen)


if __name__ == "__main__":
    main()
