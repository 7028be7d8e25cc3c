"""Ctrl-C asks first, insists second, and is itself again afterwards."""

from __future__ import annotations

import signal

import pytest

from model_core.cli.interrupt import stop_on_interrupt


def test_the_first_interrupt_asks_and_the_second_raises() -> None:
    former = signal.getsignal(signal.SIGINT)
    with stop_on_interrupt() as cancelled:
        assert not cancelled()
        signal.raise_signal(signal.SIGINT)
        assert cancelled()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is former
