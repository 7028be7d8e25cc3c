"""One request after another over HTTP, each asked again until it is answered or patience ends."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from importlib.metadata import version
from math import inf
from typing import Any, Final, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from model_core.errors import OptionError
from service.client.errors import FOREIGN_TYPE, ServerRefused, ServerUnreachable, UnknownAnswerError
from service.schemas import Problem

JSON: Final = "application/json"
_CONNECT_S: Final = 10.0
_NEVER_ARRIVED: Final = (httpx.ConnectError, httpx.ConnectTimeout)
_Answer = TypeVar("_Answer", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long and how often the service is asked again; seconds.

    Args:
        outage_s: how long a service that has answered before may be away.
        first_contact_s: how long to try before it has ever answered: the address may be wrong.
        busy_s: how long to come back to a service that is too busy for the caller (429).
        first_pause_s: before the second try; doubled with each further one.
        longest_pause_s: no pause grows beyond it, unless the service asks for a longer one.
        poll_s: between two looks at a job whose event stream does not get through.
    """

    outage_s: float = 300.0
    first_contact_s: float = 5.0
    busy_s: float = 3600.0
    first_pause_s: float = 0.5
    longest_pause_s: float = 10.0
    poll_s: float = 2.0

    def pause(self, tries: int) -> float:
        """Seconds before the next try; partly random, so that many callers do not come at once."""
        ceiling = self.first_pause_s * 2.0 ** min(tries - 1, 20)
        return min(self.longest_pause_s, ceiling) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


class Wire:
    """An HTTP client of one server that knows the caller's key.

    Args:
        server: where the service lives, e.g. ``https://segmamba.example``; may have a path.
        key: the caller's key, sent as a bearer token.
        timeout_s: longest silence of the server within one answer.
        patience: how often to try.

    Raises:
        OptionError: the address or the key cannot be one.
    """

    def __init__(self, server: str, key: str | None, *, timeout_s: float, patience: Patience):
        headers = {"User-Agent": f"segmamba-client/{version('segmamba-service')}"}
        if key is not None:
            headers["Authorization"] = f"Bearer {_checked_key(key)}"
        self._key = key
        self.patience = patience
        self._timeout_s = timeout_s
        self.http = httpx.Client(
            base_url=_checked_address(server), headers=headers, timeout=self.silence(timeout_s)
        )
        self.met = False
        """Whether the server has been there at all."""

    def silence(self, read_s: float) -> httpx.Timeout:
        """The usual limits, but for how long the server may say nothing within an answer."""
        connect_s = min(_CONNECT_S, self._timeout_s)
        return httpx.Timeout(self._timeout_s, connect=connect_s, read=read_s)

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        accept: str = JSON,
        deadline: float = inf,
    ) -> httpx.Response:
        """The answer to a request that may safely be sent again; see `repeat`."""

        def attempt() -> httpx.Response:
            return self.http.request(method, path, params=params, headers={"Accept": accept})

        return self.repeat(attempt, deadline=deadline)

    def repeat(
        self,
        attempt: Callable[[], httpx.Response],
        *,
        deadline: float = inf,
        busy: bool = True,
    ) -> httpx.Response:
        """The first good answer to an attempt, made again while waiting may help.

        Args:
            attempt: one request.
            deadline: by the monotonic clock; no pause reaches beyond it.
            busy: whether to come back to a server that is too busy (429).

        Raises:
            ServerRefused: the service said no, or "later" for longer than patience allows.
            ServerUnreachable: no answer at all.
        """
        tries, failing_since = 0, inf
        while True:
            tries += 1
            failure: ServerRefused | ServerUnreachable
            try:
                response = attempt()
            except httpx.RequestError as error:
                self.met = self.met or not isinstance(error, _NEVER_ARRIVED)
                failure = self._unreachable(error, tries)
            else:
                self.met = True
                if response.is_success:
                    return response
                failure = self.refusal(response, tries)
            now = time.monotonic()
            failing_since = min(failing_since, now)
            pause = max(self.patience.pause(tries), _asked_pause(failure))
            patience = self._patience_with(failure, busy=busy)
            if now + pause > min(failing_since + patience, deadline):
                raise failure
            time.sleep(pause)

    def refusal(self, response: httpx.Response, tries: int = 1) -> ServerRefused:
        """The error that an answer other than 2xx stands for; its body must have been read."""
        refused = ServerRefused(self._problem(response), _retry_after(response))
        refused.tries = tries
        return refused

    def _patience_with(self, failure: ServerRefused | ServerUnreachable, *, busy: bool) -> float:
        if isinstance(failure, ServerRefused):
            if not failure.temporary:
                return -inf
            if failure.status == HTTPStatus.TOO_MANY_REQUESTS:
                return self.patience.busy_s if busy else -inf
        return self.patience.outage_s if self.met else self.patience.first_contact_s

    def _unreachable(self, error: httpx.RequestError, tries: int) -> ServerUnreachable:
        times = "once" if tries == 1 else f"{tries} times"
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return ServerUnreachable(
            f"no answer from {self.http.base_url}, asked {times} ({reason}). "
            "Check the address, the network and whether the service runs."
        )

    def _problem(self, response: httpx.Response) -> Problem:
        """The problem document of an answer, or one made up from its status line."""
        made_up = {
            "type": FOREIGN_TYPE,
            "title": response.reason_phrase or "The request was refused",
            "status": response.status_code,
            "detail": f"HTTP {response.status_code} {response.reason_phrase} without a reason. "
            "Is this the address of a SegMamba service?",
        }
        if not response.headers.get("content-type", "").startswith("application/problem+json"):
            return Problem.model_validate(made_up)
        # should a server ever repeat the key, it must not reach a screen or a log from here
        text = response.text.replace(self._key, "[key]") if self._key else response.text
        try:
            said = {**made_up, **json.loads(text), "status": response.status_code}
            return Problem.model_validate(said)
        except (ValueError, TypeError):
            return Problem.model_validate(made_up)


def read(model: type[_Answer], content: bytes | str) -> _Answer:
    """Parse an answer.

    Raises:
        UnknownAnswerError: it does not have the shape that the service promises.
    """
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise UnknownAnswerError(
            f"the server's answer is not a {model.__name__.lower()} ({where}: {first['msg']}). "
            "Is this the address of a SegMamba service, and of a version that fits this client?"
        ) from None


def _asked_pause(failure: ServerRefused | ServerUnreachable) -> float:
    return (failure.retry_after or 0.0) if isinstance(failure, ServerRefused) else 0.0


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds from ``Retry-After``, which holds a number or a date; None where there is neither."""
    text = response.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:  # "-0000": UTC without a promise
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _checked_address(server: str) -> httpx.URL:
    try:
        url = httpx.URL(server)
    except (httpx.InvalidURL, TypeError):
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise OptionError(
            "server",
            expected="an address such as https://segmamba.example or http://127.0.0.1:8000",
            got="something else",
            way_out="Name the scheme, the host and, where it is not the usual one, the port.",
        )
    if url.userinfo:
        raise OptionError(
            "server",
            expected="an address without a name or password",
            got="one with them",
            way_out="The service knows callers by their key.",
        )
    return url


def _checked_key(key: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise OptionError(
            "key",
            expected="letters, digits and signs without spaces, as the operator handed it out",
            got="nothing" if not key else "other characters",
            way_out="Copy it again, or ask for a new one.",
        )
    return key
