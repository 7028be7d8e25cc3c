"""Ctrl-C asks first, insists second, and is itself again afterwards."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from model_core.cli.interrupt import stop_on_interrupt


@pytest.fixture(autouse=True)
def python_is_told() -> Iterator[None]:
    """A shell's background job begins with Ctrl-C ignored; these tests begin with Python's own."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


def test_the_first_interrupt_asks_and_the_second_raises() -> None:
    former = signal.getsignal(signal.SIGINT)
    with stop_on_interrupt() as cancelled:
        assert not cancelled()
        signal.raise_signal(signal.SIGINT)
        assert cancelled()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is former
