"""Single modules of the page, asked in the browser and held against other readers."""

from __future__ import annotations

import base64
import gzip
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

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
