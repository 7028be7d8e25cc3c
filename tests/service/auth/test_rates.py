"""The rate of one caller over a moving minute, without a word about the others."""

from __future__ import annotations

import pytest

from service.auth.principal import Limits, Principal
from service.auth.rates import RateCounter
from service.errors import TooManyRequestsError


def caller(name: str, rate: int | None) -> Principal:
    return Principal(id=name, scopes=frozenset({"segment"}), limits=Limits(rate_per_minute=rate))


def test_one_too_many_is_refused_with_the_time_to_wait() -> None:
    counter = RateCounter()
    for _ in range(3):
        counter.count(caller("a", 3))
    with pytest.raises(TooManyRequestsError, match="3 requests") as refused:
        counter.count(caller("a", 3))
    assert 55 <= refused.value.retry_after <= 60


def test_callers_are_counted_apart_and_counters_too() -> None:
    counter = RateCounter()
    counter.count(caller("a", 1))
    counter.count(caller("b", 1))
    RateCounter().count(caller("a", 1))
    with pytest.raises(TooManyRequestsError):
        counter.count(caller("b", 1))


def test_without_a_rate_nothing_is_counted() -> None:
    counter = RateCounter()
    for _ in range(100):
        counter.count(caller("a", None))


def test_the_window_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000_000.0]
    monkeypatch.setattr("time.time", lambda: clock[0])
    counter = RateCounter()
    counter.count(caller("a", 2))
    clock[0] += 50
    counter.count(caller("a", 2))
    with pytest.raises(TooManyRequestsError) as refused:
        counter.count(caller("a", 2))
    assert refused.value.retry_after == 10
    clock[0] += 11  # the first is older than a minute, the second is not
    counter.count(caller("a", 2))
    with pytest.raises(TooManyRequestsError):
        counter.count(caller("a", 2))
