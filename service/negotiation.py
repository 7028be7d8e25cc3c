"""Content negotiation by the Accept header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Sequence

from service.errors import NotAcceptableError


def choose_media_type(accept: str | None, offers: Sequence[str]) -> str:
    """The offer that the caller likes best; the earlier offer where it likes two equally.

    Args:
        accept: the Accept header as sent; None or blank accepts anything.
        offers: media types that can be produced, the preferred one first.

    Raises:
        NotAcceptableError: every offer is refused by the header.
    """
    if accept is None or not accept.strip():
        return offers[0]
    ranges = _parse_accept(accept)
    qualities = [_quality(offer, ranges) for offer in offers]
    best = max(qualities)
    if best <= 0:
        raise NotAcceptableError(
            f"Accept allows none of {', '.join(offers)}. Name one of them, or leave Accept out."
        )
    return offers[qualities.index(best)]


def _parse_accept(accept: str) -> list[tuple[str, float]]:
    ranges = []
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                quality = _parse_quality(value.strip())
        if "/" in media:
            ranges.append((media, quality))
    return ranges


def _parse_quality(text: str) -> float:
    """A weight from 0 to 1; a malformed one refuses, since it asks for nothing that we know."""
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0


def _quality(offer: str, ranges: list[tuple[str, float]]) -> float:
    """The weight of the most specific range that covers the offer; 0 where none does."""
    for pattern in (offer, offer.split("/")[0] + "/*", "*/*"):
        weights = [quality for media, quality in ranges if media == pattern]
        if weights:
            return max(weights)
    return 0.0
