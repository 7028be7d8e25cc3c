"""One run for all tests of its account."""

from __future__ import annotations

import pytest

from tests.model_core.provenance.runs import FirstRun, first_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    """A run that no test may change."""
    return first_run(tmp_path_factory.mktemp("run"))
