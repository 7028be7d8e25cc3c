"""Several models on one study, side by side."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.page.pretended import JOB, OTHER_JOB, Pretended, block, packed
from tests.page.site import FAST, OTHER, Site
from tests.page.steps import choose, picture, served, shown_rows, wait_for_picture

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}


def test_models_are_compared_on_one_study(page: Page, site: Site) -> None:
    page.goto("/")
    choose(page, list(site.images.values()))
    page.locator("#compare-options summary").click()
    for box in page.locator("input[name=set]").all():
        box.set_checked(box.input_value() in (f'{{"model":"{FAST}"}}', f'{{"model":"{OTHER}"}}'))
    page.locator("#compare").click()
    wait_for_picture(page)
    found = re.search(r"#batch=(cmp-[0-9a-f]{16})$", page.url)
    assert found
    jobs = {
        job["model"]: job["id"] for job in site.client.get(f"/jobs?batch={found[1]}").json()["jobs"]
    }
    assert set(jobs) == {FAST, OTHER}

    reports = {
        name: site.client.get(f"/jobs/{job}/files/report.json").json() for name, job in jobs.items()
    }
    heads = page.locator("#compare-results thead").first.locator("th").all_inner_texts()
    order = [name for head in heads[1:] for name in jobs if head.startswith(name)]
    for name, *told in shown_rows(page, "#compare-results"):
        assert told == [f"{reports[model]['volumes_ml'][name]:.2f}" for model in order]

    maps = [np.asarray(served(site, jobs[model], "segmentation.nii.gz").dataobj) for model in order]
    (row,) = shown_rows(page, "#compare-results section:nth-of-type(2)")
    for told, values in zip(row[1:], REGIONS.values(), strict=True):
        one, other = (np.isin(found, values) for found in maps)
        assert float(told) == pytest.approx(
            2 * (one & other).sum() / (one.sum() + other.sum()), abs=6e-4
        )

    first = picture(page)
    page.locator("#overlay").select_option(index=1)
    second = picture(page)
    assert (np.abs(first.astype(int) - second).max(axis=2) > 20).mean() > 0.01


def test_one_model_is_nothing_to_compare(page: Page, site: Site) -> None:
    page.goto("/")
    choose(page, list(site.images.values()))
    page.locator("#compare-options summary").click()
    for box in page.locator("input[name=set]").all():
        box.set_checked(False)
    page.locator("#compare").click()
    page.get_by_text("Tick two or more to compare.").wait_for()


def images_asked(pretended: Pretended) -> list[str]:
    """The images that were fetched."""
    return [path for _, path in pretended.asked if path.endswith(".nii.gz")]


def test_a_batch_of_several_studies_is_no_comparison(pretended: Pretended) -> None:
    page = pretended.page
    pretended.sums[OTHER_JOB] = "1"
    pretended.listed = [pretended.job(JOB, batch="cohort"), pretended.job(OTHER_JOB, batch="cmp-1")]
    page.goto("/")
    links = page.get_by_role("link", name="its batch")
    links.first.wait_for()
    assert [link.get_attribute("href") for link in links.all()] == ["#batch=cmp-1"]
    page.goto("/#batch=cohort")
    page.locator("#problem").filter(has_text="are of different images").wait_for()
    assert page.locator("#compare-results").inner_text() == ""
    assert not images_asked(pretended)


def test_the_images_of_a_comparison_are_fetched_once(pretended: Pretended) -> None:
    for files in pretended.files.values():
        files["t1.nii.gz"] = packed(block(7))
    pretended.listed = [pretended.job(job, batch="cmp-1") for job in (JOB, OTHER_JOB)]
    pretended.page.goto("/#batch=cmp-1")
    wait_for_picture(pretended.page)
    assert sorted(images_asked(pretended)) == [
        f"/jobs/{JOB}/files/segmentation.nii.gz",
        f"/jobs/{OTHER_JOB}/files/segmentation.nii.gz",
        f"/jobs/{OTHER_JOB}/files/t1.nii.gz",
    ]
