"""Label values at the border, regions and volumes inside, and decoding of network scores."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from model_core import labels as L
from model_core.errors import ImageError, InputError, NumericalError, OptionError
from model_core.types import LABEL_SCHEMES, Label, LabelScheme

LABEL_OUTPUTS = ("background", "NCR", "ED", "ET")
label_maps = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=3, max_dims=3), elements=st.integers(0, 3)
)


def u8(*values: int) -> NDArray[np.uint8]:
    return np.array(values, dtype=np.uint8)


class TestSchemes:
    def test_enhancing_tumour_is_4_in_2021_and_3_in_2023(self) -> None:
        assert L.scheme_values("brats2021") == {"background": 0, "NCR": 1, "ED": 2, "ET": 4}
        assert L.scheme_values("brats2023") == {"background": 0, "NCR": 1, "ED": 2, "ET": 3}

    def test_only_the_value_of_et_changes(self) -> None:
        assert L.to_scheme(u8(0, 1, 2, 3), "brats2021").tolist() == [0, 1, 2, 4]
        assert L.to_scheme(u8(0, 1, 2, 3), "brats2023").tolist() == [0, 1, 2, 3]

    @settings(deadline=None)
    @given(label_maps, st.sampled_from(LABEL_SCHEMES))
    def test_there_and_back_is_identity(
        self, labels: NDArray[np.uint8], scheme: LabelScheme
    ) -> None:
        written = L.to_scheme(labels, scheme)
        np.testing.assert_array_equal(L.from_scheme(written, scheme), labels)

    def test_neither_function_changes_or_returns_its_input(self) -> None:
        labels = u8(0, 3)
        for result in (L.to_scheme(labels, "brats2023"), L.from_scheme(labels, "brats2023")):
            assert not np.shares_memory(result, labels)
        assert labels.tolist() == [0, 3]

    @pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", ">i4", "float32", "float64"])
    def test_any_numeric_dtype_of_whole_numbers_is_read(self, dtype: str) -> None:
        read = L.from_scheme(np.array([0, 1, 2, 4], dtype=dtype), "brats2021")
        assert read.dtype == np.uint8
        assert read.tolist() == [0, 1, 2, 3]

    def test_without_3_or_4_both_schemes_mean_the_same(self) -> None:
        assert L.from_scheme(u8(0, 1, 2, 2)).tolist() == [0, 1, 2, 2]

    @pytest.mark.parametrize("value", [3, 4])
    def test_a_value_that_nobody_declared_is_not_guessed_at(self, value: int) -> None:
        with pytest.raises(ImageError, match=rf"^truth: .*the value {value}, .*--scheme"):
            L.from_scheme(u8(0, 1, 2, value), argument="truth")

    def test_both_3_and_4_are_refused_with_the_way_out(self) -> None:
        with pytest.raises(ImageError, match=r"^truth: .*both 3 and 4.*resection cavity"):
            L.from_scheme(u8(0, 3, 4), argument="truth")

    def test_a_named_scheme_refuses_the_other_ones_value_and_names_it(self) -> None:
        with pytest.raises(ImageError, match=r"brats2023 .*got also 4\."):
            L.from_scheme(u8(0, 4), "brats2023")
        with pytest.raises(ImageError, match=r"brats2021 .*got also 3\."):
            L.from_scheme(u8(0, 3), "brats2021")

    def test_other_values_are_named(self) -> None:
        with pytest.raises(ImageError, match=r"got also 7, 9\."):
            L.from_scheme(u8(0, 1, 9, 7))

    @pytest.mark.parametrize(
        ("values", "named"),
        [
            ([0.0, 1.5, 0.25], r"0\.25, 1\.5"),
            ([0, -2.0], "-2"),
            ([0, 300.0], "300"),
            ([0, np.nan], "nan"),
            ([0, np.inf], "inf"),
        ],
    )
    def test_values_that_are_no_labels_are_refused_and_named(
        self, values: list[float], named: str
    ) -> None:
        with pytest.raises(ImageError, match=f"such as .*{named}"):
            L.from_scheme(np.array(values))

    def test_integers_that_would_wrap_into_labels_are_refused(self) -> None:
        with pytest.raises(ImageError, match="256"):
            L.from_scheme(np.array([0, 256], dtype=np.int16))

    def test_complex_values_are_refused(self) -> None:
        with pytest.raises(ImageError, match="dtype complex"):
            L.from_scheme(np.array([1 + 2j]))

    def test_an_unknown_scheme_is_refused_everywhere(self) -> None:
        for call in (
            lambda: L.scheme_values("brats2019"),  # type: ignore[arg-type]
            lambda: L.to_scheme(u8(1), "brats2019"),  # type: ignore[arg-type]
            lambda: L.from_scheme(u8(1), "brats2019"),  # type: ignore[arg-type]
        ):
            with pytest.raises(OptionError, match="brats2021, brats2023, got 'brats2019'"):
                call()

    def test_file_values_are_not_taken_for_internal_labels(self) -> None:
        with pytest.raises(InputError, match="a value of 4"):
            L.to_scheme(u8(0, 4), "brats2023")


class TestRegionsAndVolumes:
    def test_regions_are_the_published_unions(self) -> None:
        labels = u8(0, 1, 2, 3)
        assert L.region_mask(labels, "WT").tolist() == [False, True, True, True]
        assert L.region_mask(labels, "TC").tolist() == [False, True, False, True]
        assert L.region_mask(labels, "ET").tolist() == [False, False, False, True]

    def test_an_unknown_region_is_refused(self) -> None:
        with pytest.raises(OptionError, match="one of WT, TC, ET, got 'NCR'"):
            L.region_mask(u8(1), "NCR")  # type: ignore[arg-type]

    def test_volumes_count_voxels_times_their_size(self) -> None:
        labels = np.repeat(u8(0, 1, 2, 3), [5, 2, 3, 7])
        assert L.volumes_ml(labels, 0.5) == {
            "NCR": 1.0, "ED": 1.5, "ET": 3.5, "WT": 6.0, "TC": 4.5,
        }  # fmt: skip

    @pytest.mark.parametrize("order", ["C", "F"])
    def test_the_box_around_all_labels(self, order: Literal["C", "F"]) -> None:
        labels = np.zeros((5, 6, 7), np.uint8, order=order)
        labels[1, 4, 2], labels[3, 2, 2] = 3, 1
        assert L.labelled_box(labels) == (slice(1, 4), slice(2, 5), slice(2, 3))
        assert L.labelled_box(labels * 0) == (slice(0, 1),) * 3

    def test_every_label_has_a_name_a_meaning_and_its_own_colour(self) -> None:
        assert set(L.LABEL_NAMES) == set(L.LABEL_MEANINGS) == set(L.LABEL_COLOURS) == set(Label)
        assert len(set(L.LABEL_COLOURS.values())) == 4


class TestDecodeScores:
    def test_label_heads_are_argmax_also_across_slabs_and_ties(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(L, "_SLAB_BYTES", 200)
        scores = np.random.default_rng(3).integers(-2, 3, (4, 7, 5, 3)).astype(np.float32)
        np.testing.assert_array_equal(
            L.decode_scores(scores, "labels", LABEL_OUTPUTS), scores.argmax(axis=0)
        )

    def test_label_outputs_may_come_in_any_order(self) -> None:
        scores = np.eye(4)[:, :, None, None]
        decoded = L.decode_scores(scores, "labels", ("ED", "background", "ET", "NCR"))
        assert decoded.ravel().tolist() == [2, 0, 3, 1]

    def test_regions_are_painted_from_the_outside_in(self) -> None:
        # columns: nothing, WT, WT+TC, WT+TC+ET
        scores = np.array([[-1, 1, 1, 1], [-1, -1, 1, 1], [-1, -1, -1, 1]], dtype=np.float32)
        decoded = L.decode_scores(scores.reshape(3, 4, 1, 1), "regions", ("WT", "TC", "ET"))
        assert decoded.ravel().tolist() == [0, 2, 1, 3]

    def test_an_inner_region_outside_an_outer_one_does_not_count(self) -> None:
        # columns: TC only, ET only, WT+ET, TC+ET
        scores = np.array([[-1, -1, 1, -1], [1, -1, -1, 1], [-1, 1, 1, 1]], dtype=np.float32)
        decoded = L.decode_scores(scores.reshape(3, 4, 1, 1), "regions", ("WT", "TC", "ET"))
        assert decoded.ravel().tolist() == [0, 0, 2, 0]

    def test_a_logit_of_zero_is_outside(self) -> None:
        decoded = L.decode_scores(np.zeros((3, 1, 1, 1)), "regions", ("WT", "TC", "ET"))
        assert decoded.item() == 0

    @settings(deadline=None)
    @given(
        hnp.arrays(np.float32, (3, 2, 3, 2), elements=st.floats(-3, 3, width=32)),
        st.permutations([0, 1, 2]),
    )
    def test_region_masks_of_the_result_are_the_nested_intersections(
        self, scores: NDArray[np.float32], order: list[int]
    ) -> None:
        names = ("WT", "TC", "ET")
        decoded = L.decode_scores(scores[order], "regions", [names[index] for index in order])
        wt, tc, et = scores > 0
        np.testing.assert_array_equal(L.region_mask(decoded, "WT"), wt)
        np.testing.assert_array_equal(L.region_mask(decoded, "TC"), wt & tc)
        np.testing.assert_array_equal(L.region_mask(decoded, "ET"), wt & tc & et)

    @pytest.mark.parametrize("channel", [0, 1, 2])
    @pytest.mark.parametrize(
        ("heads", "outputs"), [("labels", LABEL_OUTPUTS), ("regions", ("WT", "TC", "ET"))]
    )
    def test_nan_never_becomes_a_label(
        self, heads: L.Heads, outputs: tuple[str, ...], channel: int
    ) -> None:
        scores = np.zeros((len(outputs), 3, 3, 3), dtype=np.float32)
        scores[channel, 2, 1, 0] = np.nan
        with pytest.raises(NumericalError, match="NaN"):
            L.decode_scores(scores, heads, outputs)

    def test_scores_are_left_as_they_were(self) -> None:
        scores = np.random.default_rng(0).standard_normal((4, 3, 3, 3))
        before = scores.copy()
        L.decode_scores(scores, "labels", LABEL_OUTPUTS)
        np.testing.assert_array_equal(scores, before)

    @pytest.mark.parametrize(
        ("heads", "outputs", "channels"),
        [
            ("labels", LABEL_OUTPUTS, 3),
            ("labels", ("background", "NCR", "ED", "RC"), 4),
            ("labels", ("WT", "TC", "ET"), 3),
            ("regions", ("WT", "TC", "TC"), 3),
            ("regions", ("WT", "ET"), 2),
        ],
    )
    def test_outputs_that_do_not_describe_the_channels_are_refused(
        self, heads: L.Heads, outputs: tuple[str, ...], channels: int
    ) -> None:
        with pytest.raises(InputError, match=r"^outputs: "):
            L.decode_scores(np.zeros((channels, 1, 1, 1)), heads, outputs)

    def test_unknown_heads_are_refused(self) -> None:
        with pytest.raises(OptionError, match=r"^heads: .*got 'softmax'"):
            L.decode_scores(np.zeros((3, 1, 1, 1)), "softmax", ("WT", "TC", "ET"))  # type: ignore[arg-type]
