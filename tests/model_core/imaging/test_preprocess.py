from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from model_core.errors import OptionError, StudyError
from model_core.imaging import preprocess
from model_core.imaging.grid import Grid
from model_core.imaging.nifti import read_label_map, write_nifti
from model_core.imaging.orientation import turn
from model_core.imaging.preprocess import (
    Prepared,
    Preprocessing,
    prepare,
    prepare_labels,
    prepare_volumes,
)
from model_core.imaging.study import Study, load_study, make_study
from model_core.imaging.volume import NiftiFrame, Volume
from model_core.types import CONTRASTS
from tests.model_core.imaging.builders import (
    BRATS_AFFINE,
    ORIENTATIONS,
    oblique_affine,
    random_study,
)

SHAPE = (12, 13, 14)


class Intensity(NamedTuple):
    mean: float
    sd: float
    low: float
    high: float


SPACINGS = ((1.0, 1.0, 1.0), (1.3, 0.8, 2.0))


def spec(**changed: Any) -> Preprocessing:
    options: dict[str, Any] = {
        "channels": CONTRASTS,
        "orientation": "SPL",
        "spacing_mm": (1.0, 1.0, 1.0),
        "normalisation": "zscore-nonzero",
    }
    return Preprocessing(**{**options, **changed})


def in_orientation(study: Study, axcodes: str) -> Study:
    return make_study({c: v.reoriented(axcodes) for c, v in study.volumes.items()})


def some_labels(prepared: Prepared, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 4, prepared.image.shape[1:]).astype(np.uint8)


# Forward


def test_the_image_is_the_turned_crop_with_each_contrast_at_zero_mean_and_unit_deviation() -> None:
    study = random_study(SHAPE)
    prepared = prepare(study, spec())
    assert not prepared.resampled
    for channel, contrast in zip(prepared.image, CONTRASTS, strict=True):
        whole = turn(study.volumes[contrast].array, "LPS", "SPL").astype(np.float64)
        values = whole[whole != 0]
        expected = np.where(whole != 0, (whole - values.mean()) / values.std(), 0)[prepared.box]
        np.testing.assert_allclose(channel, expected, atol=1e-5)
        inside = channel[expected != 0].astype(np.float64)
        assert inside.mean() == pytest.approx(0, abs=1e-5)
        assert inside.std() == pytest.approx(1, abs=1e-5)


def test_zeros_stay_exactly_zero() -> None:
    study = random_study(SHAPE)
    prepared = prepare(study, spec())
    for channel, contrast in zip(prepared.image, CONTRASTS, strict=True):
        stored = turn(study.volumes[contrast].array, "LPS", "SPL")[prepared.box]
        assert (channel[stored == 0] == 0).all()


def test_the_box_is_the_smallest_around_all_contrasts() -> None:
    volumes = dict(random_study(SHAPE).volumes)
    for contrast in CONTRASTS:
        array = np.zeros(SHAPE, np.float32)
        array[4:6, 5:8, 6:9] = np.arange(18).reshape(2, 3, 3)
        volumes[contrast] = Volume(array, np.eye(4))
    far = volumes["t2"].array.copy()
    far[9, 2, 13] = 5
    volumes["t2"] = Volume(far, np.eye(4))
    prepared = prepare(make_study(volumes), spec(orientation="RAS"))
    assert prepared.box == (slice(4, 10), slice(2, 8), slice(6, 14))
    assert prepared.image.shape == (4, 6, 6, 8)
    assert prepared.brain[5, 0, 7]
    assert prepared.brain.sum() == 18  # 17 of the ramp (its first voxel is 0) and the far one


def test_zscore_box_counts_the_zeros() -> None:
    prepared = prepare(random_study(SHAPE), spec(normalisation="zscore-box"))
    for channel in prepared.image.astype(np.float64):
        assert channel.mean() == pytest.approx(0, abs=1e-5)
        assert channel.std() == pytest.approx(1, abs=1e-5)


def test_channels_come_in_the_order_asked_for() -> None:
    study = random_study(SHAPE)
    one, other = prepare(study, spec()), prepare(study, spec(channels=("flair", "t1")))
    np.testing.assert_array_equal(other.image[1], one.image[0])
    np.testing.assert_array_equal(other.image[0], one.image[3])


@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_model_grid_says_where_the_image_lies(spacing: Any) -> None:
    study = random_study(SHAPE, oblique_affine((1.0, 1.0, 1.0)))
    prepared = prepare(study, spec(spacing_mm=spacing))
    grid = prepared.model_grid
    assert grid.shape == prepared.image.shape[1:]
    assert grid.axcodes == "SPL"
    np.testing.assert_allclose(grid.spacing_mm, spacing, rtol=1e-6)
    centres = [g.affine @ (*((np.array(g.shape) - 1) / 2), 1) for g in (grid, prepared.box_grid)]
    np.testing.assert_allclose(*centres, atol=1e-9)
    extents = [np.multiply(g.shape, g.spacing_mm) for g in (grid, prepared.box_grid)]
    assert np.abs(np.subtract(*extents)).max() <= max(spacing) / 2 + 1e-9


def test_a_spacing_within_tolerance_is_not_resampled() -> None:
    study = random_study(SHAPE, np.diag((1.0005, 0.9995, 1.0, 1.0)))
    assert not prepare(study, spec()).resampled
    study = random_study(SHAPE, np.diag((1.002, 1.0, 1.0, 1.0)))
    assert prepare(study, spec()).resampled


# The orientation law: exact, for every one of the 48


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("affine", [BRATS_AFFINE, oblique_affine()], ids=["brats", "oblique"])
@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_a_study_in_any_orientation_gives_the_same_image_and_the_same_map(
    axcodes: str, affine: Any, spacing: Any
) -> None:
    study = random_study((9, 11, 10), affine)
    turned = in_orientation(study, axcodes)
    plain, other = (prepare(s, spec(spacing_mm=spacing)) for s in (study, turned))
    np.testing.assert_array_equal(other.image, plain.image)
    np.testing.assert_array_equal(other.brain, plain.brain)
    labels = some_labels(plain)
    native = study.native.axcodes
    np.testing.assert_array_equal(
        other.restore_labels(labels), turn(plain.restore_labels(labels), native, axcodes)
    )
    fill = (0.5, -3, -4, -5)
    np.testing.assert_array_equal(
        other.restore_scores(plain.image, fill),
        turn(plain.restore_scores(plain.image, fill), native, axcodes),
    )


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_labels_go_to_any_model_orientation_and_come_back_exactly(orientation: str) -> None:
    study = random_study(SHAPE, oblique_affine())
    prepared = prepare(study, spec(orientation=orientation, spacing_mm=_spacing(orientation)))
    assert not prepared.resampled
    brain = sum(v.array for v in study.volumes.values()) != 0
    truth = np.random.default_rng(3).integers(0, 4, SHAPE).astype(np.uint8) * brain
    np.testing.assert_array_equal(prepared.restore_labels(prepare_labels(truth, prepared)), truth)


def _spacing(orientation: str) -> tuple[float, ...]:
    return Grid((1, 1, 1), oblique_affine()).reoriented(orientation).spacing_mm


# The way back


def test_labels_stay_with_their_voxels() -> None:
    study = random_study(SHAPE)
    prepared = prepare(study, spec())
    boxed = turn(study.volumes["t2"].array, "LPS", "SPL")[prepared.box]
    labels = (boxed > 200).astype(np.uint8)
    np.testing.assert_array_equal(prepared.restore_labels(labels), study.volumes["t2"].array > 200)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_constant_scores_stay_constant_in_the_box_and_fill_the_outside(spacing: Any) -> None:
    prepared = prepare(random_study(SHAPE), spec(spacing_mm=spacing))
    scores = np.stack([np.full(prepared.model_grid.shape, v, np.float32) for v in (2.0, -1.5)])
    native = prepared.restore_scores(scores, (9.0, -9.0))
    inside = prepared.paste(np.ones(prepared.box_grid.shape, np.uint8)) == 1
    for channel, value, fill in zip(native, (2.0, -1.5), (9.0, -9.0), strict=True):
        np.testing.assert_allclose(channel[inside], value, rtol=1e-6)
        assert (channel[~inside] == fill).all()


def test_a_ramp_of_scores_is_a_ramp_in_the_native_world() -> None:
    study = random_study((20, 22, 24), oblique_affine((1.0, 1.0, 1.0)))
    prepared = prepare(study, spec(spacing_mm=(0.7, 0.8, 0.9)))
    ramps = [_ramp(grid) for grid in (prepared.model_grid, study.native.grid)]
    native = prepared.restore_scores(ramps[0][None], (0.0,))[0]
    inner = np.zeros(prepared.box_grid.shape, np.uint8)
    inner[2:-2, 2:-2, 2:-2] = 1
    inside = prepared.paste(inner) == 1
    np.testing.assert_allclose(native[inside], ramps[1][inside], atol=5e-2)


def _ramp(grid: Grid) -> np.ndarray:
    index = np.indices(grid.shape).reshape(3, -1)
    places = grid.affine[:3, :3] @ index + grid.affine[:3, 3:]
    return (np.array((0.3, -0.8, 0.5)) @ places).reshape(grid.shape).astype(np.float32)


def test_deciding_on_the_box_equals_deciding_on_the_native_grid() -> None:
    prepared = prepare(random_study(SHAPE), spec(spacing_mm=SPACINGS[1]))
    scores = prepared.image
    on_native = prepared.restore_scores(scores, (1.0, 0, 0, 0)).argmax(axis=0)
    on_box = prepared.paste(prepared.scores_on_box(scores).argmax(axis=0).astype(np.uint8))
    np.testing.assert_array_equal(on_box, on_native)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.3, 1.7, 1.4), (0.7, 0.4, 0.9)])
@pytest.mark.parametrize("slab_bytes", [1, 3000, 2**26])
def test_slabs_of_scores_are_the_scores_on_the_box(
    monkeypatch: pytest.MonkeyPatch, slab_bytes: int, spacing: Any
) -> None:
    """In order and without gaps, for the same, a coarser and a finer model."""
    monkeypatch.setattr(preprocess, "_SLAB_BYTES", slab_bytes)
    prepared = prepare(random_study(SHAPE), spec(spacing_mm=spacing))
    scores = np.random.default_rng(5).standard_normal((3, *prepared.image.shape[1:]))
    slabs = list(prepared.scores_by_slab(scores.astype(np.float32)))
    stops = [0, *(rows.stop for rows, _ in slabs)]
    assert [rows.start for rows, _ in slabs] == stops[:-1]
    whole = prepared.scores_on_box(scores.astype(np.float32))
    joined = np.concatenate([part for _, part in slabs], axis=1)
    np.testing.assert_allclose(joined, whole, rtol=0, atol=1e-6)
    if slab_bytes == 1 and spacing == (2.3, 1.7, 1.4):
        assert len(slabs) == prepared.box_grid.shape[0]


def test_a_ball_survives_the_way_to_the_model_and_back_through_another_spacing() -> None:
    study = random_study((30, 32, 34), np.diag((1.0, 1.0, 1.0, 1.0)))
    prepared = prepare(study, spec(spacing_mm=(0.6, 0.7, 1.5)))
    distance = np.linalg.norm(np.indices((30, 32, 34)).T - (14, 15, 16), axis=-1).T
    ball = (distance < 8).astype(np.uint8)
    back = prepared.restore_labels(prepare_labels(ball, prepared))
    dice = 2 * (back & ball).sum() / (back.sum() + ball.sum())
    assert dice > 0.95


# Any channels on one grid


def volumes_with_a_hole() -> tuple[Volume, Volume]:
    """Two channels; the second alone reaches voxel (1, 1, 1), and (5, 5, 5) is a hole in both."""
    generator = np.random.default_rng(3)
    first, second = generator.uniform(50, 90, (2, *SHAPE)).astype(np.float32)
    for array in (first, second):
        array[0] = array[-1] = array[:, 0] = array[:, -1] = array[:, :, 0] = array[:, :, -1] = 0
        array[5, 5, 5] = 0
    first[1, 1, 1] = 0
    return Volume(first, BRATS_AFFINE), Volume(second, BRATS_AFFINE)


def test_zscore_brain_is_over_the_filled_union_of_the_channels() -> None:
    volumes = volumes_with_a_hole()
    wanted = spec(channels=("a", "b"), orientation="LPS", normalisation="zscore-brain")
    prepared = prepare_volumes(volumes, wanted)
    assert prepared.brain.all()  # the box is the brain here: hole and gap are inside
    for channel, volume in zip(prepared.image, volumes, strict=True):
        inside = volume.array[1:-1, 1:-1, 1:-1].astype(np.float64)
        np.testing.assert_allclose(channel, (inside - inside.mean()) / inside.std(), atol=1e-5)
    assert prepared.image[0, 0, 0, 0] != 0
    assert prepared.image[1, 4, 4, 4] != 0


def test_zscore_brain_leaves_zeros_outside() -> None:
    array = np.zeros(SHAPE, np.float32)
    array[3, 4:9, 5] = array[3:8, 4, 5] = np.arange(1, 6)
    prepared = prepare_volumes(
        [Volume(array, BRATS_AFFINE)],
        spec(channels=("a",), orientation="LPS", normalisation="zscore-brain"),
    )
    np.testing.assert_array_equal(prepared.brain, array[prepared.box] != 0)
    assert (prepared.image[0][~prepared.brain] == 0).all()
    assert prepared.image[0][prepared.brain].mean() == pytest.approx(0, abs=1e-6)


def test_ct_clips_and_scales_by_what_is_known_of_the_data_set() -> None:
    array = np.linspace(-1000, 1000, np.prod(SHAPE)).reshape(SHAPE).astype(np.float32)
    known = Intensity(mean=40, sd=20, low=-100, high=200)
    prepared = prepare_volumes(
        [Volume(array, BRATS_AFFINE)],
        spec(channels=("ct",), orientation="LPS", normalisation="ct", intensities=(known,)),
    )
    expected = (array.astype(np.float64).clip(-100, 200) - 40) / 20
    np.testing.assert_allclose(prepared.image[0], expected[prepared.box], atol=1e-5)
    assert prepared.brain.all()


def test_none_keeps_every_value_and_no_spacing_resamples_nothing() -> None:
    array = np.arange(1 * 9 * 11, dtype=np.float32).reshape(1, 9, 11)
    volume = Volume(array, np.diag([7.0, 0.3, 0.9, 1.0]))
    wanted = spec(channels=("x",), orientation="RAS", spacing_mm=None, normalisation="none")
    prepared = prepare_volumes([volume], wanted)
    assert not prepared.resampled
    np.testing.assert_array_equal(prepared.image[0], array)


def test_volumes_must_be_one_per_channel_and_on_one_grid() -> None:
    volumes = volumes_with_a_hole()
    with pytest.raises(StudyError, match="images: expected one for each of a, b, c, got 2"):
        prepare_volumes(volumes, spec(channels=("a", "b", "c")))
    moved = Volume(volumes[1].array, BRATS_AFFINE + np.diag([0.5, 0, 0, 0]))
    with pytest.raises(StudyError, match="b: expected the grid of a"):
        prepare_volumes([volumes[0], moved], spec(channels=("a", "b")))


# Refusals


def test_an_image_that_is_constant_in_the_brain_is_named() -> None:
    volumes = dict(random_study(SHAPE).volumes)
    mask = (volumes["t2"].array > 0).astype(np.float32) * 7
    volumes["t2"] = Volume(mask, BRATS_AFFINE)
    with pytest.raises(StudyError, match="t2: expected an image whose voxels differ"):
        prepare(make_study(volumes), spec())


@pytest.mark.parametrize(
    "changed",
    [
        {"channels": ()},
        {"channels": ("t1", "t1")},
        {"channels": ("t1", "")},
        {"orientation": "SPX"},
        {"spacing_mm": (1.0, 1.0)},
        {"spacing_mm": (1.0, 0.0, 1.0)},
        {"spacing_mm": (1.0, float("nan"), 1.0)},
        {"normalisation": "percentile"},
    ],
)
def test_an_unknown_option_is_refused_by_name(changed: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as caught:
        spec(**changed)
    assert caught.value.argument == next(iter(changed))


def test_a_channel_that_the_study_lacks_is_named() -> None:
    with pytest.raises(StudyError, match="dwi: expected this contrast"):
        prepare(random_study(SHAPE), spec(channels=("t1", "dwi")))


@pytest.mark.parametrize("known", [None, (), (Intensity(0, 0, 0, 1),), (Intensity(0, 1, 1, 1),)])
def test_ct_needs_the_intensities_of_every_channel(known: Any) -> None:
    with pytest.raises(OptionError, match="intensities"):
        spec(channels=("ct",), normalisation="ct", intensities=known)


def test_arrays_on_another_grid_are_refused() -> None:
    prepared = prepare(random_study(SHAPE), spec())
    wrong = np.zeros((3, 3, 3), np.uint8)
    for act in (
        lambda: prepared.restore_labels(wrong),
        lambda: prepared.restore_scores(wrong[None].astype(np.float32), (0,)),
        lambda: prepared.paste(wrong),
        lambda: prepare_labels(wrong, prepared),
    ):
        with pytest.raises(StudyError, match="expected an array of"):
            act()


def test_real_truth_comes_back_exactly(real_cases: Path) -> None:
    case = "BraTS2021_01657"
    study = load_study({c: real_cases / case / f"{case}_{c}.nii.gz" for c in CONTRASTS})
    truth, _ = read_label_map(real_cases / case / f"{case}_seg.nii.gz", argument="truth")
    prepared = prepare(study, spec())
    np.testing.assert_array_equal(prepared.restore_labels(prepare_labels(truth, prepared)), truth)
    for channel in prepared.image:
        assert channel[channel != 0].std(dtype=np.float64) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("axcodes", ["RAS", "PIR", "SLA"])
@pytest.mark.parametrize("codes", [(1, 1), (0, 1), (2, 0)])
def test_the_law_holds_through_files_in_another_orientation(
    tmp_path: Path, axcodes: str, codes: tuple[int, int]
) -> None:
    frame = NiftiFrame(sform_code=codes[0], qform_code=codes[1])
    study = random_study(SHAPE, oblique_affine((1.0, 1.0, 2.2)))
    images = []
    for turned in (study.native.axcodes, axcodes):
        for contrast, volume in study.volumes.items():
            held = Volume(volume.array, volume.affine, frame).reoriented(turned)
            write_nifti(tmp_path / f"{contrast}.nii", held)
        images.append(prepare(load_study({c: tmp_path / f"{c}.nii" for c in CONTRASTS}), spec()))
    plain, other = images
    assert plain.resampled
    np.testing.assert_array_equal(other.image, plain.image)
