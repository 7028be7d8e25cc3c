"""Studies through the whole of defacing, with a tool that knows the true brain."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from scipy.spatial import cKDTree

from model_core.dicom.deidentify import Cleaning, deidentify
from model_core.dicom.series import list_series
from model_core.dicom.volume import read_series
from model_core.errors import Cancelled
from model_core.imaging.grid import Grid
from model_core.imaging.nifti import read_nifti
from model_core.imaging.resample import resample
from model_core.imaging.volume import Volume
from model_core.pipeline.deface import find_faces
from model_core.preparation.deface import MARGIN_MM
from model_core.preparation.skull_tools import Tool, find_tool, installed_tools
from model_core.preparation.watch import Watch
from model_core.types import Shape3
from tests.dicom_series import (
    GEOMETRIES,
    PLAIN,
    T1_FACTS,
    SeriesRecipe,
    geometry_affine,
    uid_of,
    with_facts,
    write_enhanced,
    write_series,
)
from tests.face_heads import BRAIN, EYE, NOSE, VALUES, head_labels

SHAPE: Shape3 = (48, 52, 30)
SPACING = (5.0, 4.6, 8.0)
T2 = with_facts(
    replace(PLAIN, seed="t2"), description="t2 tse", protocol="t2", sequence_name="*tse2d1",
    scanning_sequence=("SE",), echo_time_ms=100.0, repetition_time_ms=5000.0,
    inversion_time_ms=None, number=1,
)  # fmt: skip


class Truth:
    """A tool that knows where the brain of these heads is, and what it was asked about."""

    def __init__(self, mask: Callable[[Grid], NDArray[np.bool_]] | None = None) -> None:
        self.asked: list[Grid] = []
        self._mask = mask or (lambda grid: head_labels(grid) == BRAIN)

    def tool(self) -> Tool:
        return Tool(
            name="mri_synthstrip",
            label="the truth",
            write=lambda image, _: self.asked.append(image.grid),
            command=lambda *_: [sys.executable, "-c", "pass"],
            read=lambda image, _: Volume(self._mask(image.grid).astype(np.uint8), image.affine),
        )


def grid(name: str = "axial", *, oblique: bool = False, shape: Shape3 = SHAPE) -> Grid:
    return Grid(shape, geometry_affine(name, shape=shape, spacing=SPACING, oblique=oblique))


def image(on: Grid) -> NDArray[Any]:
    noise = np.random.default_rng(1).integers(1, 90, on.shape)
    return VALUES[head_labels(on)] + noise


def write(folder: Path, on: Grid, recipe: SeriesRecipe = PLAIN) -> tuple[Path, ...]:
    return write_series(folder, image(on), on.affine, recipe)


def defaced(files: tuple[Path, ...], folder: Path, truth: Truth | None = None) -> Cleaning:
    faces = find_faces(files, (truth or Truth()).tool())
    return deidentify(files, folder, deface=faces.change_for)


def volumes_of(files: tuple[Path, ...]) -> list[Volume]:
    return [read_series(series) for series in list_series(files)]


def assert_defaced(before: Volume, after: Volume) -> None:
    """Eyes and nose are gone; the brain and what lies within the margin have the very same bits."""
    labels = head_labels(before.grid)
    assert (labels == NOSE).sum() > 5
    assert (labels == EYE).sum() > 20
    assert not after.array[np.isin(labels, (EYE, NOSE))].any()
    np.testing.assert_array_equal(after.affine, before.affine)
    changed = np.argwhere(before.array != after.array)
    assert not after.array[tuple(changed.T)].any()
    places = changed @ before.affine[:3, :3].T
    brain = np.argwhere(labels == BRAIN) @ before.affine[:3, :3].T
    assert nearest_mm(places, brain) > MARGIN_MM


def nearest_mm(points: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    return float(cKDTree(others).query(points)[0].min())


@pytest.mark.parametrize(
    ("name", "enhanced"), [*((name, False) for name in GEOMETRIES), ("coronal", True)]
)
def test_the_face_goes_and_the_brain_stays_bit_for_bit(
    name: str, enhanced: bool, tmp_path: Path
) -> None:
    on = grid(name, oblique=True)
    if enhanced:
        files = (write_enhanced(tmp_path / "in.dcm", image(on), on.affine),)
    else:
        files = write(tmp_path / "in", on)
    cleaning = defaced(files, tmp_path / "out")
    assert not cleaning.refused
    (before,), (after,) = volumes_of(files), volumes_of(cleaning.written)
    assert_defaced(before, after)


def test_one_brain_serves_all_series_of_one_frame_of_reference(tmp_path: Path) -> None:
    """The T1 is asked, though the T2 comes first; each is cut on its own grid."""
    t1, t2 = grid("sagittal"), grid("coronal", oblique=True)
    files = write(tmp_path / "t2", t2, T2) + write(tmp_path / "t1", t1)
    truth = Truth()
    cleaning = defaced(files, tmp_path / "out", truth)
    assert [asked.describe() for asked in truth.asked] == [t1.describe()]
    for before, after in zip(volumes_of(files), volumes_of(cleaning.written), strict=True):
        assert_defaced(before, after)


@pytest.mark.parametrize("frame", [uid_of("another frame"), None])
def test_a_series_of_another_world_or_of_none_is_asked_itself(
    frame: str | None, tmp_path: Path
) -> None:
    apart = replace(T2, extra={"FrameOfReferenceUID": frame})
    files = write(tmp_path / "t1", grid()) + write(tmp_path / "t2", grid("coronal"), apart)
    truth = Truth()
    cleaning = defaced(files, tmp_path / "out", truth)
    assert len(truth.asked) == 2
    assert len(cleaning.written) == len(files)


def test_a_brain_that_goes_on_beyond_its_image_serves_no_other(tmp_path: Path) -> None:
    cut = grid().cropped((0, 0, 10), (48, 52, 20))
    low = grid().cropped((0, 0, 8), (48, 52, 22))
    files = write(tmp_path / "t1", cut) + write(tmp_path / "t2", low, T2)
    truth = Truth()
    cleaning = defaced(files, tmp_path / "out", truth)
    assert len(truth.asked) == 2
    assert len(cleaning.written) == len(files)
    for before, after in zip(volumes_of(files), volumes_of(cleaning.written), strict=True):
        brain = head_labels(before.grid) == BRAIN
        assert brain[:, :, 0].any()
        np.testing.assert_array_equal(after.array[brain], before.array[brain])


def test_what_makes_no_volume_is_refused_since_its_face_would_stay(tmp_path: Path) -> None:
    head = write(tmp_path / "t1", grid())
    middle = replace(PLAIN, seed="localiser", left_out=tuple(n for n in range(30) if n != 15))
    localiser = write(tmp_path / "localiser", grid("sagittal"), middle)
    gap = write(tmp_path / "gap", grid("coronal"), replace(PLAIN, seed="gap", left_out=(12, 13)))
    copy = tmp_path / "copy.dcm"
    again = dcmread(head[3])
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = uid_of("again")
    again.save_as(copy)
    files = (*localiser, *head, copy, *gap)
    cleaning = defaced(files, tmp_path / "out")
    assert len(cleaning.written) == len(head)
    reasons = {files[one.number - 1]: one.error for one in cleaning.refused}
    assert "one slice only" in reasons[localiser[0]].got
    assert all("2 missing slices" in reasons[path].got for path in gap)
    assert "its face would stay" in reasons.get(copy, reasons.get(head[3])).got  # type: ignore[union-attr]
    assert all("leave" in error.way_out.lower() for error in reasons.values())


def test_where_no_brain_is_found_nothing_is_written(tmp_path: Path) -> None:
    files = write(tmp_path / "in", grid())
    empty = Truth(lambda on: np.zeros(on.shape, np.bool_))
    cleaning = defaced(files, tmp_path / "out", empty)
    assert not cleaning.written
    assert not (tmp_path / "out").exists()
    assert {one.error.got for one in cleaning.refused} == {"0 mL found by the truth"}


def test_the_second_best_is_asked_where_the_best_shows_no_brain(tmp_path: Path) -> None:
    t1, t2 = grid(), grid("coronal")
    files = write(tmp_path / "t1", t1) + write(tmp_path / "t2", t2, T2)
    truth = Truth(
        lambda on: (
            np.zeros(on.shape, np.bool_) if on.axcodes == t1.axcodes else head_labels(on) == BRAIN
        )
    )
    cleaning = defaced(files, tmp_path / "out", truth)
    assert len(truth.asked) == 2
    for before, after in zip(volumes_of(files), volumes_of(cleaning.written), strict=True):
        assert_defaced(before, after)


def test_a_file_that_cannot_be_read_keeps_no_other_from_being_defaced(tmp_path: Path) -> None:
    files = write(tmp_path / "in", grid())
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(files[0].read_bytes()[:700])
    cleaning = defaced((bad, *files), tmp_path / "out")
    assert [one.number for one in cleaning.refused] == [1]


def test_a_caller_is_told_and_may_stop(tmp_path: Path) -> None:
    files = write(tmp_path / "in", grid())
    told: list[tuple[str, int, int]] = []
    find_faces(files, Truth().tool(), watch=Watch(progress=lambda *words: told.append(words)))
    assert told == [("faces", 0, 1), ("faces", 1, 1)]
    with pytest.raises(Cancelled):
        find_faces(files, Truth().tool(), watch=Watch(cancelled=lambda: True))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_real_head_loses_its_eyes_and_no_brain(real_cases: Path, tmp_path: Path) -> None:
    """With a real tool; the mask of the enhanced T1 was never seen by the native one."""
    folder = real_cases.parent / "raw_native" / "TCGA-FG-6692"
    if not folder.is_dir():
        pytest.skip("no study as it was scanned beside the BraTS cases: raw_native/TCGA-FG-6692")
    if not installed_tools():
        pytest.skip("no skull-strip tool here")
    scan = read_nifti(folder / "TCGA-FG-6692_t1c.nii.gz", argument="t1ce").reoriented("LPS")
    recipe = SeriesRecipe(facts=replace(T1_FACTS, description="t1 post"))
    files = write_series(tmp_path / "in", np.maximum(scan.array, 0), scan.affine, recipe)
    faces = find_faces(files, find_tool())
    cleaning = deidentify(files, tmp_path / "out", deface=faces.change_for)
    (before,), (after,) = volumes_of(files), volumes_of(cleaning.written)
    gone = before.array != after.array
    assert 0.10 < gone.mean() < 0.20
    for place, is_gone in (((32, 92, 10), True), ((-32, 92, 10), True), ((0, 0, 20), False)):
        at = Grid((1, 1, 1), _at(place))
        assert bool(resample(gone.astype(np.uint8), before.grid, at, order=0)[0, 0, 0]) == is_gone


def _at(place: tuple[float, float, float]) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, 3] = place
    return affine
