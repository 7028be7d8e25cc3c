"""The same report as PDF, or a clear word about what is missing."""

from __future__ import annotations

import re
import sys
import zlib
from contextlib import suppress

import pytest

from model_core.report.account import Account
from model_core.report.pdf import INSTALL, PdfError, pdf_of
from model_core.report.study import study_report
from tests.model_core.report.studies import t1ce, tumour


def test_what_is_missing_is_told_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(PdfError, match="WeasyPrint is not installed") as caught:
        pdf_of("<p>")
    assert INSTALL in str(caught.value)


def inflated(pages: bytes) -> bytes:
    """The objects of a PDF as they stand, and those that are packed into streams."""
    packed = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pages, re.DOTALL)
    found = [pages]
    for one in packed:
        with suppress(zlib.error):
            found.append(zlib.decompress(one))
    return b"\n".join(found)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of libraries below WeasyPrint
def test_a_report_becomes_pages_of_a4_with_its_pictures_and_words() -> None:
    image = t1ce()
    html = study_report(tumour(image.grid, 20.0), {"t1ce": image, "flair": image}, Account())
    try:
        pages = pdf_of(html)
    except PdfError as error:
        pytest.skip(str(error))
    assert pages.startswith(b"%PDF-")
    pages = inflated(pages)
    assert re.search(rb"/MediaBox \[ ?0 0 595\.\d+ 841\.\d+", pages)
    assert pages.count(b"/Subtype /Image") >= 1
    assert b"/StructTreeRoot" in pages, "tagged, for who listens to it"
    assert b"/JavaScript" not in pages
    assert b"/URI" not in pages


@pytest.mark.slow
def test_a_page_that_points_outside_fetches_nothing() -> None:
    html = "<img src='file:///etc/hostname'><img src='http://127.0.0.1:9/x.png'><p>words</p>"
    try:
        pages = pdf_of(html)
    except PdfError as error:
        pytest.skip(str(error))
    assert b"/Subtype /Image" not in inflated(pages)
