"""``python -m benchmarks.dispatch``: how soon an idle worker begins, and what idling costs."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx
import psutil

from benchmarks.case import write_bundle
from benchmarks.commandline import close_results, open_results, options, parser, say
from benchmarks.deployment import (
    MODEL,
    Deployment,
    cpu_seconds,
    databases,
    deployed,
    leave_in_good_order,
    neighbours,
    small_form,
)
from benchmarks.networks import OURS
from benchmarks.results import Row
from benchmarks.timing import quantile
from service.jobs.tables import jobs

DESCRIPTION: Final = """\
Submits one study after the other to a `segmamba serve` whose worker is idle, and takes the time
from a job's row to its start out of the job table; before that, the processor time of the idle
worker, with its helpers, over a minute.
"""
NOTES: Final = (
    "Seconds from *created* to *started* in the job table, both by the database's own clock, to "
    "the millisecond. Between two jobs lie 1.5 to 2.5 s, at random, so that the worker is idle.",
    "*idle cpu* is processor time of the worker's process and its children in percent of one core, "
    "with no job since a while; *aim* is a median under 0.15 s at under 3 %.",
)
GROUP: Final = "from a waiting job to its start, one idle worker"
SETTLE_SECONDS: Final = 5.0
PAUSE: Final = (1.5, 2.5)


def idle_percent(worker: psutil.Process, seconds: float) -> float:
    """Processor time of a process and its children in percent of one core."""
    before, began = cpu_seconds(worker), time.monotonic()
    time.sleep(seconds)
    return 100 * (cpu_seconds(worker) - before) / (time.monotonic() - began)


def waits(
    deployment: Deployment, form: Mapping[str, bytes], count: int, pause: tuple[float, float]
) -> list[float]:
    """Seconds from a job's row to its start, for so many jobs of an idle worker."""
    chance = random.Random(0)
    with httpx.Client(base_url=deployment.address, timeout=60) as client:
        for _ in range(count):
            time.sleep(chance.uniform(*pause))
            deployment.run_one(client, form)
    times = deployment.rows(jobs.c.created, jobs.c.started)[-count:]
    return [(started - created) / 1000 for created, started in times]


def main() -> None:
    """Measure every row that was asked for, then write the page."""
    made = parser("dispatch", DESCRIPTION, rounds=60)
    made.add_argument("--postgres", metavar="URL",
        help="a PostgreSQL server's database, where databases may be created")  # fmt: skip
    made.add_argument("--idle-seconds", type=float, default=60.0,
        help="how long the idle worker is watched (default %(default)g)")  # fmt: skip
    values = made.parse_args()
    chosen = options(values)
    leave_in_good_order()
    results = open_results("dispatch", chosen, (neighbours(), *NOTES), peaks=False)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as place:
        folder = Path(place)
        form = small_form(folder / "study")
        with databases(values.postgres) as makers:
            for title, make in makers.items():
                name = f"{OURS}, {title}"
                if not chosen.wants(results, GROUP, name):
                    continue
                here = folder / title
                write_bundle(here / "models" / MODEL, "tiny SegMamba", window=32)
                with deployed(here, model=MODEL, database_url=make(), threads=1) as deployment:
                    time.sleep(SETTLE_SECONDS)
                    watched = 2.0 if chosen.quick else values.idle_seconds
                    idle = idle_percent(deployment.child("worker"), watched)
                    seconds = waits(
                        deployment, form, chosen.plan.warmup + chosen.plan.rounds, PAUSE
                    )
                seconds = seconds[chosen.plan.warmup :]
                row = Row(
                    group=GROUP, way=name, seconds=tuple(seconds), precision="",
                    extra={"p95": quantile(seconds, 0.95), "idle_cpu": f"{idle:.2f} %"},
                )  # fmt: skip
                results.add(row)
                say(f"  {name}  median {row.typical:.3f} s, {dict(row.extra)}")
    close_results(results, chosen)


if __name__ == "__main__":
    main()
