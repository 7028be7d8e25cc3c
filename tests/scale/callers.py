"""Callers who mean it: each study is sent until somebody has taken it, by whichever way is open."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from tests.scale.network import Host
from tests.service.servers import form_files

PATIENCE = 180.0
"""Seconds; for a busy machine."""
COME_BACK = (500, 503)
"""What an API may answer while the database or the storage is away."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is sent, and how urgent it is.

    Attributes:
        name: studies of one name have one label map.
        images: by contrast.
        fields: of the form.
    """

    name: str
    images: dict[str, bytes]
    fields: dict[str, str]


class Caller:
    """Somebody who knows several addresses of the service, and tries another one when one is dumb.

    Args:
        addresses: of the APIs, the first one preferred.
    """

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = list(addresses)
        self.unanswered = 0
        self._client = httpx.Client(timeout=httpx.Timeout(15, connect=4))

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def submit(self, study: Study) -> str:
        """Send a study, under one key; the id of its job."""
        answer = self.ask(
            "POST",
            "/jobs",
            files=form_files(study.images),
            data={"cache": "false", **study.fields},
            headers={"Idempotency-Key": uuid4().hex},
        )
        return str(answer.json()["id"])

    def label_map(self, job_id: str) -> bytes:
        """The result of a job that has succeeded."""
        return self.ask("GET", f"/jobs/{job_id}/result").content

    def ask(self, method: str, path: str, **rest: Any) -> httpx.Response:
        """Ask until there is an answer."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                answer = self._client.request(method, self._addresses[0] + path, **rest)
                if answer.status_code not in COME_BACK:
                    assert answer.status_code < 400, answer.text
                    return answer
            except httpx.TransportError:
                self.unanswered += method == "POST"
            assert time.monotonic() < end, f"no answer to {method} {path}"
            self._addresses.append(self._addresses.pop(0))
            time.sleep(0.2)


class Crowd:
    """Callers who send studies all the time, one for each API and each beginning with another.

    Args:
        host: where they are.
        addresses: of the APIs.
        studies: sent in turn.
        count: of jobs, all callers together.
        pause: seconds between two studies of one caller.
    """

    def __init__(
        self, host: Host, addresses: list[str], studies: list[Study], *, count: int, pause: float
    ) -> None:
        self.callers = [Caller(addresses[n:] + addresses[:n]) for n in range(len(addresses))]
        self.accepted: dict[str, Study] = {}
        self._studies, self._pause = studies, pause
        share = count // len(addresses)
        with host.entered():
            self._threads = [
                threading.Thread(target=self._send, args=(caller, share), daemon=True)
                for caller in self.callers
            ]
            for thread in self._threads:
                thread.start()

    @property
    def unanswered(self) -> int:
        """Submissions that broke off: nobody knows whether they were taken."""
        return sum(caller.unanswered for caller in self.callers)

    def wait(self) -> None:
        """Until all have sent all."""
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "somebody cannot get rid of a study"

    def _send(self, caller: Caller, count: int) -> None:
        with caller:
            for number in range(count):
                study = self._studies[number % len(self._studies)]
                self.accepted[caller.submit(study)] = study
                time.sleep(self._pause)
