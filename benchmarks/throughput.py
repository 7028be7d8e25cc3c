"""``python -m benchmarks.throughput``: jobs of ten seconds, beside the loop without a service."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from benchmarks.bare import ORDER_VARIABLE, BareLoop, bare_loop
from benchmarks.case import study_paths, write_bundle
from benchmarks.commandline import Options, close_results, open_results, options, parser, say
from benchmarks.deployment import (
    MODEL,
    Deployment,
    databases,
    deployed,
    environment,
    form_files,
    leave_in_good_order,
    neighbours,
    project_python,
    wait_until,
)
from benchmarks.networks import OURS
from benchmarks.results import Results, Row
from model_core.checkpoints import DEFAULT_MODEL
from model_core.types import TTA_MODES
from service.jobs.tables import jobs

DESCRIPTION: Final = """\
Gives a `segmamba serve` several jobs at a time, so that its worker never waits for one, and runs
the same study as often in a bare loop of read, segment, measure and encode, in a process with as
many threads; one block of each in turn. Then single studies through POST /segment, for what a
caller waits beside the worker's own stages.
"""
NOTES: Final = (
    "A job's time runs from the end of the one before it (or from its own submission, for a "
    "block's first) to its end, by the job table: taking it from the queue, opening the images in "
    "the limited process, and writing the label map to the disk are in it. The result cache is "
    "off.",
    "The bare loop reads the same files without limits and keeps nothing. Blocks of both ran in "
    "turn, while the other one was idle. *of the bare loop* is what a block reached of "
    "its throughput: median, least and most. *same*: every label map was the bare loop's.",
    "*beside the stages* is what one caller of POST /segment waits, from the first byte sent to "
    "the label map, less the seconds that the worker's own stages took (read to encode).",
)
SERVICE: Final = f"{OURS}, job through the service"
BESIDE: Final = f"{OURS}, beside the stages"


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is segmented over and over: files by contrast, and the options."""

    images: Mapping[str, str]
    options: Mapping[str, str]

    def form(self) -> dict[str, bytes]:
        """The images' bytes."""
        return {contrast: Path(path).read_bytes() for contrast, path in self.images.items()}


@dataclass
class Measured:
    """Seconds of every way, and whether the label maps agree."""

    service: list[float]
    bare: list[float]
    beside: list[float]
    same: bool = True

    def shares(self, size: int) -> list[float]:
        """What every block reached of the bare loop's throughput."""
        starts = range(0, len(self.bare), size)
        return [sum(self.bare[i : i + size]) / sum(self.service[i : i + size]) for i in starts]


def measure(
    deployment: Deployment, loop: BareLoop, study: Study, *, blocks: int, size: int
) -> Measured:
    """Blocks of jobs and of bare runs in turn, then single studies."""
    found = Measured([], [], [])
    form = study.form()
    with httpx.Client(base_url=deployment.address, timeout=3600) as client:
        deployment.run_one(client, form, **study.options)
        for _ in range(blocks):
            found.service += block(deployment, client, form, study.options, size)
            runs = [loop.run() for _ in range(size)]
            found.bare += [run["seconds"] for run in runs]
            wanted = {run["label_map"] for run in runs}
            seconds, label_map = beside(client, form, study.options)
            found.beside.append(seconds)
            found.same &= wanted == {label_map.hex()}
            say(f"  {found.service[-size:]}  bare {found.bare[-size:]}  beside {seconds:.3f} s")
    return found


def block(
    deployment: Deployment,
    client: httpx.Client,
    form: Mapping[str, bytes],
    fields: Mapping[str, str],
    size: int,
) -> list[float]:
    """Submit so many jobs at once; the seconds that each kept the worker."""
    data = {"cache": "false", **fields}
    for _ in range(size):
        client.post("/jobs", files=form_files(form), data=data).raise_for_status()
    wait_until(lambda: _all_ended(deployment), 3600.0)
    times = deployment.rows(jobs.c.created, jobs.c.ended)[-size:]
    return periods([(created / 1000, ended / 1000) for created, ended in times])


def periods(times: Sequence[tuple[float, float]]) -> list[float]:
    """Seconds from the end of the job before, or from its own creation, to a job's end."""
    found, before = [], float("-inf")
    for created, ended in times:
        found.append(ended - max(created, before))
        before = ended
    return found


def beside(
    client: httpx.Client, form: Mapping[str, bytes], fields: Mapping[str, str]
) -> tuple[float, bytes]:
    """What a caller waits beside the worker's stages, and the label map."""
    data = {"cache": "false", **fields}
    began = time.perf_counter()
    answer = client.post("/segment", files=form_files(form), data=data).raise_for_status()
    took = time.perf_counter() - began
    stages = json.loads(answer.headers["x-segmamba-timings"])
    return took - sum(s for name, s in stages.items() if name != "queue"), answer.content


def _all_ended(deployment: Deployment) -> bool:
    time.sleep(0.5)
    return not any(state in ("queued", "running") for (state,) in deployment.rows(jobs.c.state))


def add_rows(group: str, found: Measured, size: int, results: Results, chosen: Options) -> None:
    """The three rows of a database."""
    shares = found.shares(size)
    share = f"{statistics.median(shares):.1%} ({min(shares):.1%} to {max(shares):.1%})"
    for way, seconds, more in (
        ("bare loop", found.bare, {}),
        (SERVICE, found.service, {"of_the_bare_loop": share, "same": found.same}),
        (BESIDE, found.beside, {}),
    ):
        row = Row(
            group=group, way=way, seconds=tuple(seconds), reference=way == "bare loop",
            threads=chosen.threads, precision="", extra=more,
        )  # fmt: skip
        results.add(row)


def main() -> None:
    """Measure every database that was asked for, then write the page."""
    made = parser("throughput", DESCRIPTION, rounds=5)
    made.add_argument("--postgres", metavar="URL",
        help="a PostgreSQL server's database, where databases may be created")  # fmt: skip
    made.add_argument("--jobs", type=int, default=3, help="jobs of a block (default %(default)s)")
    made.add_argument("--tta", choices=TTA_MODES, default="none",
        help="mirrored passes, for longer jobs (default %(default)s)")  # fmt: skip
    values = made.parse_args()
    chosen = options(values)
    leave_in_good_order()
    results = open_results("throughput", chosen, (neighbours(), *NOTES), peaks=False)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as place:
        folder = Path(place)
        images = study_paths(None, 0, folder / "study", chosen.quick).images
        study = Study(images=images, options={"tta": values.tta})
        with databases(values.postgres) as makers:
            for title, make in makers.items():
                group = f"{_subject(chosen)}, {title}, {chosen.threads} threads"
                if not any(chosen.wants(results, group, way) for way in (SERVICE, BESIDE)):
                    continue
                here = folder / title
                bundle, model = DEFAULT_MODEL, None
                if chosen.quick:
                    model = MODEL
                    bundle = write_bundle(here / "models" / MODEL, "tiny SegMamba", window=32)
                order = {"bundle": bundle, "threads": chosen.threads, "options": study.options}
                variables = environment({}) | {ORDER_VARIABLE: json.dumps(order)}
                with (
                    deployed(here, model=model, database_url=make(), threads=chosen.threads) as up,
                    bare_loop(project_python(), variables, study.images) as loop,
                ):
                    blocks = chosen.plan.rounds
                    found = measure(up, loop, study, blocks=blocks, size=values.jobs)
                add_rows(group, found, values.jobs, results, chosen)
    close_results(results, chosen)


def _subject(chosen: Options) -> str:
    return "a small phantom, a tiny network" if chosen.quick else "a phantom, the default model"


if __name__ == "__main__":
    main()
