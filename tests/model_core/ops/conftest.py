from __future__ import annotations

import pytest

from model_core.ops import available_backends

FAST_BACKENDS = ("native", "torch")


@pytest.fixture(params=FAST_BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that runs on this machine's CPU and claims to equal the reference."""
    state = available_backends()[request.param]
    if state != "available":
        pytest.skip(f"backend {request.param}: {state}")
    return str(request.param)
