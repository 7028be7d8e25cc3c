"""A report as PDF, by WeasyPrint: the same page, as its print styles lay it out on A4."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from model_core.errors import SegMambaError

INSTALL: Final = (
    "Install the extra pdf (pip install 'segmamba-service[pdf]') and Pango (Debian and Ubuntu: "
    "apt-get install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0). A browser's "
    "print-to-PDF gives the same pages."
)


class PdfError(SegMambaError):
    """What makes PDF files is not installed here; the message says what is missing."""


def pdf_of(html: str) -> bytes:
    """Lay out a report as PDF.

    Raises:
        PdfError: WeasyPrint or the library that it draws with is missing.
    """
    weasyprint = _weasyprint()
    only_within = weasyprint.urls.URLFetcher(allowed_protocols=("data",))
    document = weasyprint.HTML(string=html, url_fetcher=only_within)
    with _silent():
        pages: bytes = document.write_pdf(pdf_tags=True)
    return pages


@contextmanager
def _silent() -> Iterator[None]:
    """Without WeasyPrint's warnings about styles for screens, which it rightly passes over."""
    logger = logging.getLogger("weasyprint")
    former = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(former)


def _weasyprint() -> Any:
    try:
        import weasyprint.urls
    except ImportError:
        raise PdfError(f"WeasyPrint is not installed, so no PDF can be made. {INSTALL}") from None
    except OSError:  # it is there, and Pango is not
        raise PdfError(f"Pango cannot be loaded, so no PDF can be made. {INSTALL}") from None
    return weasyprint
