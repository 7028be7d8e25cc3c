"""Single modules of the page, asked in the browser and held against other readers."""

from __future__ import annotations

import base64
import gzip
import io
import zipfile
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.page.pretended import CONTRASTS, Pretended

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PLACE = (3, 4, 5)
READ = """async ([text, voxel]) => {
  const module = await import("/page/js/nifti.js");
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const volume = await module.readNifti(bytes.buffer);
  const mm = module.toWorld(volume, voxel);
  return {shape: volume.shape, value: module.valueAt(volume, voxel), mm,
          back: module.toVoxel(volume, mm), edge: module.toVoxel(volume, [1e4, -1e4, 1e4])};
}"""


def image(kind: Any, dtype: str, *, quaternion: bool) -> nib.Nifti1Image:
    affine = np.eye(4)
    turned = Rotation.from_euler("xyz", [20, 30, -40], degrees=True).as_matrix()
    affine[:3, :3] = turned @ np.diag([-1, 1.5, 2])
    affine[:3, 3] = [1, -2, 3]
    made = kind(np.arange(10 * 11 * 12).reshape(10, 11, 12).astype(dtype), affine)
    made.set_sform(None if quaternion else affine, 0 if quaternion else 1)
    made.set_qform(affine, 1 if quaternion else 0)
    if dtype == "int16":
        made.header.set_slope_inter(0.5, 7)
    return made


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("quaternion", [False, True])
def test_an_image_is_read_as_nibabel_reads_it(page: Page, kind: Any, quaternion: bool) -> None:
    page.goto("/")
    for dtype in ("uint8", "int16", "float32"):
        content = image(kind, dtype, quaternion=quaternion).to_bytes()
        other = kind.from_bytes(content)
        packed = gzip.compress(content) if dtype == "int16" else content
        found = page.evaluate(READ, [base64.b64encode(packed).decode(), list(PLACE)])
        assert tuple(found["shape"]) == other.shape
        assert found["value"] == pytest.approx(other.get_fdata()[PLACE])
        assert found["mm"] == pytest.approx((other.affine @ [*PLACE, 1])[:3], abs=1e-3)
        assert tuple(found["back"]) == PLACE
        assert all(0 <= at < n for at, n in zip(found["edge"], other.shape, strict=True))


@pytest.mark.parametrize(
    ("name", "contrast"),
    [
        ("BraTS2021_00006_t1ce.nii.gz", "t1ce"),
        ("BraTS-GLI-00000-000-t1n.nii.gz", "t1"),
        ("BraTS-GLI-00000-000-t2f.nii", "flair"),
        ("case_0003.nii.gz", "flair"),
        ("004_t2_tse_tra.nii.gz", "t2"),
        ("009_t1_mprage_KM.nii.gz", "t1ce"),
        ("007_t2_flair_sag.nii.gz", "flair"),
        ("sub-01_T1w.nii.gz", "t1"),
        ("sub-01_ce-gd_T1w.nii.gz", "t1ce"),
        ("pat_Gd_T1.nii", "t1ce"),
        ("t1_post_T1.nii", "t1ce"),
        ("pat_no_contrast_T1.nii", "t1"),
        ("case_seg.nii.gz", None),
        ("t1_to_t2.reg.nii.gz", None),
        ("scan.nii.gz", None),
    ],
)
def test_a_file_is_recognised_by_its_name(page: Page, name: str, contrast: str | None) -> None:
    page.goto("/docs")
    code = "async name => (await import('/page/js/recognise.js')).recognise(name)"
    found = page.evaluate(code, f"folder/{name}")
    assert found["contrast"] == contrast
    assert found["reason"]


def test_a_run_is_predicted_by_runs_like_it(page: Page) -> None:
    page.goto("/docs")

    def past(model: str, tta: str | None, seconds: int) -> dict[str, Any]:
        times = {"started": "2026-01-01T00:00:00Z", "ended": f"2026-01-01T00:00:{seconds:02d}Z"}
        return {"model": model, "options": {"tta": tta, "window": None}, **times}

    runs = [past("a", None, 10), past("a", None, 20), past("a", None, 50), past("a", "fast", 59)]
    code = "async a => (await import('/page/js/predict.js')).prediction(a[0], a[1])"
    assert page.evaluate(code, [runs, {"model": "a"}]).startswith("About 20 s ")
    assert page.evaluate(code, [runs, {"model": "a", "tta": "fast"}]).startswith("About 59 s ")
    assert page.evaluate(code, [runs, {"model": "b"}]).startswith("No estimate yet")


def test_a_run_is_predicted_by_runs_that_were_prepared_alike(pretended: Pretended) -> None:
    pretended.page.goto("/docs")

    def past(preprocess: str, n4: bool, seconds: int) -> dict[str, Any]:
        times = {"started": "2026-01-01T00:00:00Z", "ended": f"2026-01-01T00:00:{seconds:02d}Z"}
        return {"model": "a", "options": {"preprocess": preprocess, "n4": n4}, **times}

    runs = [past("none", False, 10), past("auto", False, 40), past("auto", True, 59)]
    code = "async a => (await import('/page/js/predict.js')).prediction(a[0], a[1])"
    for (preprocess, n4), seconds in {
        ("none", False): 10,
        ("auto", False): 40,
        ("auto", True): 59,
    }.items():
        wanted = {"model": "a", "preprocess": preprocess, "n4": n4}
        assert pretended.page.evaluate(code, [runs, wanted]).startswith(f"About {seconds} s ")
    wanted = {"model": "a", "preprocess": "full", "n4": False}
    assert pretended.page.evaluate(code, [runs, wanted]).startswith("No estimate yet")
    assert "could not be asked for" in pretended.page.evaluate(code, [None, wanted])


def turned(angles: tuple[float, float, float], order: tuple[int, int, int]) -> Any:
    """The affine of a thick slice, 0.5 × 0.5 × 5 mm, turned, with its axes in another order."""
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = (rotation @ np.diag([-0.5, 0.5, 5.0]))[:, order]
    return affine


@pytest.mark.parametrize("angles", [(0, 8, 0), (15, 0, 0), (20, -25, 30), (-10, 35, 5)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_each_array_axis_is_one_of_the_body(
    pretended: Pretended, angles: tuple[float, float, float], order: tuple[int, int, int]
) -> None:
    affine = turned(angles, order)
    pretended.page.goto("/docs")
    code = "async affine => (await import('/page/js/nifti.js')).axesOf({affine})"
    found = pretended.page.evaluate(code, affine[:3].tolist())
    bodies = nib.orientations.io_orientation(affine)[:, 0].astype(int).tolist()
    assert found == [bodies.index(body) for body in range(3)]


def test_an_archive_that_is_too_large_to_read_here_is_left_to_the_service(
    pretended: Pretended,
) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("1.dcm", b"an image")
    large = bytearray(content.getvalue())
    large[-12:-10] = b"\xff\xff"  # the number of files is told elsewhere: zip64
    pretended.page.goto("/docs")
    code = """async bytes => {
      const file = new File([new Uint8Array(bytes)], "study.zip");
      const study = await (await import("/page/js/upload.js")).studyOf([{file, path: file.name}]);
      return [study.kind, study.dicom.length];
    }"""
    assert pretended.page.evaluate(code, list(large)) == ["dicom", 1]


LARGE = """async kind => {
  const {showStudy} = await import("/page/js/inspect.js");
  const images = ["t1", "t1ce", "t2", "flair"].map((contrast, i) => (
    {file: new File(["x"], `${i}.nii`), name: `${i}.nii`, contrast, reason: "", sure: true}));
  const nifti = kind === "nifti";
  const dicom = nifti ? [] : [new File(["x"], "1.dcm")];
  const study = {kind, images: nifti ? images : [], dicom, series: {}, bytes: 65 * 1048576};
  window.ready = [];
  await showStudy(study, ready => window.ready.push(ready));
}"""


def series() -> list[dict[str, Any]]:
    """Five DICOM series, of which the service chose four."""
    seen = {"shape": [1, 1, 1], "spacing_mm": [1, 1, 1], "confidence": 1, "images": 9}
    return [
        {"uid": f"1.{i}", "contrast": contrast, "chosen": i < 4, "reason": "", **seen}
        for i, contrast in enumerate((*CONTRASTS, "t2"))
    ]


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_a_large_study_that_was_corrected_is_looked_at_before_it_can_be_sent(
    pretended: Pretended, kind: str
) -> None:
    page = pretended.page
    page.goto("/")
    if kind == "dicom":
        pretended.inspected["series"] = series()
    page.evaluate(LARGE, kind)
    assert page.evaluate("ready.pop()") is True
    page.locator("#is-0").select_option("t1ce")
    assert page.evaluate("ready.pop()") is False
    assert page.locator("#is-0").input_value() == "t1ce"
    assert page.locator("#is-1").input_value() == "", "the other one has lost it"
    assert "has not looked at these choices" in page.locator("#found-facts").inner_text()
    page.locator("#look-again").click()
    page.get_by_text("Ready:").wait_for()
    assert page.evaluate("ready.pop()") is True
    assert page.locator("#look-again").is_hidden()


def test_a_series_that_the_service_chose_cannot_be_left_out(pretended: Pretended) -> None:
    pretended.inspected["series"] = series()
    pretended.page.goto("/")
    pretended.page.evaluate(LARGE, "dicom")
    offered = [
        "not used" in select.inner_text()
        for select in pretended.page.locator("#found-table select").all()
    ]
    assert offered == [False, False, False, False, True]
