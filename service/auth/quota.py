"""What one caller may have at a time, asked before a job is taken in."""

from __future__ import annotations

from typing import Final

from service.auth.principal import Principal
from service.errors import StorageQuotaError, TooManyJobsError

MEBIBYTE: Final = 1024 * 1024
JOBS_RETRY_SECONDS: Final = 15
"""About half of a segmentation: by then one of several may have ended."""


def check_quota(
    principal: Principal, *, open_jobs: int, stored_bytes: int, incoming_bytes: int
) -> None:
    """Refuse what would be too much.

    Two submissions at the same moment may both pass: a quota is a fence and no wall.

    Args:
        principal: who asks.
        open_jobs: how many of its jobs wait or run, the new one left out.
        stored_bytes: what is kept of its jobs.
        incoming_bytes: what the new job brings.

    Raises:
        TooManyJobsError: it has as many open jobs as it may.
        StorageQuotaError: there would be more stored than may be.
    """
    jobs, megabytes = principal.limits.open_jobs, principal.limits.storage_mb
    if jobs is not None and open_jobs >= jobs:
        raise TooManyJobsError(
            f"{open_jobs} of your jobs wait or run, and {jobs} may. Wait for one, or cancel one.",
            retry_after=JOBS_RETRY_SECONDS,
        )
    if megabytes is not None and stored_bytes + incoming_bytes > megabytes * MEBIBYTE:
        raise StorageQuotaError(
            f"Your jobs keep {_mebibytes(stored_bytes)} MiB, this one brings "
            f"{_mebibytes(incoming_bytes)} MiB, and {megabytes} MiB may be kept. "
            "Delete jobs whose results you have."
        )


def _mebibytes(size: int) -> int:
    return -(-size // MEBIBYTE)
