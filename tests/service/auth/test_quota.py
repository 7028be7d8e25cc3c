"""A quota lets the last one in and refuses the next, with the reason."""

from __future__ import annotations

import pytest

from service.auth.principal import ANONYMOUS, Limits, Principal
from service.auth.quota import MEBIBYTE, check_quota
from service.errors import StorageQuotaError, TooManyJobsError
from service.problems import problem_kind


def limited(**limits: int) -> Principal:
    return Principal(id="a", scopes=frozenset({"segment"}), limits=Limits(**limits))


def test_jobs_up_to_the_limit_may_be_open() -> None:
    check_quota(limited(open_jobs=2), open_jobs=1, stored_bytes=0, incoming_bytes=1)
    with pytest.raises(TooManyJobsError, match="2 may") as refused:
        check_quota(limited(open_jobs=2), open_jobs=2, stored_bytes=0, incoming_bytes=1)
    assert refused.value.retry_after >= 1
    assert problem_kind(refused.value).status == 429


def test_storage_may_be_filled_to_the_last_byte() -> None:
    full = 5 * MEBIBYTE
    check_quota(limited(storage_mb=5), open_jobs=9, stored_bytes=full - 7, incoming_bytes=7)
    with pytest.raises(StorageQuotaError, match="5 MiB may be kept") as refused:
        check_quota(limited(storage_mb=5), open_jobs=9, stored_bytes=full - 7, incoming_bytes=8)
    assert problem_kind(refused.value).status == 507


def test_without_limits_anything_goes() -> None:
    check_quota(ANONYMOUS, open_jobs=10**6, stored_bytes=10**15, incoming_bytes=10**12)
