"""Fixtures of the service's tests."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.service.fakes import running_app


@pytest.fixture(scope="module")
def small() -> Iterator[httpx.Client]:
    """A client of a running application with a fake segmenter and the usual settings."""
    with running_app() as client:
        yield client
