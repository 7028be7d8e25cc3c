"""What is dropped or chosen, what the page says of it, and the way from there to a result."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.page.pretended import JOB, OTHER_JOB, Pretended, send
from tests.page.site import FAST, Site
from tests.page.steps import drop, job_of, run, served, shown_rows, wait_for, wait_for_picture

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
CONTRASTS = ["t1", "t1ce", "t2", "flair"]


def chosen(page: Page) -> list[str]:
    """The values of the selects of the table."""
    return [node.input_value() for node in page.locator("#found-table select").all()]


def test_from_dropped_files_to_a_download(page: Page, site: Site, tmp_path: Path) -> None:
    page.goto("/")
    drop(page, {f"JANE_DOE_{name}.nii.gz": path.read_bytes() for name, path in site.images.items()})
    page.locator("#run:enabled").wait_for()
    rows = shown_rows(page, "#found-table")
    assert [row[0] for row in rows] == [f"JANE_DOE_{name}.nii.gz" for name in CONTRASTS]
    assert chosen(page) == CONTRASTS
    assert all("64 × 64 × 48, 1 × 1 × 1 mm" in row[2] for row in rows)
    assert [row[3] for row in rows] == [f"its name ends in “{name}”" for name in CONTRASTS]
    assert "Ready:" in page.locator("#found-facts").inner_text()

    job = run(page)
    wait_for(page, "succeeded")
    wait_for_picture(page)
    told = {row[0]: row[2] for row in shown_rows(page, "#results")}
    report = site.client.get(f"/jobs/{job}/files/report.json").json()
    assert told == {name: f"{ml:.2f}" for name, ml in report["volumes_ml"].items()}

    with page.expect_download() as waiting:
        page.get_by_role("link", name="Label map (NIfTI)").click()
    waiting.value.save_as(tmp_path / "map.nii.gz")
    kept = site.client.get(f"/jobs/{job}/files/segmentation.nii.gz").content
    assert (tmp_path / "map.nii.gz").read_bytes() == kept
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Everything (zip)").click()
    waiting.value.save_as(tmp_path / "all.zip")
    assert "run.json" in zipfile.ZipFile(tmp_path / "all.zip").namelist()

    stored = page.evaluate(
        "JSON.stringify([location.href, document.title, {...localStorage}, {...sessionStorage}])"
    )
    assert "JANE" not in stored
    assert "JANE" not in site.client.get(f"/jobs/{job}").text


def test_a_corrected_contrast_is_what_is_sent(page: Page, site: Site) -> None:
    images = site.images
    page.goto("/")
    names = {"one": "t1", "b_t1ce": "t2", "c_t2": "t1ce", "d_flair": "flair"}
    drop(page, {f"{name}.nii.gz": images[really].read_bytes() for name, really in names.items()})
    page.locator("#run:enabled").wait_for()
    assert chosen(page) == CONTRASTS
    assert "Please check" in shown_rows(page, "#found-table")[0][3]
    page.locator("#is-1").select_option("t2")  # the other file loses it
    page.locator("#is-2").select_option("t1ce")
    page.locator("#run:enabled").wait_for()
    assert chosen(page) == ["t1", "t2", "t1ce", "flair"]
    job = run(page)
    wait_for(page, "succeeded")
    record = site.client.get(f"/jobs/{job}/files/run.json").json()
    for contrast in CONTRASTS:
        (sent,) = record["inputs"][contrast]["files"]
        assert sent["sha256"] == hashlib.sha256(images[contrast].read_bytes()).hexdigest()


def test_a_missing_contrast_is_named_and_nothing_can_be_run(page: Page, site: Site) -> None:
    page.goto("/")
    drop(page, {f"{name}.nii.gz": site.images[name].read_bytes() for name in ("t1", "t2", "flair")})
    page.get_by_text("T1 with contrast. Choose it in the table, or add the file.").wait_for()
    page.locator("#run").wait_for()
    assert page.locator("#run").is_disabled()


def test_what_is_no_image_is_refused_in_words(page: Page) -> None:
    page.goto("/")
    drop(page, {"t1.nii.gz": b"no image at all"})
    page.get_by_text("Cannot be used:").wait_for()
    assert "expected a NIfTI image" in shown_rows(page, "#found-table")[0][3]
    assert page.locator("#run").is_disabled()
    drop(page, {"notes.txt": b"hello"})
    page.get_by_text("There is no image among these files.").wait_for()


def test_a_folder(page: Page, site: Site) -> None:
    page.goto("/")
    page.locator("#folder").set_input_files(str(site.sample))
    page.locator("#run:enabled").wait_for()
    rows = shown_rows(page, "#found-table")
    found = [row[0].rpartition("_")[2].removesuffix(".nii.gz") for row in rows]
    assert dict(zip(found, chosen(page), strict=True)) == {
        **{contrast: contrast for contrast in CONTRASTS},
        "seg": "",
    }


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_nifti_files(page: Page, site: Site, packing: int) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", packing) as archive:
        archive.writestr("__MACOSX/._t1.nii.gz", b"no image")
        for name, path in site.images.items():
            archive.write(path, f"case/{name}.nii.gz")
    page.goto("/")
    drop(page, {"case.zip": packed.getvalue()})
    page.locator("#run:enabled").wait_for()
    assert chosen(page) == CONTRASTS


def test_the_sample_study_and_what_a_run_will_take(page: Page, site: Site, done: str) -> None:
    page.goto("/")
    page.locator("#sample").click()
    page.locator("#run:enabled").wait_for()
    page.locator("#tta").select_option("full")
    assert page.locator("#prediction").inner_text().startswith("No estimate yet")
    page.locator("#tta").select_option("fast")
    assert re.match(r"About .+ once it begins: the ", page.locator("#prediction").inner_text())
    page.locator("#model").select_option(FAST)
    run(page)
    assert page.url.startswith(site.address + "/#job=")
    wait_for(page, "succeeded")
    assert "Known from an earlier, equal job." in page.locator("#state-detail").inner_text()


def test_copy_as_curl_is_the_same_job(page: Page, site: Site, done: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"/#job={done}")
    page.locator("#copy-curl").click()
    page.get_by_text("Copied.").wait_for()
    text = page.evaluate("navigator.clipboard.readText()")
    assert text == page.locator("#curl").inner_text()
    assert "-F tta=fast" in text
    assert served(site, done, "t1.nii.gz").shape == (64, 64, 48)
    script = text.replace("t1=@t1.nii.gz", f"t1=@{site.images['t1']}")
    for name in ("t1ce", "t2", "flair"):
        script = script.replace(f"@{name}.nii.gz", f"@{site.images[name]}")
    answer = json.loads(
        subprocess.check_output(["bash", "-c", script], env=os.environ | {"SEGMAMBA_KEY": ""})
    )
    job = site.client.get(f"/jobs/{done}").json()
    assert (answer["model"], answer["options"]) == (job["model"], job["options"])


def test_recent_jobs_lead_to_them_and_can_be_deleted(page: Page, site: Site) -> None:
    files = [(name, (name, path.read_bytes())) for name, path in site.images.items()]
    job = site.client.post(
        "/jobs", files=files, data={"tta": "none", "postprocess": "false"}
    ).json()
    page.goto(f"/#job={job['id']}")
    wait_for(page, "succeeded")
    wait_for_picture(page)
    assert "the label map is shown alone" in page.locator(".controls").inner_text()
    page.get_by_role("link", name="Segment", exact=True).click()
    row = page.locator("#recent tbody tr").first
    assert "Done" in row.inner_text()
    row.get_by_role("link").first.click()
    assert job_of(page) == job["id"]
    page.go_back()
    page.locator("#recent tbody tr").first.get_by_role("button").click()
    page.wait_for_timeout(1000)
    assert site.client.get(f"/jobs/{job['id']}").status_code == 404


SENT = """
window.sent = [];
const {open, send} = XMLHttpRequest.prototype;
XMLHttpRequest.prototype.open = function (method, path) {
  this.path = path;
  return open.call(this, method, path);
};
XMLHttpRequest.prototype.send = function (form) {
  for (const [name, value] of form) {
    if (this.path === "/jobs" && name === "t1") value.text().then(text => window.sent.push(text));
  }
  return send.call(this, form);
};
"""


def choose_study(page: Page, name: str) -> None:
    """Choose four files that say whose they are."""
    kind = "application/octet-stream"
    page.locator("#files").set_input_files(
        [
            {"name": f"{name}_{one}.nii", "mimeType": kind, "buffer": f"{name}".encode()}
            for one in CONTRASTS
        ]
    )


def test_a_study_cannot_be_sent_by_the_form_of_the_one_before(pretended: Pretended) -> None:
    page = pretended.page
    page.add_init_script(SENT)
    page.goto("/")
    choose_study(page, "ONE")
    page.locator("#run:enabled").wait_for()
    pretended.refusals["^/models$"] = (503, 7)
    choose_study(page, "TWO")
    page.locator("#found-table").filter(has_text="TWO").wait_for()
    page.get_by_text("The models cannot be listed: Refused by 503. Try again in 7 s.").wait_for()
    assert page.locator("#run").count() == 0
    pretended.refusals.clear()
    page.locator("#ask-models").click()
    page.locator("#run:enabled").click()
    page.wait_for_function("sent.length > 0")
    assert page.evaluate("sent") == ["TWO"]


def test_a_form_that_was_waited_for_too_long_does_not_come(pretended: Pretended) -> None:
    page = pretended.page
    page.add_init_script(SENT)
    page.goto("/")
    pretended.hold = "^/models$"
    choose_study(page, "ONE")
    late = pretended.wait_held()
    choose_study(page, "TWO")
    page.locator("#run:enabled").wait_for()
    pretended.answer(late)
    page.wait_for_timeout(200)
    page.locator("#run:enabled").click()
    page.wait_for_function("sent.length > 0")
    assert page.evaluate("sent") == ["TWO"]


def test_the_form_comes_without_the_earlier_runs(pretended: Pretended) -> None:
    page = pretended.page
    page.goto("/")
    pretended.refusals[r"^/jobs\?state"] = (429, 7)
    choose_study(page, "ONE")
    page.locator("#run:enabled").wait_for()
    assert "could not be asked for" in page.locator("#prediction").inner_text()


def test_a_sample_that_is_being_drawn_is_waited_for(pretended: Pretended) -> None:
    page = pretended.page
    page.goto("/")
    pretended.refusals["/page/sample/t1.nii.gz"] = (503, 1)
    page.locator("#sample").click()
    page.locator("#intake").filter(has_text="Refused by 503.").wait_for()
    pretended.refusals.clear()
    page.locator("#run:enabled").wait_for()
    pretended.refusals["/page/sample/t1.nii.gz"] = (503, 60)
    page.locator("#sample").click()
    page.locator("#problem").filter(has_text="Try again in 60 s.").wait_for()


def test_what_failed_is_said_where_it_was_asked_for(pretended: Pretended) -> None:
    page = pretended.page
    page.goto(f"/#job={JOB}")
    wait_for_picture(page)
    pretended.refusals["/result$"] = (410, 0)
    page.get_by_role("link", name="Everything (zip)").click()
    page.locator("#problem").filter(has_text="Refused by 410.").wait_for()
    pretended.listed = [pretended.job(OTHER_JOB)]
    page.get_by_role("link", name="Segment", exact=True).click()
    pretended.refusals[f"/jobs/{OTHER_JOB}$"] = (503, 0)
    page.locator("#recent tbody button").click()
    page.locator("#problem").filter(has_text="Refused by 503.").wait_for()
    assert page.locator("#recent tbody button").is_enabled()


def test_a_study_that_lacks_an_image_stays_unsent_after_a_refusal(pretended: Pretended) -> None:
    page = pretended.page
    page.goto("/")
    choose_study(page, "ONE")
    pretended.hold = "^/jobs$"
    page.locator("#run:enabled").click()
    sending = pretended.wait_held()
    pretended.inspected["study"] = {"missing": ["t1"], "ready": False}
    page.locator("#is-0").select_option("")
    page.locator("#found-facts").filter(has_text="Missing:").wait_for()
    send(sending, {"detail": "No room."}, 503)
    page.locator("#problem").filter(has_text="No room.").wait_for()
    page.wait_for_timeout(100)
    assert page.locator("#run").is_disabled()
