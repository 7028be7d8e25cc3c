"""What can go wrong between the service and an archive, as branches of the project's error tree.

::

    SegMambaError (model_core.errors)
    ├── InputError
    │   ├── StudyNotFoundError   the archive has no such study or series
    │   └── StudyTooLargeError   more images or bytes than may be pulled
    └── ArchiveError             the archive is the reason, not the caller
        ├── ArchiveUnreachable   no answer, or one that stopped in the middle
        ├── ArchiveRefused       it said no: to the credentials, or to the request
        └── ArchiveAnswerError   it gave an answer that is not DICOMweb

A message holds the archive's configured name and a status, never an address, a UID or its words.
"""

from __future__ import annotations

from model_core.errors import InputError, SegMambaError


class StudyNotFoundError(InputError):
    """The archive has no such study, or the study no such series."""


class StudyTooLargeError(InputError):
    """The study has more images or bytes than may be pulled; nothing of it was kept."""


class ArchiveError(SegMambaError):
    """An archive was asked and did not do what was wanted.

    Args:
        archive: its configured name.
        message: what happened and what can be done, for people.
    """

    def __init__(self, archive: str, message: str) -> None:
        super().__init__(archive, message)
        self.archive = archive
        self.message = message

    def __str__(self) -> str:
        return f"archive {self.archive}: {self.message}"


class ArchiveUnreachable(ArchiveError):  # noqa: N818 - reads as what is the case
    """No whole answer came in time."""


class ArchiveRefused(ArchiveError):  # noqa: N818 - the archive's word, not a failure here
    """The archive answered with a refusal.

    Args:
        archive: its configured name.
        message: what happened and what can be done, for people.
        status: the HTTP status.
    """

    def __init__(self, archive: str, message: str, status: int) -> None:
        super().__init__(archive, message)
        self.args = (archive, message, status)
        self.status = status


class ArchiveAnswerError(ArchiveError):
    """The answer is not what PS3.18 says it should be: does another program live there?"""
