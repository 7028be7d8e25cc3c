"""The Accept header chooses the answer's shape as RFC 9110 says."""

from __future__ import annotations

import pytest

from service.errors import NotAcceptableError
from service.negotiation import choose_media_type

GZIP, JSON = "application/gzip", "application/json"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, GZIP),
        ("", GZIP),
        ("*/*", GZIP),
        ("application/*", GZIP),
        (JSON, JSON),
        ("Application/JSON", JSON),
        ("application/json; charset=utf-8", JSON),
        (f"{GZIP}, {JSON}", GZIP),
        (f"{JSON}, {GZIP}", GZIP),
        (f"{GZIP};q=0.4, {JSON};q=0.9", JSON),
        (f"{GZIP};q=0, */*", JSON),
        (f"{JSON};q=0, application/*;q=0.1", GZIP),
        (f"*/*;q=0.9, {JSON};q=0.5", GZIP),
        (f"text/html, {JSON};q=0.001", JSON),
        (f"{GZIP};q=nonsense, {JSON};q=0.2", JSON),
        (f"{GZIP};q=7, {JSON};q=0.2", JSON),
        (f"nonsense, ;;, {JSON}", JSON),
    ],
)
def test_the_best_liked_offer_is_chosen(accept: str | None, chosen: str) -> None:
    assert choose_media_type(accept, (GZIP, JSON)) == chosen


@pytest.mark.parametrize("accept", ["text/html", "image/*", f"{GZIP};q=0", "*/*;q=0", ";q=1"])
def test_nothing_acceptable_is_refused_with_the_offers(accept: str) -> None:
    with pytest.raises(NotAcceptableError, match="application/gzip, application/json"):
        choose_media_type(accept, (GZIP, JSON))
