"""The page of one study: what it says, what it shows, and what it must not hold."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from model_core.errors import InputError
from model_core.findings import measure
from model_core.imaging.volume import Volume
from model_core.report.account import Account
from model_core.report.study import study_report
from model_core.report.words import STATEMENT
from tests.model_core.report.studies import Page, ball_ml, page_of, t1ce, tumour

ACCOUNT = Account(
    run={
        "started": "2026-11-30T10:34:59Z",
        "model": {"name": "tiny", "version": "3", "weights_sha256": "ab" * 32},
        "code": {"version": "0.1.0", "commit": "0123456789abcdef"},
        "packages": {"torch": "2.13.0"},
        "engine": {"device": "cpu", "tta": {"mode": "fast", "passes": 4}, "machine": "x86"},
        "inputs": {"t1ce": {"decoded_sha256": "cd" * 32}},
        "result": {"voxels_sha256": "ef" * 32, "file": {"sha256": "12" * 32}},
        "flags": [
            {"severity": "fail", "reason": "It lies outside <the> brain.", "code": "outside-brain"},
            {"severity": "review", "reason": "Many parts.", "code": "many-parts"},
        ],
        "warnings": ["t2: resampled"],
    },
    report={
        "preparation": {
            "steps": [
                {"step": "register", "contrast": "flair", "tool": "SimpleITK 2.5",
                 "displacement_mm": 3.21, "rotation_deg": 1.5},
                {"step": "strip", "tool": "HD-BET", "brain_ml": 1402.4},
            ]
        },
        "agreement": {"WT": 0.934},
    },
    card={"intended_use": "Research.", "limitations": "Misses much.", "training": {"data": "9"}},
)  # fmt: skip


@pytest.fixture(scope="module")
def image() -> Volume:
    return t1ce()


@pytest.fixture(scope="module")
def page(image: Volume) -> Page:
    images = {"t1ce": image, "flair": image}
    return page_of(study_report(tumour(image.grid, 20.0), images, ACCOUNT))


def test_it_says_what_it_is_and_is_not(page: Page) -> None:
    assert STATEMENT in page.text
    assert "research use only" in page.text
    for told in (
        "2026-11-30 10:34:59 UTC", "tiny, version 3", "segmamba-service 0.1.0, commit 0123456789ab",
        "It lies outside <the> brain.", "Must not be used as it is", "Many parts.", "t2: resampled",
        "Registered, rigid: FLAIR, moved by 3.2 mm and 1.5° (SimpleITK 2.5).",
        "Skull taken off, brain of 1402 mL (HD-BET).", "4 (fast)", "WT 0.93",
        "Misses much.", "Research.", "torch 2.13.0", "abababababababab", "efefefefefefefef",
    ):  # fmt: skip
        assert told in page.text, told


def test_the_volumes_are_those_of_the_label_map(image: Volume, page: Page) -> None:
    labels = tumour(image.grid, 20.0)
    statistics = measure(labels.array, labels.grid)
    assert statistics["WT"].volume_ml == pytest.approx(ball_ml(20.0), rel=0.03)
    whole = statistics["WT"]
    assert whole.diameter is not None
    row = f"WT, whole tumour (NCR + ED + ET) {whole.volume_ml:.1f} 1 {whole.volume_ml:.1f}"
    assert f"{row} {whole.diameter.length_mm:.0f}" in page.text
    assert "NCR, necrotic and non-enhancing tumour core 0.0 0 – – – –" in page.text


def test_it_needs_nothing_from_outside_and_runs_nothing(page: Page) -> None:
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "form", "base"}
    assert all(str(one["src"]).startswith("data:image/png;base64,") for one in page.all("img"))
    assert [one["href"] for one in page.all("a")] == ["#main"]
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    (policy,) = [one for one in page.all("meta") if one.get("http-equiv")]
    assert str(policy["content"]).startswith("default-src 'none'; img-src data:")


def test_it_can_be_read_without_eyes(page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    levels = [int(name[1]) for name, _ in page.tags if re.fullmatch(r"h[1-6]", name)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(len(str(one["alt"])) > 40 for one in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table")) == 1
    assert {one["scope"] for one in page.all("th")} == {"row", "col"}
    named = {one["id"] for one in page.all("h2")}
    assert named == {one["aria-labelledby"] for one in page.all("section")}


def luminance(colour: str) -> float:
    parts = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def test_its_colours_have_the_contrast_of_wcag_aa(image: Volume) -> None:
    html = study_report(tumour(image.grid, 20.0), {}, Account())
    themes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", line))
        for line in html.splitlines()
        if "--paper:" in line
    ]
    assert len(themes) == 2
    for theme in themes:
        for ground in ("paper", "band"):
            for ink in ("ink", "soft", "link", "grave", "look"):
                dark, bright = sorted(luminance(theme[name]) for name in (ground, ink))
                assert (bright + 0.05) / (dark + 0.05) >= 4.5, (ground, ink)


def test_only_the_largest_lesions_have_a_picture_and_the_others_are_counted(image: Volume) -> None:
    labels = np.zeros(image.shape, np.uint8)
    for number in range(8):
        labels[20:22, 5 + 6 * number, 20 : 22 + number] = 2
    page = page_of(study_report(Volume(labels, image.affine), {"t1ce": image}, Account()))
    assert len(page.all("img")) == 6
    assert "2 smaller lesions have no picture." in page.text
    assert "Lesion 6 of 8" in page.text


def test_what_is_not_known_is_not_claimed(image: Volume) -> None:
    empty = Volume(np.zeros(image.shape, np.uint8), image.affine)
    page = page_of(study_report(empty, {"t1ce": image}, Account()))
    assert "Nothing is known of automatic checks" in page.text
    assert "The model's card is not at hand." in page.text
    assert "No tumour was found" in page.text
    assert len(page.all("img")) == 1
    page = page_of(study_report(empty, {}, Account(run={"flags": []})))
    assert "No automatic check raised a flag" in page.text
    assert "there are no pictures" in page.text


def test_an_image_on_another_grid_is_refused(image: Volume) -> None:
    elsewhere = Volume(image.array, image.affine + np.eye(4, k=3) * 5)
    with pytest.raises(InputError, match="flair: expected an image on the grid"):
        study_report(tumour(image.grid, 20.0), {"flair": elsewhere}, Account())


def test_a_worker_that_draws_loads_no_plotting_library_and_a_listener_no_numbers() -> None:
    for module, heavy in (
        ("model_core.report.study", {"torch", "matplotlib"}),
        ("model_core.report.change", {"torch", "matplotlib"}),
        ("model_core.pipeline.files", {"numpy", "PIL", "jinja2"}),
    ):
        code = f"import sys, {module}; sys.exit(bool({heavy!r} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0, module
