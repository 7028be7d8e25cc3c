"""Measures of label maps: against the slow truth, against formulas, in every orientation."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from model_core.errors import InputError
from model_core.findings import measure, to_csv
from model_core.findings.statistics import LISTED
from model_core.findings.structures import Line
from model_core.imaging.grid import Grid
from model_core.imaging.orientation import turn
from model_core.labels import region_mask, volumes_ml
from tests.model_core.findings import brute
from tests.model_core.imaging.builders import BRATS_AFFINE, ORIENTATIONS, oblique_affine

Labels = NDArray[np.uint8]
small_maps = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4)),
    elements=st.sampled_from([0, 0, 0, 1, 2, 3]),
)
affines = st.sampled_from([BRATS_AFFINE, oblique_affine(), np.diag([0.7, 2.0, 1.3, 1.0])])


def ball(
    shape: tuple[int, int, int], centre: tuple[float, ...], semi_axes: tuple[float, ...]
) -> NDArray[np.bool_]:
    """Voxels whose centres lie in an ellipsoid along the array axes, all in voxels."""
    index = np.indices(shape).reshape(3, -1).T
    inside = (((index - centre) / np.asarray(semi_axes)) ** 2).sum(axis=1) <= 1
    return inside.reshape(shape)


def tumour(shape: tuple[int, int, int] = (26, 22, 15), seed: int = 0) -> Labels:
    """Two lesions without symmetry, with every label."""
    noise = np.random.default_rng(seed).random(shape)
    labels = np.zeros(shape, np.uint8)
    labels[ball(shape, (11.2, 9.3, 7.1), (8.0, 6.0, 4.0)) & (noise > 0.1)] = 2
    labels[ball(shape, (12.1, 9.9, 7.0), (5.0, 3.0, 2.5)) & (noise > 0.2)] = 3
    labels[ball(shape, (12.1, 9.9, 7.0), (2.6, 1.5, 1.5))] = 1
    labels[22:25, 17:20, 10:12] = 2
    return labels


@settings(max_examples=30, deadline=None)
@given(small_maps, affines)
def test_diameters_are_those_of_trying_every_pair(
    labels: Labels, affine: NDArray[np.float64]
) -> None:
    grid = Grid(labels.shape, affine)
    found = measure(labels, grid)
    axial = next(axis for axis, code in enumerate(grid.axcodes) if code in "SI")
    for region in ("WT", "TC", "ET"):
        lesions = brute.parts(region_mask(labels, region))
        structure = found[region]
        assert structure.components == len(lesions)
        if not lesions:
            assert structure.diameter is structure.axial is structure.place is None
            continue
        assert structure.diameter is not None
        assert structure.axial is not None
        assert structure.diameter.length_mm == pytest.approx(
            max(brute.longest_in_space(lesion, affine) for lesion in lesions)
        )
        assert structure.axial.product_mm2 == pytest.approx(
            max(brute.largest_product(lesion, affine, axial) for lesion in lesions)
        )


@settings(max_examples=30, deadline=None)
@given(small_maps, affines)
def test_the_lines_are_as_long_as_they_say_at_right_angles_and_within_the_box(
    labels: Labels, affine: NDArray[np.float64]
) -> None:
    def length(line: Line) -> float:
        return float(np.linalg.norm(np.subtract(line.end_mm, line.start_mm)))

    for structure in measure(labels, Grid(labels.shape, affine)).structures:
        for lesion in structure.lesions:
            axial = lesion.axial
            for line in (lesion.diameter, axial.long, axial.short):
                assert length(line) == pytest.approx(line.length_mm, abs=1e-9)
                for end in (line.start_mm, line.end_mm):
                    low, high = np.array(lesion.place.box_mm)
                    assert (low - 1e-6 <= end).all()
                    assert (end <= high + 1e-6).all()
            long = np.subtract(axial.long.end_mm, axial.long.start_mm)
            short = np.subtract(axial.short.end_mm, axial.short.start_mm)
            assert abs(long @ short) <= 1e-6 * max(1.0, axial.product_mm2)
            assert axial.product_mm2 == axial.long.length_mm * axial.short.length_mm
            assert axial.short.length_mm <= axial.long.length_mm * (1 + 1e-9)


@settings(max_examples=20, deadline=None)
@given(small_maps, affines)
def test_volumes_are_those_of_the_label_map(labels: Labels, affine: NDArray[np.float64]) -> None:
    grid = Grid(labels.shape, affine)
    found = measure(labels, grid)
    for name, volume in volumes_ml(labels, grid.voxel_ml).items():
        assert found[name].volume_ml == pytest.approx(volume)
        listed = sum(lesion.voxels for lesion in found[name].lesions)
        assert (listed == found[name].voxels) == (found[name].components <= LISTED)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.8, 1.5)])
def test_an_ellipsoid_has_its_axes_volume_and_centre(spacing: tuple[float, ...]) -> None:
    semi_mm, centre_mm = np.array([24.0, 15.0, 18.0]), np.array([31.0, 24.5, 27.0])
    shape = tuple(int(60 / step) for step in spacing)
    inside = ball(shape, tuple(centre_mm / spacing), tuple(semi_mm / spacing))
    found = measure(inside * np.uint8(3), Grid(shape, np.diag([*spacing, 1.0])))["ET"]
    assert found.volume_ml == pytest.approx(4 / 3 * np.pi * semi_mm.prod() / 1000, rel=0.01)
    assert found.place is not None
    assert found.diameter is not None
    assert found.axial is not None
    np.testing.assert_allclose(found.place.centroid_mm, centre_mm, atol=0.05)
    assert found.diameter.length_mm == pytest.approx(48, abs=1.0)
    assert found.axial.long.length_mm == pytest.approx(48, abs=1.0)
    assert found.axial.short.length_mm == pytest.approx(30, abs=1.0)
    assert found.axial.index == pytest.approx(27 / spacing[2], abs=1)
    assert found.axial.slices == pytest.approx(36 / spacing[2], abs=1)
    low, high = np.array(found.place.box_mm)
    np.testing.assert_allclose(high - low, 2 * semi_mm, atol=max(spacing))


@pytest.mark.parametrize("degrees", [0, 17, 30, 45, 71])
def test_an_ellipse_turned_in_its_slice_keeps_its_two_axes(degrees: float) -> None:
    x, y = np.indices((90, 90)) - 44.3
    angle = np.radians(degrees)
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    slices = (((u / 40) ** 2 + (v / 20) ** 2) <= 1)[:, :, None]
    found = measure(slices * np.uint8(1), Grid((90, 90, 1), np.eye(4)))["NCR"].axial
    assert found is not None
    assert found.long.length_mm == pytest.approx(80, abs=0.7)
    assert found.short.length_mm == pytest.approx(40, abs=1.2)


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_nothing_depends_on_the_order_of_the_voxels(axcodes: str) -> None:
    labels, grid = tumour(), Grid((26, 22, 15), oblique_affine())
    turned = np.ascontiguousarray(turn(labels, grid.axcodes, axcodes))
    one, other = measure(labels, grid), measure(turned, grid.reoriented(axcodes))
    for here, there in zip(one.structures, other.structures, strict=True):
        a, b = here.row(), there.row()
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert b[name] == (pytest.approx(value) if isinstance(value, float) else value), name
        for first, second in zip(here.lesions, there.lesions, strict=True):
            assert first.voxels == second.voxels
            np.testing.assert_allclose(first.diameter.start_mm, second.diameter.start_mm)
            np.testing.assert_allclose(first.axial.long.end_mm, second.axial.long.end_mm)
            np.testing.assert_allclose(first.axial.short.start_mm, second.axial.short.start_mm)
            np.testing.assert_allclose(first.place.box_mm, second.place.box_mm)


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SPL", "AIR"])
def test_voxel_indices_are_those_of_the_array_that_came(axcodes: str) -> None:
    grid = Grid((26, 22, 15), oblique_affine()).reoriented(axcodes)
    labels = np.ascontiguousarray(turn(tumour(), "RAS", axcodes))
    found = measure(labels, grid)["ET"]
    (lesion,) = found.lesions[:1]
    start, stop = lesion.place.box_voxel
    inside = labels[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] == 3
    assert np.count_nonzero(inside) >= lesion.voxels
    for axis in range(3):
        faces = inside.any(axis=tuple(other for other in range(3) if other != axis))
        assert faces[0]
        assert faces[-1]
    homogeneous = [*lesion.place.centroid_voxel, 1.0]
    np.testing.assert_allclose((grid.affine @ homogeneous)[:3], lesion.place.centroid_mm)
    axial = lesion.axial
    inverse = np.linalg.inv(grid.affine)
    for end in (axial.long.start_mm, axial.long.end_mm, axial.short.start_mm, axial.short.end_mm):
        assert (inverse @ [*end, 1.0])[axial.axis] == pytest.approx(axial.index)
    assert (labels.take(axial.index, axis=axial.axis) == 3).any()


def test_one_voxel_is_as_long_as_its_sides() -> None:
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[1, 1, 1] = 3
    found = measure(labels, Grid((3, 3, 3), np.diag([1.0, 2.0, 5.0, 1.0])))["ET"]
    assert found.diameter is not None
    assert found.axial is not None
    assert found.diameter.length_mm == 5.0
    assert (found.axial.long.length_mm, found.axial.short.length_mm) == (2.0, 1.0)
    assert found.axial.slices == 1


def test_a_rim_is_measured_across_what_it_surrounds() -> None:
    disc = ball((41, 41, 1), (20, 20, 0), (15.2, 15.2, 0.5))
    hole = ball((41, 41, 1), (20, 20, 0), (11.2, 11.2, 0.5))
    labels = np.where(hole, 1, 3 * disc).astype(np.uint8)
    found = measure(labels, Grid((41, 41, 1), np.eye(4)))
    rim, core = found["ET"].axial, found["TC"].axial
    assert rim is not None
    assert core is not None
    assert rim.product_mm2 == pytest.approx(core.product_mm2)
    assert rim.long.length_mm == pytest.approx(31, abs=0.6)


def test_no_line_joins_two_lesions_and_a_corner_makes_one_of_them() -> None:
    labels = np.zeros((20, 5, 1), np.uint8)
    labels[0:4, 1:3] = labels[16:20, 1:3] = 2
    grid = Grid((20, 5, 1), np.eye(4))
    apart = measure(labels, grid)["WT"]
    assert apart.components == 2
    assert apart.diameter is not None
    assert apart.diameter.length_mm < 5
    labels[4:6, 3] = labels[6:16, 2] = 2
    joined = measure(labels, grid)["WT"]
    assert joined.components == 1
    assert joined.diameter is not None
    assert joined.diameter.length_mm >= 20


@pytest.mark.parametrize(("short", "reaches"), [(10, True), (9, False)])
def test_ten_millimetres_in_both_diameters_reach_the_threshold(short: int, reaches: bool) -> None:
    # a diamond-like shape whose diameters lie along the axes
    x, y = np.indices((41, 41)) - 20
    labels = ((np.abs(x) / 15 + np.abs(y) / (short / 2)) <= 1)[:, :, None] * np.uint8(3)
    found = measure(labels, Grid((41, 41, 1), np.eye(4)))["ET"].axial
    assert found is not None
    assert found.reaches_rano is reaches
    assert (min(found.long.length_mm, found.short.length_mm) >= 10) is reaches


def test_the_largest_come_first_and_only_so_many() -> None:
    labels = np.zeros((60, 60, 3), np.uint8)
    for number in range(14):
        row, column = divmod(number, 7)
        labels[8 * column : 8 * column + 1 + number % 5, 9 * row : 9 * row + 2, 1] = 2
    found = measure(labels, Grid((60, 60, 3), np.eye(4)))["ED"]
    assert found.components == 14
    sizes = [lesion.voxels for lesion in found.lesions]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == LISTED


def test_an_empty_map_has_structures_without_measures() -> None:
    found = measure(np.zeros((4, 5, 6), np.uint8), Grid((4, 5, 6), np.eye(4)))
    assert [structure.voxels for structure in found.structures] == [0] * 5
    assert json.loads(json.dumps(found.to_dict()))["structures"]["WT"]["axial"] is None
    assert found.rows()[0]["axial_product_mm2"] is None


def test_json_and_table_say_the_same() -> None:
    found = measure(tumour(), Grid((26, 22, 15), oblique_affine()))
    stored = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    rows = list(csv.DictReader(io.StringIO(to_csv({"one": found, "two, too": found}))))
    assert [row["study"] for row in rows] == ["one"] * 5 + ["two, too"] * 5
    assert {row["structure"] for row in rows} == set(stored["structures"])
    for row in rows:
        structure = stored["structures"][row["structure"]]
        assert float(row["volume_ml"]) == structure["volume_ml"]
        assert float(row["axial_product_mm2"]) == structure["axial"]["product_mm2"]
        assert float(row["centroid_a_mm"]) == structure["place"]["centroid_mm"][1]
        assert int(row["components"]) == structure["components"]
    assert to_csv({}) == ""


def test_labels_on_another_grid_are_refused() -> None:
    with pytest.raises(InputError, match="shape of their grid"):
        measure(np.zeros((4, 5, 6), np.uint8), Grid((4, 5, 7), np.eye(4)))
