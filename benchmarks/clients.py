"""A locustfile: callers that ask for jobs and submit studies. `benchmarks.load` starts it.

What to do stands in a file that the environment names; every request's time goes into another.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any, Final

from locust import FastHttpUser, constant, constant_throughput, events

_ORDER: Final = json.loads(Path(os.environ["BENCHMARK_ORDER"]).read_text(encoding="utf-8"))
_BODY: Final = Path(_ORDER["body"]).read_bytes()
_BEGIN: Final = time.time() + _ORDER["warmup"]
_SAID: Final[list[tuple[str, float, float, str | None]]] = []


def _show(user: FastHttpUser) -> None:
    user.client.get(f"/jobs/{random.choice(_ORDER['ids'])}", name="GET /jobs/{id}")


def _submit(user: FastHttpUser) -> None:
    headers = {"Content-Type": _ORDER["type"]}
    user.client.post("/jobs", data=_BODY, headers=headers, name="POST /jobs")


class Caller(FastHttpUser):
    """Asks again at once, or once in so many seconds."""

    tasks = [_show] * _ORDER["gets"] + [_submit] * _ORDER["posts"]
    wait_time = constant_throughput(_ORDER["rate"]) if _ORDER["rate"] else constant(0)
    network_timeout = connection_timeout = 60.0


@events.request.add_listener
def _note(
    name: str, start_time: float, response_time: float, exception: Exception | None, **_: Any
) -> None:
    error = None if exception is None else type(exception).__name__
    _SAID.append((name, start_time - _BEGIN, response_time / 1000, error))


@events.quitting.add_listener
def _leave(**_: Any) -> None:
    Path(_ORDER["answer"]).write_text(json.dumps(_SAID), encoding="utf-8")
