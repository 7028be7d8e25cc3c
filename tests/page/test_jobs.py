"""Jobs on their way: watched, cancelled, found again after a reload and after a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.page.conftest import watched
from tests.page.pretended import JOB, OTHER_JOB, Pretended, event, send
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


def test_results_that_come_too_late_are_not_shown(pretended: Pretended) -> None:
    page = pretended.page
    pretended.states[OTHER_JOB] = "running"
    pretended.hold = "/models/m$"
    page.goto(f"/#job={JOB}")
    late = pretended.wait_held()
    page.evaluate("job => { location.hash = `#job=${job}`; }", OTHER_JOB)
    wait_for(page, "running")
    pretended.answer(late)
    page.wait_for_timeout(300)
    assert OTHER_JOB[:8] in page.locator("#job-title").inner_text()
    assert page.locator("#results").inner_text() == ""
    assert page.locator("#job-viewer").inner_text() == ""


def test_a_late_answer_does_not_open_a_job_again(pretended: Pretended) -> None:
    page = pretended.page
    pretended.states[JOB] = "running"
    pretended.hold = "/events$"
    page.goto(f"/#job={JOB}")
    events = pretended.wait_held()
    pretended.hold = "/cancel$"
    page.locator("#cancel").click()
    cancelling = pretended.wait_held()
    ended = event(pretended.job(JOB, state="succeeded"))
    events.fulfill(body=ended, content_type="text/event-stream")
    wait_for(page, "succeeded")
    send(cancelling, pretended.job(JOB, state="running"))
    page.wait_for_timeout(200)
    assert page.locator("#state").get_attribute("data-state") == "succeeded"
    assert page.locator("#windows").is_hidden()


@pytest.mark.parametrize("status", [429, 503])
def test_a_job_is_asked_for_again_when_the_service_says(pretended: Pretended, status: int) -> None:
    page = pretended.page
    pretended.states[JOB] = "running"
    pretended.refusals[f"/jobs/{JOB}$"] = (status, 2)
    page.goto(f"/#job={JOB}")
    said = page.locator("#trouble").filter(has_text=f"Refused by {status}. Trying again in 2 s.")
    said.wait_for()
    page.wait_for_timeout(1000)
    assert len([path for _, path in pretended.asked if path == f"/jobs/{JOB}"]) == 1
    pretended.refusals.clear()
    wait_for(page, "running")
    assert page.locator("#problem").is_hidden()


def test_a_comparison_is_asked_for_again(pretended: Pretended) -> None:
    page = pretended.page
    pretended.listed = [pretended.job(JOB, state="failed", batch="cmp-1")]
    pretended.refusals[r"^/jobs\?batch"] = (429, 1)
    page.goto("/#batch=cmp-1")
    page.locator("#compare-state").filter(
        has_text="Refused by 429. Trying again in 1 s."
    ).wait_for()
    pretended.refusals.clear()
    page.locator("#compare-state table").wait_for()
    assert page.locator("#problem").is_hidden()
