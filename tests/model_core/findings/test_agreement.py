"""How far passes agree, against the Dice of every pair of them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from model_core.errors import InputError
from model_core.findings.agreement import LEAST_AGREEMENT, Votes, agreement_of, check_agreement
from model_core.labels import REGIONS, region_mask

passes = hnp.arrays(
    np.uint8, st.tuples(st.integers(2, 8), st.just(3), st.just(4), st.just(5)),
    elements=st.integers(0, 3),
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(passes)
def test_it_is_the_pooled_dice_of_every_two_passes(maps: NDArray[np.uint8]) -> None:
    found = agreement_of(list(maps))
    for region in REGIONS:
        masks = [region_mask(one, region) for one in maps]
        shared = sum(2 * np.count_nonzero(a & b) for a, b in combinations(masks, 2))
        total = sum(np.count_nonzero(a) + np.count_nonzero(b) for a, b in combinations(masks, 2))
        if total:
            assert found[region] == pytest.approx(shared / total)
        else:
            assert region not in found


@settings(max_examples=20, deadline=None)
@given(passes)
def test_window_by_window_is_the_same_as_all_at_once(maps: NDArray[np.uint8]) -> None:
    votes = Votes(len(maps))
    votes.add(list(maps[:, :1]))
    votes.add(list(maps[:, 1:]))
    assert votes.agreement() == agreement_of(list(maps))


def test_equal_passes_agree_wholly_and_disjoint_ones_not_at_all() -> None:
    one = np.array([[[0, 1, 2, 3]]], np.uint8)
    other = one[..., ::-1]
    assert agreement_of([one, one, one]) == {"WT": 1.0, "TC": 1.0, "ET": 1.0}
    assert agreement_of([one, other])["ET"] == 0.0


def test_one_pass_is_refused() -> None:
    with pytest.raises(InputError, match="at least two"):
        agreement_of([np.zeros((2, 2, 2), np.uint8)])


def test_what_is_below_its_limit_is_flagged_by_region() -> None:
    just_right = dict(LEAST_AGREEMENT)
    assert check_agreement(just_right) == ()
    (flag,) = check_agreement({**just_right, "TC": just_right["TC"] - 0.01})
    assert (flag.code, flag.subject, flag.severity) == ("mirrored-passes-disagree", "TC", "review")
    assert flag.limit == LEAST_AGREEMENT["TC"]
