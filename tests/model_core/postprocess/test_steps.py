"""What each correction does, and what it never does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from model_core.errors import OptionError
from model_core.labels import region_mask
from model_core.postprocess import (
    fill_holes,
    keep_largest,
    keep_largest_of,
    relabel_small_et,
    remove_small_components,
)
from model_core.types import Region

MM = (1.0, 1.0, 1.0)
NCR, ED, ET = 1, 2, 3
Labels = NDArray[np.uint8]

maps = hnp.arrays(np.uint8, (4, 5, 4), elements=st.sampled_from([0, 0, 1, 2, 3]))
regions = st.sampled_from(["WT", "TC", "ET"])


def line(*values: int) -> Labels:
    """A map of one row, so that components can be read off the page."""
    return np.array(values, dtype=np.uint8).reshape(-1, 1, 1)


def row(labels: Labels) -> list[int]:
    return [int(value) for value in labels.ravel()]


def ball(size: int, value: int, shape: int = 9) -> Labels:
    """A centred cube of one label."""
    labels = np.zeros((shape,) * 3, dtype=np.uint8)
    start = (shape - size) // 2
    labels[(slice(start, start + size),) * 3] = value
    return labels


class TestRemoveSmallComponents:
    def test_small_tumours_become_background(self) -> None:
        labels = line(2, 1, 0, 3, 2, 2, 0, 1)
        cleaned = remove_small_components(labels, MM, region="WT", min_voxels=3)
        assert row(cleaned) == [0, 0, 0, 3, 2, 2, 0, 0]

    def test_small_cores_become_oedema(self) -> None:
        labels = line(2, 1, 2, 3, 1, 3, 2)
        cleaned = remove_small_components(labels, MM, region="TC", min_voxels=2)
        assert row(cleaned) == [2, 2, 2, 3, 1, 3, 2]

    def test_small_enhancing_parts_become_core(self) -> None:
        labels = line(2, 3, 1, 3, 3, 0, 3)
        cleaned = remove_small_components(labels, MM, region="ET", min_voxels=2)
        assert row(cleaned) == [2, 1, 1, 3, 3, 0, 1]

    def test_a_component_of_just_the_threshold_stays(self) -> None:
        labels = line(2, 2, 0, 2)
        assert row(remove_small_components(labels, MM, min_voxels=2)) == [2, 2, 0, 0]
        # 2 voxels of 2.5 mm³
        spacing = (2.5, 1.0, 1.0)
        assert row(remove_small_components(labels, spacing, min_mm3=5.0)) == [2, 2, 0, 0]
        assert row(remove_small_components(labels, spacing, min_mm3=5.1)) == [0, 0, 0, 0]

    @pytest.mark.parametrize(("connectivity", "left"), [(6, 2), (18, 3), (26, 4)])
    def test_connectivity_joins_by_faces_edges_corners(self, connectivity: int, left: int) -> None:
        labels = np.zeros((4, 4, 4), dtype=np.uint8)
        labels[0, 0, 0] = labels[0, 0, 1] = ED  # one face
        labels[0, 1, 2] = ED  # over an edge
        labels[1, 2, 3] = ED  # over a corner
        kept = remove_small_components(
            labels,
            MM,
            min_voxels=2,
            connectivity=connectivity,  # type: ignore[arg-type]
        )
        assert np.count_nonzero(kept) == left

    @pytest.mark.parametrize("given", [{}, {"min_mm3": 5.0, "min_voxels": 5}])
    def test_exactly_one_threshold_is_asked_for(self, given: dict[str, int]) -> None:
        with pytest.raises(OptionError, match="exactly one of min_mm3 and min_voxels"):
            remove_small_components(line(2), MM, **given)  # type: ignore[arg-type]


class TestKeepLargest:
    def test_all_but_the_largest_leave(self) -> None:
        assert row(keep_largest(line(2, 0, 1, 3, 0, 2), MM)) == [0, 0, 1, 3, 0, 0]

    def test_the_first_among_equals_stays(self) -> None:
        assert row(keep_largest(line(2, 2, 0, 2, 2), MM)) == [2, 2, 0, 0, 0]

    def test_inner_regions_keep_the_outer_ones_whole(self) -> None:
        assert row(keep_largest(line(1, 2, 3, 1), MM, region="TC")) == [2, 2, 3, 1]
        assert row(keep_largest(line(3, 2, 3, 3), MM, region="ET")) == [1, 2, 3, 3]

    @settings(deadline=None)
    @given(maps, regions)
    def test_a_region_is_never_emptied_and_is_one_piece_afterwards(
        self, labels: Labels, region: Region
    ) -> None:
        kept = keep_largest(labels, MM, region=region)
        assert region_mask(kept, region).any() == region_mask(labels, region).any()
        np.testing.assert_array_equal(keep_largest(kept, MM, region=region), kept)


class TestKeepLargestOf:
    """nnU-Net's correction, stated here once more in plain loops over SciPy's components."""

    @staticmethod
    def stated(labels: Labels, values: set[int]) -> Labels:
        pieces, count = ndimage.label(np.isin(labels, list(values)), np.ones((3, 3, 3)))
        sizes = [int((pieces == piece).sum()) for piece in range(1, count + 1)]
        kept = labels.copy()
        for piece, size in enumerate(sizes, start=1):
            if size < max(sizes):
                kept[pieces == piece] = 0
        return kept

    @settings(deadline=None)
    @given(maps, st.sets(st.sampled_from(["NCR", "ED", "ET"]), min_size=1))
    def test_it_is_nnunets_rule(self, labels: Labels, names: set[str]) -> None:
        values = {{"NCR": NCR, "ED": ED, "ET": ET}[name] for name in names}
        before = labels.copy()
        kept = keep_largest_of(labels, MM, names=sorted(names))
        np.testing.assert_array_equal(labels, before)
        np.testing.assert_array_equal(kept, self.stated(labels, values))

    def test_the_rest_becomes_background_inside_the_tumour_too(self) -> None:
        labels = line(2, 3, 2, 3, 3, 1)
        assert row(keep_largest_of(labels, MM, names=["ET"])) == [2, 0, 2, 3, 3, 1]
        assert row(keep_largest_of(labels, MM, names=["NCR", "ET"])) == [2, 0, 2, 3, 3, 1]

    def test_among_equals_all_stay_and_by_default_all_labels_count(self) -> None:
        assert row(keep_largest_of(line(3, 2, 0, 1, 2, 0, 1), MM)) == [3, 2, 0, 1, 2, 0, 0]


class TestRelabelSmallEt:
    def test_little_enhancing_tumour_becomes_core(self) -> None:
        assert row(relabel_small_et(line(3, 2, 3, 0, 1), MM, min_voxels=3)) == [1, 2, 1, 0, 1]

    def test_the_threshold_is_on_all_of_it_together(self) -> None:
        assert row(relabel_small_et(line(3, 2, 3, 0, 3), MM, min_voxels=3)) == [3, 2, 3, 0, 3]

    def test_millimetres_count_the_voxel_size(self) -> None:
        labels = line(3, 3, 2)
        assert row(relabel_small_et(labels, (1, 1, 5), min_mm3=10)) == [3, 3, 2]
        assert row(relabel_small_et(labels, (1, 1, 5), min_mm3=10.5)) == [1, 1, 2]

    @settings(deadline=None)
    @given(maps, st.integers(1, 30))
    def test_tc_and_wt_never_change(self, labels: Labels, threshold: int) -> None:
        changed = relabel_small_et(labels, MM, min_voxels=threshold)
        for region in ("WT", "TC"):
            np.testing.assert_array_equal(
                region_mask(changed, region),
                region_mask(labels, region),  # type: ignore[arg-type]
            )


class TestFillHoles:
    def test_a_cavity_in_the_tumour_becomes_oedema(self) -> None:
        labels = ball(5, ED)
        labels[4, 4, 4] = 0
        np.testing.assert_array_equal(fill_holes(labels, MM), ball(5, ED))

    def test_oedema_and_background_inside_the_core_become_core(self) -> None:
        labels = ball(5, ET)
        labels[4, 4, 4], labels[4, 4, 5] = ED, 0
        filled = fill_holes(labels, MM, region="TC")
        assert filled[4, 4, 4] == filled[4, 4, 5] == NCR
        assert np.count_nonzero(filled != labels) == 2

    def test_necrosis_inside_an_enhancing_rim_stays(self) -> None:
        labels = ball(5, ET)
        labels[4, 4, 4] = NCR
        for region in ("WT", "TC"):
            filled = fill_holes(labels, MM, region=region)  # type: ignore[arg-type]
            np.testing.assert_array_equal(filled, labels)

    def test_a_cavity_with_a_way_out_through_faces_stays(self) -> None:
        labels = ball(5, ED)
        labels[4, 4, 4:] = 0
        np.testing.assert_array_equal(fill_holes(labels, MM), labels)

    def test_a_cavity_closed_at_faces_but_open_at_corners_is_filled(self) -> None:
        labels = ball(3, ED)
        labels[4, 4, 4] = labels[3, 3, 3] = 0  # the corner voxel is outside, diagonal to the hole
        filled = fill_holes(labels, MM)
        assert filled[4, 4, 4] == ED
        assert filled[3, 3, 3] == 0

    def test_a_cavity_at_the_edge_of_the_volume_stays(self) -> None:
        labels = ball(5, ED, shape=5)
        labels[0, 2, 2] = 0
        np.testing.assert_array_equal(fill_holes(labels, MM), labels)

    def test_larger_holes_than_asked_for_stay(self) -> None:
        labels = ball(7, ED)
        labels[2, 2, 2] = 0
        labels[4, 4, 4:6] = 0
        filled = fill_holes(labels, (1, 1, 2), max_mm3=2)
        assert filled[2, 2, 2] == ED
        assert not filled[4, 4, 4:6].any()

    @settings(deadline=None)
    @given(maps, st.sampled_from(["WT", "TC"]))
    def test_regions_only_grow_and_et_never_changes(self, labels: Labels, region: Region) -> None:
        filled = fill_holes(labels, MM, region=region)  # type: ignore[arg-type]
        assert not (region_mask(labels, region) & ~region_mask(filled, region)).any()
        np.testing.assert_array_equal(filled == ET, labels == ET)
        np.testing.assert_array_equal(
            fill_holes(filled, MM, region=region),  # type: ignore[arg-type]
            filled,
        )


class TestEveryStep:
    STEPS = (
        lambda labels, region: remove_small_components(labels, MM, region=region, min_voxels=4),
        lambda labels, region: keep_largest(labels, MM, region=region),
        lambda labels, region: relabel_small_et(labels, MM, min_voxels=4),
        lambda labels, region: fill_holes(labels, MM, region="WT" if region == "WT" else "TC"),
    )

    @pytest.mark.parametrize("step", STEPS)
    @settings(deadline=None)
    @given(labels=maps, region=regions)
    def test_the_input_is_left_alone_and_not_returned(
        self, step: type[fill_holes], labels: Labels, region: Region
    ) -> None:
        before = labels.copy()
        assert not np.shares_memory(step(labels, region), labels)
        np.testing.assert_array_equal(labels, before)

    @pytest.mark.parametrize("step", STEPS)
    @settings(deadline=None)
    @given(labels=maps, region=st.sampled_from(["TC", "ET"]))
    def test_only_a_step_on_wt_writes_background(
        self, step: type[fill_holes], labels: Labels, region: Region
    ) -> None:
        assert not ((step(labels, region) == 0) & (labels != 0)).any()

    @pytest.mark.parametrize("step", STEPS)
    @pytest.mark.parametrize("region", ["WT", "TC", "ET"])
    def test_a_map_without_tumour_stays_so(self, step: type[fill_holes], region: Region) -> None:
        assert not step(np.zeros((3, 3, 3), dtype=np.uint8), region).any()
