"""Everybody can use it: axe finds nothing serious, the keyboard is enough, small screens do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.page.conftest import HINT, watched
from tests.page.site import FAST, OTHER, Site
from tests.page.steps import choose, wait_for, wait_for_picture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def complaints(page: Page) -> list[str]:
    """What axe finds that is serious or worse."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason=f"{HINT}; pip install axe-playwright-python"
    )
    told = axe.Axe().run(page, options=RULES).response
    assert len(told["passes"]) > 15, "axe did not look"
    found: list[dict[str, Any]] = told["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.fixture(scope="module")
def compared(site: Site) -> str:
    """The token of a comparison of two models."""
    batch = f"cmp-{7:016x}"
    files = [(name, (name, path.read_bytes())) for name, path in site.images.items()]
    for model in (FAST, OTHER):
        options = {"model": model, "batch": batch, "images": "true"}
        site.client.post("/jobs", files=files, data=options).raise_for_status()
    return batch


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_serious(
    browser: Browser, site: Site, done: str, compared: str, colours: str
) -> None:
    with watched(browser, site, color_scheme=colours) as page:
        page.goto("/")
        assert page.locator("html").get_attribute("data-theme") == colours
        choose(page, list(site.images.values()))
        for summary in page.locator("#options summary").all():
            summary.click()
        page.locator("#recent table").wait_for()
        assert complaints(page) == []
        page.goto(f"/#job={done}")
        wait_for_picture(page)
        assert complaints(page) == []
        page.goto(f"/#batch={compared}")
        wait_for_picture(page)
        assert complaints(page) == []
        page.goto("/docs")
        page.locator("#routes details").first.wait_for()
        page.locator("#routes summary").nth(5).click()
        assert complaints(page) == []


def test_the_keyboard_is_enough(page: Page, site: Site) -> None:
    page.goto("/")
    page.locator("#recent > *").first.wait_for()
    page.keyboard.press("Tab")
    reached = []
    for _ in range(12):
        reached.append(
            page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")
        )
        page.keyboard.press("Tab")
    assert {"files", "folder", "sample"} <= set(reached), reached
    page.locator("#sample").focus()
    page.keyboard.press("Enter")
    page.locator("#run:enabled").wait_for()
    page.locator("#run").focus()
    page.keyboard.press("Enter")
    wait_for(page, "succeeded")
    wait_for_picture(page)
    before = page.locator("#readout").get_attribute("data-voxel")
    page.locator("#axis-0").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#readout").get_attribute("data-voxel") != before
    page.locator("input[data-label=ED]").focus()
    page.keyboard.press("Space")
    assert not page.locator("input[data-label=ED]").is_checked()


def test_the_way_past_the_menu_keeps_the_job_in_the_address(page: Page, done: str) -> None:
    page.goto(f"/#job={done}")
    wait_for_picture(page)
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.url.endswith(f"#job={done}")


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (820, 1180), (390, 844)])
def test_nothing_is_cut_off(
    browser: Browser, site: Site, done: str, width: int, height: int
) -> None:
    size: Any = {"width": width, "height": height}
    with watched(browser, site, viewport=size) as page:
        for place in ("/", f"/#job={done}", "/docs"):
            page.goto(place)
            if "job" in place:
                wait_for_picture(page)
            wide, shown = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide <= shown, place
            if "job" in place:
                box = page.locator("#gl").bounding_box()
                assert box is not None
                assert box["width"] >= min(width, 700) * 0.85
                assert box["height"] >= 350


def test_colours_are_chosen_and_kept(page: Page) -> None:
    page.goto("/")
    page.locator("#theme").select_option("dark")
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert page.locator("#theme").input_value() == "dark"
