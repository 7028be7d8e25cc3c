"""Two time points: nothing changes where nothing changed, and a known change is found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model_core.errors import StudyError
from model_core.imaging.grid import Grid
from model_core.imaging.volume import Volume
from model_core.labels import REGIONS
from model_core.report.change import CHANGE_COLOURS, change_report
from model_core.report.compare import Comparison, Timepoint, _warnings, compare
from model_core.report.cuts import SIDE
from tests.model_core.preparation.builders import head_affine, movement
from tests.model_core.report.studies import CENTRE_MM, ball_ml, page_of, t1ce, tumour

SMALL_MM, LARGE_MM = 18.0, 24.0
MOVED = movement((6.0, -4.0, 9.0), (7.0, -5.0, 4.0))
OTHER_GRID = Grid((60, 58, 66), head_affine((60, 58, 66), 3.2))
VOLUME_TOLERANCE = 0.03
"""Of a ball counted in voxels of 3.5 mm, measured against 4/3 π r³."""
RIM_MM = 1.0
"""Movement that registration may miss by at these voxels; it makes a rim of new and gone."""


def rim_ml(radius_mm: float) -> float:
    """What a ball moved by `RIM_MM` covers anew, at most: half of its surface as deep as that."""
    return 2 * np.pi * radius_mm**2 * RIM_MM / 1000


def before() -> Timepoint:
    image = t1ce()
    return Timepoint(labels=tumour(image.grid, SMALL_MM), images={"t1ce": image})


def after(radius_mm: float) -> Timepoint:
    """The same head after it moved, scanned on another grid, with a tumour of that radius."""
    image = t1ce(MOVED, OTHER_GRID)
    centre = (MOVED @ np.array([*CENTRE_MM, 1.0]))[:3]
    return Timepoint(labels=tumour(OTHER_GRID, radius_mm, tuple(centre)), images={"t1ce": image})


@pytest.fixture(scope="module")
def grown() -> tuple[Timepoint, Timepoint, Comparison]:
    old, new = before(), after(LARGE_MM)
    return old, new, compare(old, new)


def test_a_time_point_does_not_differ_from_itself() -> None:
    point = before()
    found = compare(point, point)
    np.testing.assert_array_equal(found.carried, point.labels.array)
    assert found.before == found.after
    for region in REGIONS:
        change = found.changes[region]
        assert (change.new, change.gone) == (0.0, 0.0)
        assert change.stable == pytest.approx(found.after[region].volume_ml)
    assert found.alignment.kept
    assert found.warnings == ()


@pytest.mark.slow
def test_a_known_movement_alone_is_no_change() -> None:
    old, new = before(), after(SMALL_MM)
    found = compare(old, new)
    np.testing.assert_allclose(found.alignment.matrix[:3, :3], MOVED[:3, :3], atol=0.02)
    difference = found.after["WT"].volume_ml - found.before["WT"].volume_ml
    assert abs(difference) <= 2 * VOLUME_TOLERANCE * ball_ml(SMALL_MM)
    change = found.changes["WT"]
    noise = rim_ml(SMALL_MM) + VOLUME_TOLERANCE * ball_ml(SMALL_MM)
    assert change.new <= noise
    assert change.gone <= noise
    assert change.stable >= ball_ml(SMALL_MM) - 2 * noise


@pytest.mark.slow
def test_a_known_growth_is_found(grown: tuple[Timepoint, Timepoint, Comparison]) -> None:
    _, _, found = grown
    for region, share in (("WT", 1.0), ("ET", 0.5)):
        small, large = ball_ml(SMALL_MM * share), ball_ml(LARGE_MM * share)
        tolerance = 2 * VOLUME_TOLERANCE * large / share  # a smaller ball is counted less well
        difference = found.after[region].volume_ml - found.before[region].volume_ml
        assert difference == pytest.approx(large - small, abs=tolerance)
    change = found.changes["WT"]
    tolerance = 2 * VOLUME_TOLERANCE * ball_ml(LARGE_MM)
    assert change.new == pytest.approx(ball_ml(LARGE_MM) - ball_ml(SMALL_MM), abs=tolerance)
    assert change.gone <= VOLUME_TOLERANCE * ball_ml(SMALL_MM)
    assert change.new - change.gone == pytest.approx(
        found.after["WT"].volume_ml - found.before["WT"].volume_ml, abs=tolerance
    )


@pytest.mark.slow
def test_the_report_shows_it_in_colour_and_in_numbers(
    grown: tuple[Timepoint, Timepoint, Comparison],
) -> None:
    page = page_of(change_report(*grown))
    _, _, found = grown
    (picture,) = page.pictures()
    seen = [np.asarray(picture.convert("RGB"))[top : top + SIDE] for top in (0, SIDE + 2)]
    assert (seen[0] == CHANGE_COLOURS[1]).all(axis=-1).any(), "the earlier outline"
    assert (seen[1] == CHANGE_COLOURS[0]).all(axis=-1).any(), "the later outline"
    change = found.changes["WT"]
    assert f"Whole tumour {change.new:.1f} {change.gone:.1f}" in page.text.replace("0.00", "0.0")
    old, new = found.before["WT"].volume_ml, found.after["WT"].volume_ml
    row = f"{old:.1f} {new:.1f} {new - old:+.1f} {(new - old) / old:+.0%}"
    assert row in page.text
    assert "It is not known whether one model made both" in page.text
    for word in ("progression", "response", "pseudo", "recurrence"):
        assert word not in page.text.lower(), "no diagnosis"


def test_a_poor_registration_is_told() -> None:
    point = before()
    found = compare(point, point)
    poor = replace(found.alignment, loss=0.22, covered=0.8, rotation_deg=30.0)
    told = _warnings(poor, found.before, found.before)
    assert len(told) == 3
    assert _warnings(found.alignment, found.before, found.before) == []
    image = t1ce()
    half = Volume(np.where(np.arange(image.shape[0])[:, None, None] < 27, 1, 0), image.affine)
    empty = Volume((half.array * point.labels.array).astype(np.uint8), image.affine)
    from model_core.findings import measure

    assert len(_warnings(found.alignment, found.before, measure(empty.array, empty.grid))) == 1


def test_a_time_point_without_t1ce_is_refused_by_its_name() -> None:
    point = before()
    with pytest.raises(StudyError, match="after: expected the contrast-enhanced T1"):
        compare(point, replace(point, images={}))


@pytest.mark.slow
def test_another_picture_than_a_head_is_refused() -> None:
    point = before()
    noise = np.random.default_rng(0).normal(300, 100, point.labels.shape).astype(np.float32)
    other = Timepoint(labels=point.labels, images={"t1ce": Volume(noise, point.labels.affine)})
    with pytest.raises(StudyError, match="before: expected a T1ce of the same head"):
        compare(other, point)
