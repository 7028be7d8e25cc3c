"""A small, real server that keeps the contract of the jobs' interface, and breaks it on demand.

Jobs live in memory and outlast a restart. Nothing is computed: a job's states are told by the test
(`JobServer.tell`), or run through by themselves (`JobServer.run_jobs`).
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import socket
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from model_core.types import CONTRASTS

ENDED = ("succeeded", "failed", "cancelled")
KEY = "sgm_a-secret-of-the-test"
_NOW = "2030-01-02T03:04:05.678Z"


@dataclass
class Record:
    """A job as the server keeps it: every state it ever had, and what was sent."""

    id: str
    states: list[dict[str, Any]]
    result: bytes
    idempotency_key: str | None
    digests: dict[str, str]
    form: dict[str, str]
    filenames: list[str]
    deleted: bool = False

    @property
    def now(self) -> dict[str, Any]:
        return self.states[-1]

    @property
    def ended(self) -> bool:
        return self.now["state"] in ENDED


class _Server(uvicorn.Server):
    """One that leaves no connection open, not even a latecomer's."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        for _ in range(3):
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0.005)


@dataclass
class JobServer:
    """The server, what was asked of it, and what it shall do wrong.

    Args:
        faults: taken one by one by requests whose method and route match: ``("POST", "/jobs")`` →
            an answer to give instead, or ``"lose"`` to do the work and cut the answer.
        cuts: for each stream to come, after how many events it ends; negative: with a broken
            connection. No entry: it is kept.
    """

    key: str | None = None
    room: int = 10**6
    page: int = 3
    heartbeat_s: float = 5.0
    ignore_last_id: bool = False
    jobs: dict[str, Record] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    resumed_after: list[str | None] = field(default_factory=list)
    faults: dict[tuple[str, str], deque[Response | str]] = field(default_factory=dict)
    cuts: deque[int] = field(default_factory=deque)
    port: int = 0
    running: bool = False
    moving: bool = False
    most_open: int = 0
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def last(self) -> Record:
        return list(self.jobs.values())[-1]

    def count(self, method: str, route: str) -> int:
        """How often a route was asked."""
        return self.asked.count((method, route))

    def fault(self, method: str, route: str, *answers: Response | str) -> None:
        self.faults.setdefault((method, route), deque()).extend(answers)

    def forget(self) -> None:
        """Be as new: no jobs, no faults, everything as by default; and there."""
        self.moving = False
        keep = ("port", "running", "_server", "_thread")
        self.__dict__.update({k: v for k, v in vars(JobServer()).items() if k not in keep})
        if not self.running:
            self.start()

    # ------------------------------------------------------------ what jobs do

    def tell(self, job_id: str, state: str, **members: Any) -> None:
        """Give a job a new state."""
        record = self.jobs[job_id]
        record.states.append({**record.now, "state": state, "position": None, **members})

    def run_jobs(self) -> None:
        """Let every job run through by itself from now on, a step each few milliseconds."""
        self.moving = True
        threading.Thread(target=self._move, daemon=True).start()

    def _move(self) -> None:
        steps = [("queued", 0), *(("running", done) for done in range(4)), ("succeeded", 3)]
        while self.moving:
            for record in list(self.jobs.values()):
                if not record.ended:
                    state, done = steps[min(len(record.states), len(steps) - 1)]
                    progress = {"stage": "infer", "done": done, "total": 3}
                    self.tell(record.id, state, progress=progress)
            time.sleep(0.005)

    # ------------------------------------------------------------ coming and going

    def start(self) -> None:
        app = Starlette(
            routes=[
                Route("/jobs", self._guarded(self._post), methods=["POST"]),
                Route("/jobs", self._guarded(self._list), methods=["GET"]),
                Route("/jobs/{id}", self._guarded(self._get), methods=["GET"]),
                Route("/jobs/{id}", self._guarded(self._delete), methods=["DELETE"]),
                Route("/jobs/{id}/cancel", self._guarded(self._cancel), methods=["POST"]),
                Route("/jobs/{id}/events", self._guarded(self._events), methods=["GET"]),
                Route("/jobs/{id}/result", self._guarded(self._result), methods=["GET"]),
                Route("/jobs/{id}/files/{name}", self._guarded(self._file), methods=["GET"]),
                Route("/batches/{batch}", self._guarded(self._batch), methods=["GET", "DELETE"]),
            ]
        )
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
        server = _Server(config)
        listener = socket.create_server(("127.0.0.1", self.port))
        # asyncio sets it only on sockets that name their protocol; without it, answers dawdle
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = listener.getsockname()[1]
        self.running = True
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        self._server, self._thread = server, thread

    def stop(self) -> None:
        """Go away at once: connections break, what was asked is not answered."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(20)
        self.running = False
        assert not self._thread.is_alive(), "the server did not stop"
        self._server = self._thread = None

    # ------------------------------------------------------------ routes

    def _guarded(
        self, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            route = request.scope["path"]
            for name, value in request.path_params.items():
                route = route.replace(value, f"{{{name}}}")
            self.asked.append((request.method, route))
            faults = self.faults.get((request.method, route))
            fault = faults.popleft() if faults else None
            if isinstance(fault, Response):
                async for _ in request.stream():
                    pass
                return fault
            if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
                return problem(401, "unauthorised", "This needs a key.")
            answer = await handler(request)
            return broken_off(answer) if fault == "lose" else answer

        return guarded

    async def _post(self, request: Request) -> Response:
        once = request.headers.get("idempotency-key")
        digests, names, form = {}, [], {}
        async with request.form() as sent:
            for name, value in sent.items():
                if isinstance(value, UploadFile):
                    digests[name] = await _digest(value)
                    names.append(str(value.filename))
                else:
                    form[name] = str(value)
        for record in self.jobs.values():
            if once is not None and record.idempotency_key == once:
                return self._job(record, status=200)
        if set(digests) not in (set(CONTRASTS), {"dicom"}):
            return problem(422, "input", "t1: expected an image, got none.", field="t1")
        open_jobs = sum(not record.ended for record in self.jobs.values())
        self.most_open = max(self.most_open, open_jobs + 1)
        if open_jobs >= self.room:
            return problem(429, "queue-full", "The queue is full.", headers={"Retry-After": "0"})
        job_id = uuid.uuid4().hex
        seed = hashlib.sha256(json.dumps(digests).encode()).digest()
        first = {
            "id": job_id, "state": "queued", "position": 1, "eta_s": 12.5,
            "progress": {"stage": None, "done": 0, "total": 0}, "attempts": 0, "error": None,
            "model": form.get("model", "tiny"), "options": form,
            "priority": form.get("priority", "normal"), "batch": form.get("batch"),
            "cached": False, "created": _NOW, "started": None, "ended": None, "links": {},
        }  # fmt: skip
        self.jobs[job_id] = Record(
            job_id, [first], gzip.compress(seed * 9, mtime=0), once, digests, form, names
        )
        return self._job(self.jobs[job_id], status=202)

    def _job(self, record: Record, *, status: int = 200) -> Response:
        return JSONResponse(record.now, status, {"Location": f"/jobs/{record.id}"})

    def _found(self, request: Request) -> Record | None:
        record = self.jobs.get(request.path_params["id"])
        return None if record is None or record.deleted else record

    async def _get(self, request: Request) -> Response:
        record = self._found(request)
        return self._job(record) if record else unknown()

    async def _list(self, request: Request) -> Response:
        query = request.query_params
        found = [
            record.now
            for record in reversed(self.jobs.values())
            if not record.deleted
            and query.get("state") in (None, record.now["state"])
            and query.get("batch") in (None, record.now["batch"])
        ]
        start = int(query.get("before", 0))
        end = start + int(query.get("limit", self.page))
        more = {**query, "before": str(end)}
        text = "&".join(f"{name}={value}" for name, value in more.items())
        # an address that only the server's own side of a proxy knows
        after = f"http://inside.invalid:1/jobs?{text}" if end < len(found) else None
        return JSONResponse({"jobs": found[start:end], "next": after})

    async def _delete(self, request: Request) -> Response:
        record = self._found(request)
        if record is None:
            return unknown()
        if record.ended:
            record.deleted = True
            return Response(status_code=204)
        self.tell(record.id, "cancelled", ended=_NOW)
        return self._job(record, status=202)

    async def _cancel(self, request: Request) -> Response:
        record = self._found(request)
        if record is None:
            return unknown()
        if not record.ended:
            self.tell(record.id, "cancelled", ended=_NOW)
        return self._job(record)

    async def _result(self, request: Request) -> Response:
        record = self._found(request)
        if record is None or record.now["state"] == "cancelled":
            return problem(410, "gone", "There is no result any more.")
        if record.now["error"]:
            error = record.now["error"]
            return JSONResponse(error, error["status"], media_type="application/problem+json")
        if not record.ended:
            return problem(409, "not-finished", "The job runs still.", headers={"Retry-After": "1"})
        if "zip" in request.headers["accept"] and "gzip" not in request.headers["accept"]:
            return Response(b"PK" + record.result, media_type="application/zip")
        if "json" not in request.headers.get("accept", ""):
            return Response(record.result, media_type="application/gzip")
        part = {"filename": "seg.nii.gz", "data": base64.b64encode(record.result).decode()}
        return JSONResponse({"schema_version": 1, "model": "tiny", "label_map": part})

    async def _file(self, request: Request) -> Response:
        record = self._found(request)
        if record is None or request.path_params["name"] != "statistics.csv":
            return unknown()
        rows = f"study,structure,volume_ml\nstudy,WT,{len(record.result)}\n"
        return Response(rows, media_type="text/csv")

    async def _batch(self, request: Request) -> Response:
        batch = request.path_params["batch"]
        members = [r for r in self.jobs.values() if r.now["batch"] == batch and not r.deleted]
        if not members:
            return unknown()
        if request.method == "DELETE":
            for record in members:
                if not record.ended:
                    self.tell(record.id, "cancelled", ended=_NOW)
        counts = Counter(record.now["state"] for record in members)
        done = all(record.ended for record in members)
        return JSONResponse({"batch": batch, "counts": counts, "done": done})

    async def _events(self, request: Request) -> Response:
        record = self._found(request)
        if record is None:
            return unknown()
        last = request.headers.get("last-event-id")
        self.resumed_after.append(last)
        cut = self.cuts.popleft() if self.cuts else None
        start = 0 if self.ignore_last_id else int(last or 0)
        return StreamingResponse(
            self._told(record, start, cut), media_type="text/event-stream; charset=utf-8"
        )

    async def _told(self, record: Record, start: int, cut: int | None) -> AsyncIterator[str]:
        yield "retry: 20\n\n"
        told, beat = start, time.monotonic()
        while True:
            if cut is not None and told - start >= abs(cut):
                if cut < 0:
                    # half an event: what is not complete must not be taken
                    yield f"id: {told + 1}\nevent: job\ndata: {{"
                    raise ConnectionAbortedError
                return
            if told < len(record.states):
                told += 1
                yield f"id: {told}\nevent: job\ndata: {json.dumps(record.states[told - 1])}\n\n"
            elif record.ended:
                return
            elif time.monotonic() > beat + self.heartbeat_s:
                beat = time.monotonic()
                yield ": still here\n\n"
            else:
                await asyncio.sleep(0.003)


async def _digest(upload: UploadFile) -> str:
    digest = hashlib.sha256()
    while chunk := await upload.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def problem(
    status: int, cause: str, detail: str, *, headers: dict[str, str] | None = None, **members: Any
) -> Response:
    """A refusal as the service writes it."""
    return JSONResponse(
        {
            "type": f"urn:segmamba:problem:{cause}",
            "title": cause,
            "status": status,
            "detail": detail,
            **members,
        },
        status,
        headers,
        media_type="application/problem+json",
    )


def unknown() -> Response:
    return problem(404, "not-found", "There is no such job.")


def broken_off(answer: Response) -> Response:
    """The beginning of an answer, then a broken connection."""

    async def some() -> AsyncIterator[bytes]:
        yield bytes(answer.body)[:10]
        raise ConnectionAbortedError

    headers = {"content-length": str(len(answer.body) + 1000)}
    status = 200 if answer.status_code == 204 else answer.status_code  # 204 has no body to break
    return StreamingResponse(some(), status, headers, "application/json")


@contextmanager
def job_server(**settings: Any) -> Iterator[JobServer]:
    """A running server."""
    server = JobServer(**settings)
    server.start()
    try:
        yield server
    finally:
        server.moving = False
        server.stop()
