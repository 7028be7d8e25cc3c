"""``python -m benchmarks.serving``: the same bundle behind this service and beside it."""

from __future__ import annotations

import gzip
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import psutil

from benchmarks.bare import ORDER_VARIABLE, BareLoop, bare_loop
from benchmarks.case import write_bundle
from benchmarks.commandline import Options, close_results, open_results, options, parser, say
from benchmarks.deployment import (
    MODEL,
    cpu_seconds,
    deployed,
    environment,
    form_files,
    leave_in_good_order,
    neighbours,
    own_seconds,
    project_python,
    running,
    submit,
    wait_until,
)
from benchmarks.networks import OURS
from benchmarks.results import Results, Row
from benchmarks.timing import alternate, quantile
from model_core.phantom import write_phantom

DESCRIPTION: Final = """\
Serves one bundle with this service, LitServe and BentoML, each with one worker of as many threads,
and sends the same study to all: one caller after the other in turn, then eight callers at once;
then eight studies wait and the worker's process is killed, and what becomes of them is counted.
"""
NOTES: Final = (
    "A request sends four images and waits for the label map. All servers ran side by side; one "
    "was asked at a time. The bare loop is the same work without a server. *overhead ms* is the "
    "median beyond the bare loop's; *cpu seconds* is processor time of all its processes for one "
    "request, median; *same* says whether every label map was the bare loop's.",
    "This service writes the study and the job to the disk, synced, before it begins, opens images "
    "in a process with limits, and keeps the label map; the peers do none of that. The peers run "
    "without a limit of time on a request.",
    "Killed: eight studies were sent, and when the first was being computed, the process that "
    "computed was killed (SIGKILL). *label maps* came out right in the end, *refused* were "
    "answered with an error, *lost* got no answer within {patience:g} s. *again*: a new study, "
    "sent once the fate of all eight was known, was answered so many seconds after the death; so "
    "it is no measure of the restart alone. Nothing was sent twice.",
)
CALLERS: Final = 8
PATIENCE_SECONDS: Final = 120.0
_AT_WORK_SECONDS: Final = 0.5
"""Processor time by which the process is known that computes."""
_SHAPE: Final = (64, 64, 64)


@dataclass(frozen=True, kw_only=True)
class Server:
    """One way of serving.

    Attributes:
        name: of its rows.
        process: the first of its processes.
        segment: sends the study and waits; the label map's file. Raises `httpx.HTTPError`.
    """

    name: str
    process: psutil.Process
    segment: Callable[[], bytes]

    def used(self) -> dict[psutil.Process, float]:
        """Processor time of each of its processes."""
        family = [self.process, *self.process.children(recursive=True)]
        return {one: own_seconds(one) for one in family}

    def busiest(self, before: Mapping[psutil.Process, float]) -> tuple[psutil.Process, float]:
        """The process that has computed most since `used` gave `before`, and its seconds."""
        since = {one: seconds - before.get(one, 0.0) for one, seconds in self.used().items()}
        return max(since.items(), key=lambda item: item[1])


@dataclass
class Fate:
    """What became of the studies that waited when the worker was killed."""

    label_maps: int = 0
    refused: int = 0
    lost: int = 0
    seconds: list[float] = field(default_factory=list)


# -------------------------------------------------------------------------------------- the servers


@contextmanager
def ours(
    folder: Path, form: Mapping[str, bytes], chosen: Options
) -> Iterator[tuple[Server, Server]]:
    """This service, asked by POST /segment, and by POST /jobs and its events."""
    with deployed(folder, model=MODEL, threads=chosen.threads) as up:

        def wait() -> bytes:
            return _post(f"{up.address}/segment", form, {"cache": "false"})

        def job() -> bytes:
            with httpx.Client(base_url=up.address, timeout=PATIENCE_SECONDS) as client:
                job_id = submit(client, form)
                with client.stream("GET", f"/jobs/{job_id}/events") as events:
                    for _ in events.iter_lines():
                        pass
                return client.get(f"/jobs/{job_id}/result").raise_for_status().content

        yield (
            Server(name=f"{OURS}, POST /segment", process=up.process, segment=wait),
            Server(name=f"{OURS}, POST /jobs", process=up.process, segment=job),
        )


@contextmanager
def peer(
    name: str, command: list[str], path: str, form: Mapping[str, bytes], folder: Path, order: str
) -> Iterator[Server]:
    """A peer's server, on a port of loopback, with the model loaded.

    Args:
        name: of its rows.
        command: how it is started; PORT stands for the port.
        path: of the address to post to.
        form: the study.
        folder: for what it says.
        order: see `benchmarks.bare`.
    """
    port = _free_port()
    folder.mkdir()
    variables = os.environ | {
        ORDER_VARIABLE: order,
        "BENTOML_DO_NOT_TRACK": "True",
        "BENTOML_HOME": str(folder / "home"),
    }
    filled = [part.replace("PORT", str(port)) for part in command]
    url = f"http://127.0.0.1:{port}{path}"
    with running(filled, folder, variables, folder / "said") as process:
        server = Server(name=name, process=process, segment=partial(_post, url, form, {}))
        wait_until(lambda: _answers(server))
        yield server


_LITSERVE: Final = [sys.executable, "-W", "ignore", "-m", "benchmarks.litserve_way", "PORT"]
PEERS: Final[Mapping[str, tuple[list[str], str]]] = {
    "LitServe": (_LITSERVE, "/predict"),
    "BentoML": (
        [
            *(sys.executable, "-W", "ignore", "-m", "bentoml", "serve"),
            *("benchmarks.bentoml_way:Segment", "--host", "127.0.0.1", "--port", "PORT"),
        ],
        "/segment",
    ),
}
KEPT_ALIVE: Final = "LitServe, restart_workers"
"""Only killed: while nobody dies it is LitServe."""


def _post(url: str, form: Mapping[str, bytes], fields: Mapping[str, str]) -> bytes:
    answer = httpx.post(url, files=form_files(form), data=dict(fields), timeout=PATIENCE_SECONDS)
    return answer.raise_for_status().content


def _answers(server: Server) -> bool:
    try:
        server.segment()
    except httpx.HTTPError:
        if not server.process.is_running():
            raise
        return False
    return True


# --------------------------------------------------------------------------------- the measurements


def one_after_the_other(
    servers: list[Server], loop: BareLoop, results: Results, chosen: Options
) -> None:
    """One caller, every server in turn."""
    group = f"one caller, {chosen.threads} threads"
    maps: dict[str, set[str]] = {}
    used: dict[str, list[float]] = {}

    def asked(name: str, process: psutil.Process, made: Callable[[], bytes]) -> None:
        before = cpu_seconds(process)
        maps.setdefault(name, set()).add(_content(made()))
        used.setdefault(name, []).append(cpu_seconds(process) - before)

    work: dict[str, Callable[[], object]] = {
        "bare loop": partial(asked, "bare loop", loop.process, _bare(loop))
    }
    work |= {one.name: partial(asked, one.name, one.process, one.segment) for one in servers}
    seconds = alternate(work, chosen.plan)
    bare = statistics.median(seconds["bare loop"])
    for name, times in seconds.items():
        more: dict[str, Any] = {"cpu_seconds": statistics.median(used[name])}
        if name != "bare loop":
            more["overhead_ms"] = f"{1000 * (statistics.median(times) - bare):.0f}"
            more["same"] = maps[name] == maps["bare loop"]
        _add(group, name, times, more | {"p99": quantile(times, 0.99)}, results, chosen)


def all_at_once(
    servers: list[Server], label_map: str, requests: int, results: Results, chosen: Options
) -> None:
    """Eight callers, every server for itself."""
    group = f"{CALLERS} callers, {chosen.threads} threads"
    for server in servers:
        began = time.monotonic()
        with ThreadPoolExecutor(CALLERS) as pool:
            said = list(pool.map(_timed, [server] * (requests * CALLERS)))
        span = time.monotonic() - began
        good = [took for took, content in said if content == label_map]
        more = {
            "p99": quantile(good, 0.99) if good else None,
            "label_maps": len(good),
            "refused": len(said) - len(good),
            "a_minute": 60 * len(good) / span,
        }
        _add(group, server.name, good, more, results, chosen)


def killed(servers: list[Server], label_map: str, results: Results, chosen: Options) -> None:
    """Eight studies wait, and the process that computes is killed."""
    group = f"{CALLERS} studies, and the worker's process is killed"
    for server in servers:
        fate = _kill(server, label_map)
        more = {
            "label_maps": fate.label_maps,
            "refused": fate.refused,
            "lost": fate.lost,
            "again": _again(server, max(fate.seconds)),
        }
        _add(group, server.name, fate.seconds, more, results, chosen)


def _again(server: Server, gone: float) -> float | str:
    """Seconds from the death until a study is answered again, `gone` of which have passed."""
    began = time.monotonic()
    try:
        wait_until(lambda: _answers(server), PATIENCE_SECONDS)
    except (TimeoutError, httpx.HTTPError):
        return "never"
    return gone + time.monotonic() - began


def _kill(server: Server, label_map: str) -> Fate:
    """Send, kill, and count; seconds count from the death."""
    fate = Fate()
    before = server.used()
    with ThreadPoolExecutor(CALLERS) as pool:
        sent = [pool.submit(server.segment) for _ in range(CALLERS)]
        wait_until(lambda: server.busiest(before)[1] > _AT_WORK_SECONDS)
        server.busiest(before)[0].kill()
        dead = time.monotonic()
        for one in as_completed(sent):
            try:
                right = _content(one.result()) == label_map
                fate.label_maps += right
                fate.refused += not right
            except httpx.TimeoutException:
                fate.lost += 1
            except httpx.HTTPError:
                fate.refused += 1
            fate.seconds.append(time.monotonic() - dead)
    return fate


def _timed(server: Server) -> tuple[float, str]:
    began = time.perf_counter()
    try:
        content = _content(server.segment())
    except httpx.HTTPError as error:
        content = type(error).__name__
    return time.perf_counter() - began, content


def _bare(loop: BareLoop) -> Callable[[], bytes]:
    return lambda: bytes.fromhex(loop.run()["label_map"])


def _content(label_map: bytes) -> str:
    """The file without its compression, as digits."""
    return gzip.decompress(label_map).hex()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _add(
    group: str,
    name: str,
    seconds: list[float],
    more: Mapping[str, Any],
    results: Results,
    chosen: Options,
) -> None:
    row = Row(
        group=group, way=name, seconds=tuple(seconds), reference=name == "bare loop",
        threads=chosen.threads, precision="", bound="exact" if seconds else "failed", extra=more,
    )  # fmt: skip
    results.add(row)
    say(f"  {group}  {name}  {row.typical or float('nan'):.3f} s  {dict(more)}")


def main() -> None:
    """Measure every group that was asked for, then write the page."""
    made = parser("serving", DESCRIPTION, rounds=20)
    made.set_defaults(seconds=120.0)
    made.add_argument("--requests", type=int, default=5,
        help="of each of the eight callers (default %(default)s)")  # fmt: skip
    values = made.parse_args()
    chosen = options(values)
    leave_in_good_order()
    notes = [note.format(patience=PATIENCE_SECONDS) for note in NOTES]
    results = open_results("serving", chosen, (neighbours(), *notes), peaks=False)
    if chosen.listing:
        return
    with tempfile.TemporaryDirectory(prefix="benchmark-") as place, ExitStack() as stack:
        folder = Path(place)
        shape = (48, 48, 40) if chosen.quick else _SHAPE
        _, paths = write_phantom(folder / "study", shape=shape)
        images = {contrast: str(path) for contrast, path in paths.items() if contrast != "seg"}
        form = {contrast: Path(path).read_bytes() for contrast, path in images.items()}
        here = folder / "ours"
        bundle = write_bundle(here / "models" / MODEL, "tiny SegMamba", window=32)
        order = json.dumps({"bundle": bundle, "threads": chosen.threads, "options": {}})
        variables = environment({}) | {ORDER_VARIABLE: order}
        loop = stack.enter_context(bare_loop(project_python(), variables, images))
        servers = [*stack.enter_context(ours(here, form, chosen))]
        for name, (command, path) in PEERS.items():
            with_peer = peer(name, command, path, form, folder / name, order)
            servers.append(stack.enter_context(with_peer))
        label_map = _content(_bare(loop)())
        one_after_the_other(servers, loop, results, chosen)
        all_at_once(servers, label_map, 1 if chosen.quick else values.requests, results, chosen)
        again = peer(KEPT_ALIVE, [*_LITSERVE, "restart"], "/predict", form, folder / "again", order)
        servers.append(stack.enter_context(again))
        killed(servers, label_map, results, chosen)
    close_results(results, chosen)


if __name__ == "__main__":
    main()
