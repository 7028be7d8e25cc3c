"""DICOM as it comes from a scanner: a folder or a zip, oblique slices, SEG and SR to take away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.dicom_series import PLANTED
from tests.dicom_studies import write_study, zipped
from tests.page.site import Site
from tests.page.steps import (
    drop,
    run,
    served,
    shown_rows,
    slide,
    under_crosshair,
    wait_for,
    wait_for_picture,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("DICOM")
    write_study(folder)
    return folder


def test_a_folder_becomes_a_result_with_dicom_objects(page: Page, site: Site, study: Path) -> None:
    page.goto("/")
    page.locator("#folder").set_input_files(str(study))
    page.locator("#run:enabled").wait_for()
    rows = shown_rows(page, "#found-table")
    assert [row[0] for row in rows] == [f"Series {number}" for number in range(1, len(rows) + 1)]
    assert all("%)" in row[3] for row in rows), "each with its confidence"
    assert {select.input_value() for select in page.locator("#found-table select").all()} >= {
        "t1", "t1ce", "t2", "flair",
    }  # fmt: skip
    shown = page.locator("main").inner_text()
    assert not [value for value in PLANTED.values() if len(value) > 4 and value in shown]

    job = run(page, preprocess="none")
    wait_for(page, "succeeded")
    wait_for_picture(page)
    offered = {link.get_attribute("download") for link in page.locator("#files-list a").all()}
    assert {"segmentation.dcm", "measurements.dcm"} <= offered
    assert "dicom=@study.zip" in page.locator("#curl").inner_text()

    labels = served(site, job, "segmentation.nii.gz")
    image = served(site, job, "t1ce.nii.gz")
    middle = [count // 2 for count in labels.shape]
    for axis in range(3):
        slide(page, f"axis-{axis}", middle[axis])
    seen = under_crosshair(page)
    at = seen["voxel"]
    assert seen["label"] == np.asarray(labels.dataobj)[at]
    assert seen["value"] == pytest.approx(float(np.asarray(image.dataobj)[at]), rel=1e-5, abs=1e-3)
    told = page.locator("#readout").inner_text()
    mm = [float(one) for one in (labels.affine @ [*at, 1])[:3]]
    assert all(f"{one:.1f}" in told for one in mm), (told, mm)


def test_series_of_a_zip_are_exchanged_by_hand(page: Page, study: Path) -> None:
    page.goto("/")
    drop(page, {"study.zip": zipped(sorted(study.rglob("*.dcm")) or sorted(study.iterdir()))})
    page.locator("#run:enabled").wait_for()

    def where(contrast: str) -> int:
        values = [select.input_value() for select in page.locator("#found-table select").all()]
        return values.index(contrast)

    t2, flair = where("t2"), where("flair")
    page.locator(f"#is-{t2}").select_option("flair")
    page.locator(f"#is-{flair}").select_option("t2")
    page.locator("#run:enabled").wait_for()
    assert (where("t2"), where("flair")) == (flair, t2)
