"""The viewer shows the voxels that the service has, where they are, on the side where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.page.pretended import JOB, OTHER_JOB, Pretended, block, packed
from tests.page.site import Site
from tests.page.steps import (
    picture,
    pixels_of,
    served,
    slide,
    under_crosshair,
    wait_for_picture,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
MANY = 500


@pytest.fixture
def viewer(page: Page, done: str) -> Page:
    page.goto(f"/#job={done}")
    wait_for_picture(page)
    return page


def array(image: nib.Nifti1Image) -> np.ndarray[Any, Any]:
    return np.asarray(image.dataobj)


def test_labels_are_drawn_and_each_can_be_hidden(viewer: Page) -> None:
    slide(viewer, "opacity", 100)
    whole = picture(viewer)
    before = {name: pixels_of(whole, name) for name in ("NCR", "ED", "ET")}
    assert all(count > MANY for count in before.values()), before
    assert not viewer.locator("#gl").evaluate("node => node.getContext('webgl2').isContextLost()")
    for name in before:
        viewer.locator(f"input[data-label={name}]").uncheck()
        after = pixels_of(picture(viewer), name)
        assert after < before[name] / 20, name
        viewer.locator(f"input[data-label={name}]").check()
    slide(viewer, "opacity", 0)
    assert sum(pixels_of(picture(viewer), name) for name in before) < MANY / 10


def test_the_value_under_the_crosshair_is_the_served_one(
    viewer: Page, site: Site, done: str
) -> None:
    labels = array(served(site, done, "segmentation.nii.gz"))
    for contrast in ("t1", "t1ce", "t2", "flair"):
        viewer.locator(f"input[value={contrast}]").check()
        image = served(site, done, f"{contrast}.nii.gz")
        for place in ((20, 30, 20), (40, 25, 30), (33, 47, 11)):
            for axis, value in enumerate(place):
                slide(viewer, f"axis-{axis}", value)
            seen = under_crosshair(viewer)
            i, j, k = seen["voxel"]
            assert seen["value"] == pytest.approx(float(array(image)[i, j, k]), rel=1e-6)
            assert seen["label"] == labels[i, j, k]
            # sliders count to the right, to the front and up; the file to the left and to the back
            assert (i, j, k) == (63 - place[0], 63 - place[1], place[2])
            told = viewer.locator("#readout").inner_text()
            mm = ", ".join(f"{one:.1f}" for one in (image.affine @ [i, j, k, 1])[:3])
            assert mm in told
    viewer.locator("#gl").click(position={"x": 150, "y": 150})
    i, j, k = under_crosshair(viewer)["voxel"]
    assert under_crosshair(viewer)["label"] == labels[i, j, k]


def test_the_largest_lesion_is_jumped_to(viewer: Page, site: Site, done: str) -> None:
    for axis in range(3):
        slide(viewer, f"axis-{axis}", 0)
    assert under_crosshair(viewer)["label"] == 0
    viewer.locator("#largest").click()
    place = under_crosshair(viewer)["voxel"]
    report = site.client.get(f"/jobs/{done}/files/report.json").json()
    lesion = report["statistics"]["structures"]["WT"]["lesions"][0]["place"]
    low, high = lesion["box_voxel"]
    assert all(a <= b < c for a, b, c in zip(low, place, high, strict=True))
    assert under_crosshair(viewer)["label"] > 0


def test_left_is_left(viewer: Page, site: Site, done: str) -> None:
    """The bright lesion of the phantom is on one side; the picture has it on that side."""
    image = array(served(site, done, "flair.nii.gz"))
    inside = image > 0
    bright = image > np.percentile(image[inside], 97)
    # the array's first axis runs to the patient's left: a lesion on the right has small indices
    aside = np.argwhere(bright)[:, 0].mean() - np.argwhere(inside)[:, 0].mean()
    assert abs(aside) > 3, "this phantom is too even to tell"

    viewer.locator("input[value=flair]").check()
    viewer.locator("#view").select_option("axial")
    slide(viewer, "opacity", 0)
    seen = shift_of_the_bright(picture(viewer))
    assert np.sign(seen) == np.sign(aside)  # radiological: the patient's left on the right
    assert "left on the right" in viewer.locator("#side").inner_text()

    viewer.locator("#radiological").uncheck()
    assert np.sign(shift_of_the_bright(picture(viewer))) == -np.sign(aside)
    assert "left on the left" in viewer.locator("#side").inner_text()

    half = "left" if under_crosshair(viewer)["voxel"][0] > (image.shape[0] - 1) / 2 else "right"
    assert f"patient’s {half}" in viewer.locator("#readout").inner_text()


def shift_of_the_bright(shot: np.ndarray[Any, Any]) -> float:
    """How far right of the head's middle the brightest pixels are, without text and crosshair."""
    grey = shot[40:-40, 40:-40].astype(float)
    grey[np.ptp(grey, axis=2) > 12] = 0
    level = grey.mean(axis=2)
    level[level > 252] = 0  # the crosshair
    inside = level > 25
    bright = level > np.percentile(level[inside], 97)
    return float(np.argwhere(bright)[:, 1].mean() - np.argwhere(inside)[:, 1].mean())


def test_views_and_contrasts_change_the_picture(viewer: Page) -> None:
    slide(viewer, "opacity", 0)
    seen = [picture(viewer)]
    for view in ("axial", "coronal", "sagittal", "render"):
        viewer.locator("#view").select_option(view)
        seen.append(picture(viewer))
    viewer.locator("#view").select_option("all")
    for contrast in ("t1", "t2", "flair"):
        viewer.locator(f"input[value={contrast}]").check()
        seen.append(picture(viewer))
    for i, one in enumerate(seen):
        for other in seen[:i]:
            assert (np.abs(one.astype(int) - other).max(axis=2) > 20).mean() > 0.005


def test_where_mirrored_passes_disagree(viewer: Page, site: Site, done: str) -> None:
    share = array(served(site, done, "disagreement.nii.gz"))
    assert share.max() > 5, "nothing to see"
    slide(viewer, "opacity", 100)
    viewer.locator("#disagreement").check()
    shot = picture(viewer)
    assert sum(pixels_of(shot, name) for name in ("NCR", "ED", "ET")) < MANY
    assert (np.ptp(shot.astype(int), axis=2) > 40).sum() > MANY
    viewer.locator("#largest").click()
    i, j, k = under_crosshair(viewer)["voxel"]
    assert f"{int(share[i, j, k])} %" in viewer.locator("#readout").inner_text()


def test_results_say_what_the_report_says(viewer: Page, site: Site, done: str) -> None:
    report = site.client.get(f"/jobs/{done}/files/report.json").json()
    record = site.client.get(f"/jobs/{done}/files/run.json").json()
    text = viewer.locator("#results").inner_text()
    for flag in report["quality"]:
        assert flag["reason"] in text
    assert record["model"]["weights_sha256"] in text
    assert record["result"]["file"]["sha256"] in text
    assert "means nothing" in text  # the limits of the model's card
    offered = {link.get_attribute("download") for link in viewer.locator("#files-list a").all()}
    assert {
        "segmentation.nii.gz",
        "report.json",
        "statistics.csv",
        "run.json",
        "report.html",
        "segmentation.zip",
    } <= offered


@pytest.mark.parametrize("angles", [(0, 8, 0), (15, 0, 0)])
def test_every_axis_of_tilted_thick_slices_is_reached(
    pretended: Pretended, angles: tuple[float, float, float]
) -> None:
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = rotation @ np.diag([-0.5, 0.5, 5])
    affine[:3, 3] = -affine[:3, :3] @ [11.5, 11.5, 11.5]
    pretended.files[JOB] = {"segmentation.nii.gz": packed(block(affine=affine))}
    page = pretended.page
    page.goto(f"/#job={JOB}")
    wait_for_picture(page)
    for place in ((4, 9, 20), (19, 9, 3)):
        for axis, value in enumerate(place):
            slide(page, f"axis-{axis}", value)
        told = page.locator("#readout").evaluate("node => node.dataset.voxel")
        assert told == f"{23 - place[0]},{place[1]},{place[2]}"
        right, *_ = affine @ [23 - place[0], place[1], place[2], 1]
        half = "left" if right < 0 else "right"
        assert f"patient’s {half}" in page.locator("#readout").inner_text()


def test_the_next_result_is_shown_in_all_planes(pretended: Pretended) -> None:
    page = pretended.page
    page.goto(f"/#job={JOB}")
    wait_for_picture(page)
    whole = picture(page)
    page.locator("#view").select_option("axial")
    assert (np.abs(picture(page).astype(int) - whole).max(axis=2) > 20).mean() > 0.01
    page.evaluate("job => { location.hash = `#job=${job}`; }", OTHER_JOB)
    page.locator("#results").filter(has_text=f"about {OTHER_JOB[:8]}").wait_for()
    wait_for_picture(page)
    assert page.locator("#view").input_value() == "all"
    assert (np.abs(picture(page).astype(int) - whole).max(axis=2) > 20).mean() < 0.001
