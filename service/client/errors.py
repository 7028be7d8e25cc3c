"""What can go wrong between a caller and the service, as a branch of the project's error tree.

::

    SegMambaError (model_core.errors)
    └── ClientError
        ├── ServerRefused        the service said no; carries its problem document
        ├── ServerUnreachable    no answer, asked again as long as patience allows
        ├── UnknownAnswerError   an answer that is none of this service's
    ├── PlaceUnreachable     the storage of images or results does not answer, or refuses
        └── WaitTimeoutError     the job had not ended in time; it goes on at the server

No message holds a key, a path or a file's name.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from model_core.errors import SegMambaError
from service.schemas import Problem

FOREIGN_TYPE: Final = "about:blank"
"""The type of a problem that the service itself did not write (RFC 9457, section 4.2.1)."""
_LATER: Final = frozenset({502, 503, 504})


class ClientError(SegMambaError):
    """The service was asked and the caller has not got what it wanted."""


class ServerRefused(ClientError):  # noqa: N818 - the server's word, not a failure of the client
    """The service answered with a refusal.

    Args:
        problem: its problem document.
        retry_after: seconds after which it wants to be asked again, where it said so.
    """

    tries: int = 1
    """How often the service was asked; more than once where an answer was lost before."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(problem, retry_after)
        self.problem = problem
        self.retry_after = retry_after

    def __str__(self) -> str:
        way_out = self.way_out or ""
        more = "" if way_out in self.problem.detail else f" {way_out}"
        return f"the server refused ({self.cause}): {self.problem.detail}{more}"

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def cause(self) -> str:
        """The kind of problem: the last part of its type, or the status of a foreign answer."""
        if self.problem.type == FOREIGN_TYPE:
            return f"HTTP {self.status}"
        return self.problem.type.rpartition(":")[2]

    @property
    def field(self) -> str | None:
        """The form field or option at fault."""
        return self.problem.field

    @property
    def way_out(self) -> str | None:
        """What the caller can do about it."""
        return self.problem.way_out

    @property
    def temporary(self) -> bool:
        """Whether the same request may be answered later.

        502, 503 and 504 from something in front of the service are; the service's own 503 only
        where it says when, since it also means "more memory than there is".
        """
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            return True
        foreign = self.problem.type == FOREIGN_TYPE
        return self.status in _LATER and (foreign or self.retry_after is not None)


class ServerUnreachable(ClientError):  # noqa: N818 - reads as what is the case
    """No answer came, however often it was asked for."""


class UnknownAnswerError(ClientError):
    """An answer came that this service does not give: is another one at that address?"""


class PlaceUnreachable(ClientError):  # noqa: N818 - reads as what is the case
    """The storage that images come from, or results go to, does not answer, or refuses."""


class WaitTimeoutError(ClientError, TimeoutError):
    """The job had not ended when the time was up; it goes on at the server."""
