"""Takes the pictures of the page that the documents show: every state, from a running service.

::

    segmamba serve
    python -m tests.page.screenshots http://127.0.0.1:8000
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image

from tests.page import steps
from tests.page.conftest import FLAGS
from tests.page.site import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

IMAGES: Final = Path(__file__).parents[2] / "docs" / "images"
LAPTOP: Final = {"width": 1280, "height": 720}
TABLET: Final = {"width": 820, "height": 1180}
PATIENCE: Final = 900_000
"""Milliseconds; mirrored passes on a busy machine take minutes."""


def open_page(browser: Browser, address: str, place: str, *, dark: bool = False) -> Page:
    """A page of its own."""
    page = browser.new_page(
        base_url=address, viewport=LAPTOP, color_scheme="dark" if dark else "light"
    )  # type: ignore[arg-type]  # playwright's own dictionary type
    page.set_default_timeout(PATIENCE)
    page.goto(place)
    return page


def take(page: Page, name: str, *, whole: bool = False) -> None:
    """Write one picture."""
    page.wait_for_timeout(1500)
    shot = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
    shot.save(IMAGES / f"page-{name}.png", optimize=True)


def of_a_study(page: Page) -> str:
    """From the empty page to a result; returns the job."""
    page.locator("#recent > *").first.wait_for()
    take(page, "start")
    page.locator("#sample").click()
    page.locator("#run:enabled").wait_for()
    take(page, "inspect", whole=True)
    page.locator("#options summary").first.click()
    job = steps.run(page, tta="fast", cache="false")
    page.locator("#windows[value='3'], #windows[value='4'], #windows[value='5']").first.wait_for()
    take(page, "running")
    page.locator("#readout[data-voxel]").wait_for()
    return job


def of_a_result(browser: Browser, address: str, job: str) -> None:
    """The result in its forms: light, dark, on a tablet, with disagreement."""
    page = open_page(browser, address, f"/#job={job}")
    steps.wait_for_picture(page)
    take(page, "result")
    page.locator("#figures-title").scroll_into_view_if_needed()
    page.locator("#files-title").scroll_into_view_if_needed()
    take(page, "figures")
    page.evaluate("scrollTo(0, 0)")
    page.locator("#disagreement").check()
    page.locator("#view").select_option("axial")
    take(page, "disagreement")
    page.set_viewport_size(TABLET)  # type: ignore[arg-type]  # likewise
    page.locator("#disagreement").uncheck()
    page.locator("#view").select_option("all")
    take(page, "tablet")
    page.close()
    dark = open_page(browser, address, f"/#job={job}", dark=True)
    steps.wait_for_picture(dark)
    dark.locator("input[value=flair]").check()
    take(dark, "dark")
    dark.close()


def of_a_comparison(page: Page) -> None:
    """Two answers on one study."""
    page.goto("/")
    page.locator("#sample").click()
    page.locator("#run:enabled").wait_for()
    page.locator("#compare-options summary").click()
    page.locator("#compare").click()
    steps.wait_for_picture(page)
    take(page, "compare", whole=True)


def main() -> None:
    """Take all of them."""
    from playwright.sync_api import sync_playwright

    address = sys.argv[1]
    steps.LONG = PATIENCE
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = open_page(browser, address, "/")
        job = of_a_study(page)
        of_a_result(browser, address, job)
        of_a_comparison(page)
        page.goto("/docs")
        page.locator("#routes details").first.wait_for()
        take(page, "docs")
        browser.close()


if __name__ == "__main__":
    main()
