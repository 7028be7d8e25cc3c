"""Takes the pictures of the page that the documents show: every state, from a running service.

::

    segmamba serve
    python -m tests.page.screenshots http://127.0.0.1:8000
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
from PIL import Image

from model_core.phantom import write_phantom
from model_core.types import CONTRASTS
from tests.dicom_studies import write_study
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


def of_other_studies(page: Page, folder: Path) -> None:
    """Three images where four are needed; series of a scanner."""
    write_phantom(folder / "small", shape=(64, 64, 48))
    page.goto("/")
    images = sorted((folder / "small").glob("*_t*.nii.gz"))
    page.locator("#files").set_input_files([str(image) for image in images])
    page.locator("#found-facts li").first.wait_for()
    take(page, "missing", whole=True)
    page.goto("/?")
    write_study(folder / "dicom")
    page.locator("#folder").set_input_files(str(folder / "dicom"))
    page.locator("#run:enabled").wait_for()
    take(page, "series", whole=True)


def of_other_ends(page: Page, client: httpx.Client, folder: Path) -> None:
    """Waiting, cancelled, failed, and asked for a key."""

    def send(content: dict[str, bytes], **options: str) -> str:
        files = [(name, (name, one)) for name, one in content.items()]
        return str(client.post("/jobs", files=files, data=options).raise_for_status().json()["id"])

    (case,) = {path.name.rsplit("_", 1)[0] for path in (folder / "small").glob("*_flair.nii.gz")}
    study = {c: (folder / "small" / f"{case}_{c}.nii.gz").read_bytes() for c in CONTRASTS}
    ahead, waiting = (send(study, tta="full", cache="false") for _ in range(2))
    page.goto(f"/#job={waiting}")
    page.get_by_text("1st in the queue").wait_for()
    take(page, "queued")
    page.locator("#cancel").click()
    steps.wait_for(page, "cancelled")
    take(page, "cancelled")
    client.post(f"/jobs/{ahead}/cancel").raise_for_status()
    page.goto(f"/#job={send(dict.fromkeys(CONTRASTS, b'no image' * 50))}")
    steps.wait_for(page, "failed")
    take(page, "failed")
    page.evaluate("document.getElementById('key-dialog').showModal()")
    take(page, "key")


def main() -> None:
    """Take all of them."""
    from playwright.sync_api import sync_playwright

    address = sys.argv[1]
    steps.LONG = PATIENCE
    with (
        sync_playwright() as playwright,
        httpx.Client(base_url=address, timeout=60) as client,
        tempfile.TemporaryDirectory() as made,
    ):
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        page = open_page(browser, address, "/")
        job = of_a_study(page)
        of_a_result(browser, address, job)
        of_a_comparison(page)
        page.goto("/docs")
        page.locator("#routes details").first.wait_for()
        take(page, "docs")
        of_other_studies(page, Path(made))
        of_other_ends(page, client, Path(made))
        browser.close()


if __name__ == "__main__":
    main()
