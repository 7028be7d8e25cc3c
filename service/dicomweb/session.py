"""A careful connection to one archive: credentials, retries, caps, and silence about patients.

The protocol is dicomweb-client's. Around it: only what may be repeated is repeated (a GET, or a
connection that was never made), no redirect is followed, every answer is counted while it comes and
cut off at its cap, and the log lines of the libraries, which name studies, are switched off.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

from model_core.dicom.quiet import quiet_pydicom
from service.dicomweb.errors import (
    ArchiveAnswerError,
    ArchiveRefused,
    ArchiveUnreachable,
    StudyTooLargeError,
)

if TYPE_CHECKING:
    import requests
    from dicomweb_client.web import DICOMwebClient

    from service.dicomweb.servers import DicomwebServer

CONNECT_SECONDS: Final = 10.0
TRIES_AGAIN: Final = 3
BACK_OFF_SECONDS: Final = 0.25
"""Before the second try none, then twice as long each time."""
LONGEST_RETRY_AFTER: Final = 10
"""Seconds; an archive that asks for more patience is not waited for."""
Answer = TypeVar("Answer")
_LATER: Final = (429, 502, 503, 504)
_LOUD: Final = ("dicomweb_client", "urllib3")


@dataclass(kw_only=True)
class Budget:
    """What all answers of one connection may take together, and each alone.

    Attributes:
        archive: name of the archive, for messages.
        total_bytes: still allowed, all answers together.
        answer_bytes: allowed for each answer.
        deadline: when the last byte has to be here, on the monotonic clock.
        status: of the latest answer.
    """

    archive: str
    total_bytes: int
    answer_bytes: int
    deadline: float
    status: int = field(default=0, init=False)

    def count(self, size: int, so_far: int) -> int:
        """Take note of bytes that came, and give the sum of this answer.

        Raises:
            StudyTooLargeError: they are too many.
            ArchiveUnreachable: they are too late.
        """
        self.total_bytes -= size
        so_far += size
        if self.total_bytes < 0 or so_far > self.answer_bytes:
            raise StudyTooLargeError(
                "study",
                expected="a study within the limits on bytes",
                got="a larger one",
                way_out="Name the series that are wanted.",
            )
        if time.monotonic() > self.deadline:
            raise ArchiveUnreachable(self.archive, "its answers take too long. Try again later.")
        return so_far


@contextmanager
def connection(server: DicomwebServer, budget: Budget) -> Iterator[DICOMwebClient]:
    """Open a connection whose errors are this project's.

    Raises:
        ArchiveUnreachable: no answer, or not all of it.
        ArchiveRefused: the archive said no.
        ArchiveAnswerError: the answer is not DICOMweb.
        StudyTooLargeError: the answer is larger than the budget allows.
    """
    from dicomweb_client.web import DICOMwebClient

    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _session(server) as session, quiet_pydicom(), _translated(server.name):
        client = DICOMwebClient(
            server.url,
            session=session,
            callback=lambda response, *_, **__: _counted(response, budget),
            timeout=(CONNECT_SECONDS, server.timeout_s),
            permissive_uid=True,  # its strict rule refuses UIDs that old archives are full of
        )
        # it would send what it had posted again, whatever happened, and with an empty body
        client.set_http_retry_params(retry=False)
        yield client


def _session(server: DicomwebServer) -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        total=TRIES_AGAIN,
        redirect=0,
        allowed_methods={"GET"},
        status_forcelist=_LATER,
        backoff_factor=BACK_OFF_SECONDS,
        retry_after_max=LONGEST_RETRY_AFTER,
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    session.max_redirects = 0
    # a JSON receipt; and no packed answers, which could be bombs
    session.headers.update({"Accept": "application/dicom+json", "Accept-Encoding": "identity"})
    session.auth = _authorise(server)
    session.verify = os.environ.get("SSL_CERT_FILE") or True
    return session


def _authorise(server: DicomwebServer) -> Any:
    from requests.auth import HTTPBasicAuth

    basic = HTTPBasicAuth((server.user or "").encode(), (server.password or "").encode())

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        # dicomweb-client names the host without its port
        request.headers.pop("Host", None)
        if server.token is not None:
            request.headers["Authorization"] = f"Bearer {server.token}"
        elif server.user is not None:
            return basic(request)
        return request

    return sign


def _counted(response: requests.Response, budget: Budget) -> requests.Response:
    """Let the body of an answer be counted as it comes."""
    budget.status = response.status_code
    stream = response.raw.stream

    def counting(*args: Any, **kwargs: Any) -> Iterator[bytes]:
        so_far = 0
        for chunk in stream(*args, **kwargs):
            so_far = budget.count(len(chunk), so_far)
            yield chunk

    response.raw.stream = counting
    return response


@contextmanager
def _translated(name: str) -> Iterator[None]:
    from pydicom.errors import InvalidDicomError
    from requests import HTTPError, RequestException, TooManyRedirects

    try:
        yield
    except HTTPError as error:
        raise refusal(name, status_of(error)) from None
    except TooManyRedirects:
        raise ArchiveRefused(
            name, "it sends elsewhere, and redirects are not followed. Correct its address.", 302
        ) from None
    except (
        InvalidDicomError, ValueError, LookupError, TypeError, AttributeError, RecursionError
    ):  # fmt: skip
        raise ArchiveAnswerError(
            name, "its answer is not DICOMweb. Check that its address is the root of the services."
        ) from None
    except RequestException as error:
        raise ArchiveUnreachable(name, _why(error)) from None


def whole(ask: Callable[[], Answer]) -> Answer:
    """Ask for something again if its answer broke off; only for what may be repeated."""
    from requests.exceptions import ChunkedEncodingError

    for _ in range(TRIES_AGAIN - 1):
        try:
            return ask()
        except ChunkedEncodingError:
            continue
    return ask()


def status_of(error: requests.HTTPError) -> int:
    """Give the HTTP status that an error is about."""
    return 0 if error.response is None else error.response.status_code


def refusal(name: str, status: int) -> ArchiveRefused:
    """Say in words what a status of an archive means."""
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        message = f"it does not accept the credentials (HTTP {status}). The operator sets them."
    elif status in _LATER:
        message = f"it is busy or away (HTTP {status}). Try again later."
    else:
        message = f"it refused the request (HTTP {status})."
    return ArchiveRefused(name, message, status)


def _why(error: Exception) -> str:
    from requests.exceptions import ChunkedEncodingError, SSLError, Timeout

    if isinstance(error, SSLError):
        return "its certificate is not trusted. SSL_CERT_FILE can name another authority."
    if isinstance(error, Timeout):
        return "it does not answer in time. Try again later."
    if isinstance(error, ChunkedEncodingError):
        return "the connection broke in the middle of an answer. Try again."
    return "it cannot be reached. Check that it runs and that its address is right."
