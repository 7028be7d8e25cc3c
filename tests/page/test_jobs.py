"""Jobs on their way: watched, cancelled, found again after a reload and after a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.page.conftest import watched
from tests.page.site import SLOW, Site
from tests.page.steps import choose, run, wait_for, wait_for_picture

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def start_slow(page: Page, site: Site) -> str:
    """A job that runs for seconds, once its windows are counted on the page."""
    page.goto("/")
    choose(page, list(site.images.values()))
    page.locator("details summary").first.click()
    job = run(page, model=SLOW, cache="false")
    page.locator("#state-detail").filter(has_text="window ").wait_for()
    return job


def windows(page: Page) -> tuple[int, int]:
    """Done and in all, as the bar has them."""
    done, total = page.locator("#windows").evaluate("bar => [bar.value, bar.max]")
    return int(done), int(total)


def test_progress_is_watched_and_a_job_is_cancelled(page: Page, site: Site) -> None:
    job = start_slow(page, site)
    first = windows(page)
    assert first[1] > 10
    page.locator(f"#windows[value='{first[0]}']").wait_for(state="detached")
    second = windows(page)
    assert second[0] > first[0]
    assert "left" in page.locator("#state-detail").inner_text()
    page.locator("#cancel").click()
    wait_for(page, "cancelled")
    assert site.client.get(f"/jobs/{job}").json()["state"] == "cancelled"
    assert page.locator("#cancel").is_hidden()


def test_a_waiting_job_has_its_place_and_a_reload_finds_it(page: Page, site: Site) -> None:
    ahead = start_slow(page, site)
    files = [(name, (name, path.read_bytes())) for name, path in site.images.items()]
    waiting = site.client.post("/jobs", files=files, data={"model": SLOW, "cache": "false"}).json()
    page.goto(f"/#job={waiting['id']}")
    page.get_by_text("1st in the queue").wait_for()
    page.reload()
    page.get_by_text("1st in the queue").wait_for()
    site.client.post(f"/jobs/{ahead}/cancel")
    wait_for(page, "running")
    page.reload()
    page.locator("#state-detail").filter(has_text="window ").wait_for()
    site.client.post(f"/jobs/{waiting['id']}/cancel")
    wait_for(page, "cancelled")


def test_a_job_that_is_not_there_is_said(page: Page) -> None:
    page.goto(f"/#job={'0' * 32}")
    page.get_by_text("No job or batch of yours has this name").wait_for()


def test_a_failed_job_says_why(page: Page, site: Site) -> None:
    files = [(name, (name, b"no image" * 50)) for name in site.images]
    job = site.client.post("/jobs", files=files).json()
    page.goto(f"/#job={job['id']}")
    wait_for(page, "failed")
    assert "NIfTI" in page.locator("#state-detail").inner_text()


def test_the_service_restarts_in_mid_job(browser: Browser, tmp_path: Path) -> None:
    site = Site(tmp_path)
    try:
        site.start()
        with watched(browser, site) as page:
            job = start_slow(page, site)
            site.stop()
            page.get_by_text("The connection is lost").wait_for()
            site.start()
            page.locator("#state-detail").filter(has_text="begun 2 times").wait_for()
            wait_for(page, "succeeded")
            wait_for_picture(page)
            assert site.client.get(f"/jobs/{job}").json()["attempts"] == 2
    finally:
        site.close()


def test_a_key_is_asked_for_kept_for_the_tab_and_sent(browser: Browser, tmp_path: Path) -> None:
    site = Site(tmp_path, auth="keys")
    key = site.make_key()
    try:
        site.start()
        with watched(browser, site) as page:
            page.goto("/")
            page.locator("#key-dialog[open]").wait_for()
            page.locator("#key").fill("sgm_wrong")
            page.keyboard.press("Enter")
            page.locator("#key-refused").wait_for()
            page.locator("#key").fill(key)
            page.keyboard.press("Enter")
            page.get_by_text("None yet").wait_for()
            choose(page, list(site.images.values()))
            run(page)
            wait_for(page, "succeeded")
            wait_for_picture(page)
            with page.expect_download() as waiting:
                page.get_by_role("link", name="Figures (CSV)").click()
            assert b"volume_ml" in waiting.value.path().read_bytes()
            assert key not in page.url
            assert page.evaluate("Object.values(localStorage).join()") == ""
            page.locator("#forget-key").click()
            page.locator("#key-dialog[open]").wait_for()
    finally:
        site.close()
