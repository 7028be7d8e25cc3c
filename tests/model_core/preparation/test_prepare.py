from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from model_core.errors import Cancelled, InputError, StudyError
from model_core.imaging.nifti import read_nifti
from model_core.imaging.volume import Volume
from model_core.preparation import PreparedStudy, PrepareOptions, prepare_study
from model_core.preparation.rigid import Matrix, moved
from model_core.preparation.skull_tools import INTERPRETER_VARIABLE, installed_tools
from model_core.types import CONTRASTS, Contrast
from tests.model_core.preparation.builders import (
    BRIGHT_BRAIN_TOOL,
    SPACING_MM,
    acquired,
    head,
    head_affine,
    heads,
    movement,
    thick,
    tissues,
    write_tool,
)

LESION = 6
MOVES: dict[Contrast, Matrix] = {
    "t1": movement((4, -3, 5), (5, -4, 3)),
    "t1ce": np.eye(4),
    "t2": movement((-6, 5, 4), (-6, 5, 8)),
    "flair": movement((3, 6, -5), (4, 7, -6)),
}
MIDDLE_MM = 0.5
"""How far a lesion's centroid may lie from its place after the way there and back."""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A skull stripper for the heads of this module, alone on PATH."""
    folder = tmp_path / "bin"
    write_tool(folder, "mri_synthstrip", BRIGHT_BRAIN_TOOL)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv(INTERPRETER_VARIABLE, str(tmp_path / "no-python"))
    return folder / "mri_synthstrip"


def scans() -> dict[Contrast, Volume]:
    """As from a scanner: four grids, skull, the patient moved in between, one in thick slices."""
    made = {c: acquired(head(c), MOVES[c]) for c in CONTRASTS}
    flair = head("flair")
    made["flair"] = acquired(flair, MOVES["flair"], thick(flair.grid, 2, 5.5)).reoriented("RAS")
    t2 = made["t2"]
    made["t2"] = Volume(t2.array[2:-2, 3:, :-1], t2.grid.cropped((2, 3, 0), (1, 1, 1)).affine)
    return made


def lesion_of(prepared: PreparedStudy) -> np.ndarray:
    """The truth on the study's grid: the lesion, where t1ce shows it."""
    grid = prepared.study.native.grid
    truth = Volume((tissues() == LESION).astype(np.float32), head_affine())
    return (acquired(truth, np.eye(4), grid).array > 0.5).astype(np.uint8) * 3


def centroid_mm(labels: np.ndarray, volume: Volume) -> np.ndarray:
    return volume.affine[:3] @ (*np.argwhere(labels).mean(axis=0), 1)


def true_centroid_mm(contrast: Contrast) -> np.ndarray:
    where = centroid_mm(tissues() == LESION, Volume(tissues(), head_affine()))
    return (MOVES[contrast] @ (*where, 1))[:3]


# --------------------------------------------------------------------------- nothing to be done


@pytest.mark.parametrize("mode", ["auto", "none"])
def test_a_prepared_study_comes_out_as_it_went_in_and_its_labels_too(mode: Any) -> None:
    volumes = heads(skull=False)
    prepared = prepare_study(volumes, PrepareOptions(mode=mode, onto="t2"))
    assert list(prepared.study.volumes) == list(CONTRASTS)
    for contrast in CONTRASTS:
        np.testing.assert_array_equal(
            prepared.study.volumes[contrast].array, volumes[contrast].array
        )
    labels = np.random.default_rng(0).integers(0, 4, prepared.study.native.shape).astype(np.uint8)
    back, native = prepared.bring_back(labels)
    np.testing.assert_array_equal(back, labels)
    assert native is volumes["t2"]
    assert prepared.report()["steps"] == []


def test_mode_none_leaves_even_a_skull_and_says_so() -> None:
    prepared = prepare_study(heads(), PrepareOptions(mode="none"))
    assert any("skull-stripped" in text for text in prepared.study.warnings)
    np.testing.assert_array_equal(prepared.study.volumes["t1"].array, head("t1").array)


def test_labels_of_another_grid_are_refused() -> None:
    prepared = prepare_study(heads(skull=False))
    with pytest.raises(InputError, match="labels: expected the prepared study's shape"):
        prepared.bring_back(np.zeros((3, 3, 3), np.uint8))


# ------------------------------------------------------------------------------- the whole chain


@pytest.mark.slow
def test_scans_become_a_study_of_one_grid_without_skull_and_labels_find_their_way_back(
    tool: Path,
) -> None:
    told: list[tuple[str, int, int]] = []
    volumes = scans()
    prepared = prepare_study(
        volumes, PrepareOptions(onto="flair"), progress=lambda *words: told.append(words)
    )
    study = prepared.study
    assert study.reference == "t1ce"
    np.testing.assert_allclose(study.native.spacing_mm, 1.0, atol=1e-6)
    brain = study.volumes["t1ce"].array != 0
    assert 1000 < brain.sum() / 1000 < 1700
    for contrast in CONTRASTS:
        assert not study.volumes[contrast].array[~brain].any()
    _assert_lesions_lie_together(prepared)
    labels, native = prepared.bring_back(lesion_of(prepared))
    assert native is volumes["flair"]
    off = centroid_mm(labels == 3, native) - true_centroid_mm("flair")
    assert np.linalg.norm(off) < 2 * MIDDLE_MM
    _assert_the_report_tells_it(prepared, told)


def _assert_lesions_lie_together(prepared: PreparedStudy) -> None:
    """The lesion is what is bright in t1ce and dark in t1: it must be at one place in both."""
    inside = ndimage.binary_erosion(lesion_of(prepared), iterations=5)  # edges are mixed
    for contrast, value in (("t1", 260), ("t1ce", 760), ("t2", 700), ("flair", 780)):
        seen = float(np.median(prepared.study.volumes[contrast].array[inside]))
        assert seen == pytest.approx(value, abs=40)


def _assert_the_report_tells_it(prepared: PreparedStudy, told: list[tuple[str, int, int]]) -> None:
    report = json.loads(json.dumps(prepared.report()))
    names = [(step["step"], step.get("contrast")) for step in report["steps"]]
    assert names == [
        ("register", "t1"), ("register", "t2"), ("register", "flair"),
        ("resample", None), ("strip", None),
    ]  # fmt: skip
    for step in report["steps"][:3]:
        found = np.array(step["moving_to_fixed_ras_mm"])
        np.testing.assert_allclose(found @ MOVES[step["contrast"]], np.eye(4), atol=1.2)
        information = step["normalised_mutual_information"]
        assert information["after"] > information["before"]
        assert step["tool"].startswith("SimpleITK 2.")
    assert report["steps"][4]["tool"] == "mri_synthstrip"
    assert 1000 < report["steps"][4]["brain_ml"] < 1700
    assert report["needs"]["strip"] is True
    assert told[0] == ("register", 0, 3)
    assert ("register", 3, 3) in told
    assert told[-1] == ("strip", 1, 1)


def test_images_that_lie_on_each_other_keep_their_grid_and_every_value_of_the_brain(
    tool: Path,
) -> None:
    """Only the skull has to come off: nothing is interpolated."""
    volumes = heads()
    prepared = prepare_study(volumes)
    assert prepared.study.native.grid.matches(volumes["t1ce"].grid)
    for contrast in CONTRASTS:
        values = prepared.study.volumes[contrast].array
        np.testing.assert_array_equal(values[values != 0], volumes[contrast].array[values != 0])
    labels = (tissues() == LESION).astype(np.uint8)
    np.testing.assert_array_equal(prepared.bring_back(labels)[0], labels)
    assert [step.name for step in prepared.steps] == ["register"] * 3 + ["strip"]


@pytest.mark.slow
def test_a_shift_of_whole_voxels_is_taken_back(tool: Path) -> None:
    volumes = heads()
    shift = movement((0, 0, 0), (-2 * SPACING_MM, SPACING_MM, 3 * SPACING_MM))
    volumes["t2"] = moved(volumes["t2"], shift)
    prepared = prepare_study(volumes, PrepareOptions(onto="t2"))
    np.testing.assert_allclose(prepared.onto_fixed, np.linalg.inv(shift), atol=0.3)
    _assert_lesions_lie_together(prepared)


def test_a_stripped_contrast_lends_its_mask_to_the_others() -> None:
    """No tool is needed, and none is there."""
    volumes = heads()
    volumes["t1ce"] = head("t1ce", skull=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        prepared = prepare_study(volumes)
    (step,) = [step for step in prepared.steps if step.name == "strip"]
    assert step.tool == "the mask of a stripped contrast"
    assert step.figures["image"] == "t1ce"
    assert not prepared.study.volumes["t2"].array[tissues() < 3].any()


def test_a_bias_field_is_taken_off_where_asked_for() -> None:
    volumes = heads(skull=False)
    ramp = np.linspace(0.7, 1.4, volumes["t1"].shape[1])[None, :, None]
    volumes["t1"] = Volume((volumes["t1"].array * ramp).astype(np.float32), head_affine())
    prepared = prepare_study(volumes, PrepareOptions(n4=True))
    assert [step.name for step in prepared.steps] == ["bias"] * 4
    fields = {step.contrast: step.figures["field_p95_by_p5"] for step in prepared.steps}
    assert fields["t1"] > 1.2 * fields["t2"]
    white = tissues() == 5
    even, uneven = (v.array[white].std() for v in (prepared.study.volumes["t1"], volumes["t1"]))
    assert even < 0.7 * uneven


@pytest.mark.slow
def test_a_contrast_that_shows_a_part_of_the_head_is_said_to(tool: Path) -> None:
    volumes = heads()
    whole = volumes["flair"]
    volumes["flair"] = Volume(whole.array[:, :, :32], whole.affine)
    prepared = prepare_study(volumes)
    assert any("flair: shows 6" in text or "flair: shows 7" in text
               for text in prepared.study.warnings)  # fmt: skip


# -------------------------------------------------------------------------------- what goes wrong


def test_without_a_tool_a_skull_is_told_before_anything_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(INTERPRETER_VARIABLE, str(tmp_path / "no-python"))
    told: list[Any] = []
    with pytest.raises(StudyError, match="none installed"):
        prepare_study(heads(), progress=lambda *words: told.append(words))
    assert told == []


def test_an_image_of_something_else_is_named_and_not_used(tool: Path) -> None:
    volumes = heads()
    noise = np.random.default_rng(0).uniform(1, 900, volumes["t2"].shape).astype(np.float32)
    volumes["t2"] = Volume(noise, head_affine())
    with pytest.raises(StudyError, match="t2: expected an image of the same head"):
        prepare_study(volumes)


def test_voxels_of_no_scanner_are_refused_by_name(tool: Path) -> None:
    volumes = heads()
    volumes["t1"] = Volume(volumes["t1"].array, np.diag([30.0, 30, 30, 1]))
    with pytest.raises(StudyError, match=r"t1: expected voxels of 0\.2 to 10 mm"):
        prepare_study(volumes)


@pytest.mark.parametrize("stage", ["register", "strip"])
def test_a_caller_who_stops_leaves_nothing_behind(
    stage: str, tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    write_tool(tool.parent, "mri_synthstrip", "import time; time.sleep(600)")
    begun: list[str] = []
    with pytest.raises(Cancelled):
        prepare_study(
            heads(),
            progress=lambda name, *_: begun.append(name),
            cancelled=lambda: stage in begun,
        )
    assert begun[-1] == stage
    assert not list(scratch.iterdir())


# --------------------------------------------------------------------------------------- for real

SCANS = {"t1": "t1", "t1ce": "t1c", "t2": "t2", "flair": "fla"}


@pytest.fixture(scope="module")
def real_scans(real_cases: Path) -> dict[Contrast, Volume]:
    """A study as it was scanned: 5.5 mm slices on several grids, skull (TCGA-LGG, TCIA)."""
    folder = real_cases.parent / "raw_native"
    found = sorted(folder.glob("*/*_t1c.nii.gz"))
    if not found:
        pytest.skip("no study as it was scanned beside the BraTS cases: raw_native/*/*_t1c.nii.gz")
    stem = str(found[0]).removesuffix("_t1c.nii.gz")
    return {c: read_nifti(Path(f"{stem}_{SCANS[c]}.nii.gz"), argument=c) for c in CONTRASTS}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_real_study_goes_from_the_scanner_to_labels_on_its_own_flair(
    real_scans: dict[Contrast, Volume],
) -> None:
    """Geometry, not beauty: the tumour that is found is bright in the FLAIR as it was scanned."""
    if not installed_tools():
        pytest.skip(
            f"no skull stripper here: scripts/skullstrip.sh, then set {INTERPRETER_VARIABLE}"
        )
    from model_core import Segmenter, load_bundle

    prepared = prepare_study(real_scans, PrepareOptions(onto="flair"))
    steps = {(step.name, step.contrast): step.figures for step in prepared.steps}
    assert 1200 < steps["strip", None]["brain_ml"] < 2000
    for contrast in ("t1", "t2", "flair"):
        information = steps["register", contrast]["normalised_mutual_information"]
        assert information["after"] > information["before"] + 0.03
    result = Segmenter(load_bundle("segmamba-small")).segment(prepared.study)
    labels, native = prepared.bring_back(result.labels)
    assert native is real_scans["flair"]
    tumour = labels > 0
    volume_ml = tumour.sum() * native.grid.voxel_ml
    assert volume_ml == pytest.approx(result.volumes_ml["WT"], rel=0.1)
    head_values = native.array[native.array > np.percentile(native.array, 60)]
    assert np.median(native.array[tumour]) > 1.1 * np.median(head_values)


@pytest.mark.slow
def test_a_real_prepared_case_lacks_nothing(real_cases: Path) -> None:
    for folder in sorted(path for path in real_cases.iterdir() if path.is_dir()):
        volumes: dict[Contrast, Volume] = {
            c: read_nifti(folder / f"{folder.name}_{c}.nii.gz", argument=c) for c in CONTRASTS
        }
        prepared = prepare_study(volumes)
        assert prepared.steps == ()
        assert not prepared.needs.anything
        assert os.fspath(folder) not in json.dumps(prepared.report())
