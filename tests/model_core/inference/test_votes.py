"""How the mirrored passes voted at every voxel, through blending, resampling and correction."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from model_core.inference.mirrored import BALLOT, Mirrored, against, dissent
from model_core.inference.segmentation import SegmentOptions
from model_core.inference.sliding_window import sliding_window
from model_core.inference.tta import mirror_passes
from model_core.inference.windows import WindowPlan
from model_core.labels import decode_scores
from model_core.types import Tta
from tests.model_core.inference.small_network import make_segmenter, make_study
from tests.model_core.inference.test_agreement import mirrored, whole_window_study

OUTPUTS = ("background", "NCR", "ED", "ET")
PASSES = mirror_passes("full", (0, 1, 2))
HALF = 0.501
"""Of a per cent, by which whole numbers round; shares of eight passes are often halves."""
IMAGE = torch.rand(2, 12, 10, 9, generator=torch.Generator().manual_seed(5))


def read(scores: Tensor) -> Tensor:
    return torch.from_numpy(decode_scores(scores.numpy(), "labels", OUTPUTS))


def lopsided(batch: Tensor) -> Tensor:
    """A network whose answer depends on where a voxel lies in its window."""
    ramp = torch.linspace(-1, 1, batch.shape[2])[:, None, None]
    tilt = torch.linspace(0, 1, batch.shape[4])
    first, second = batch[:, 0], batch[:, 1]
    return torch.stack([first, second + ramp, first * second + tilt, second - tilt], dim=1)


def brute(image: Tensor, answer: np.ndarray) -> np.ndarray:
    """Per cent of the passes, each done on its own, that say something else."""
    other = np.zeros(image.shape[1:])
    for flip in PASSES:
        dims = [axis + 2 for axis in flip]
        seen = torch.flip(lopsided(torch.flip(image[None], dims)), dims)
        other += decode_scores(seen[0].numpy(), "labels", OUTPUTS) != answer
    return 100 * other / len(PASSES)


def blended(window: tuple[int, int, int]) -> Tensor:
    predict = Mirrored(lopsided, PASSES, read, ballots=True)
    plan = WindowPlan(window=window, overlap=0.5)
    return sliding_window(predict, IMAGE, plan=plan)


def test_in_one_window_it_is_the_share_of_passes_that_differ() -> None:
    sums = blended(tuple(IMAGE.shape[1:]))
    answer = decode_scores(sums[:4].numpy(), "labels", OUTPUTS)
    found = against(answer, dissent(sums[4:]))
    expected = brute(IMAGE, answer)
    assert 0 < expected.max() < 100
    np.testing.assert_allclose(found, expected, rtol=0, atol=HALF)


def test_votes_change_nothing_about_the_logits() -> None:
    plain = sliding_window(
        Mirrored(lopsided, PASSES, read), IMAGE, plan=WindowPlan(window=(8, 8, 8), overlap=0.5)
    )
    torch.testing.assert_close(blended((8, 8, 8))[:4], plain, rtol=0, atol=0)


def test_blended_shares_are_shares() -> None:
    sums = blended((8, 8, 8))
    assert sums.shape[0] == 4 + BALLOT
    torch.testing.assert_close(sums[4:].sum(dim=0), torch.ones(IMAGE.shape[1:]))
    shares = dissent(7.5 * sums[4:])  # sums are not divided by their weights
    np.testing.assert_array_equal(shares, dissent(sums[4:]))
    assert abs(int(shares.astype(int).sum(axis=0).mean()) - 300) <= 1


def test_passes_that_agree_leave_no_doubt() -> None:
    constant = Mirrored(
        lambda batch: torch.tensor([0.0, 0, 5, 0])[None, :, None, None, None].expand(
            len(batch), 4, *batch.shape[2:]
        ),
        PASSES,
        read,
        ballots=True,
    )
    sums = sliding_window(constant, IMAGE, plan=WindowPlan(window=(8, 8, 8), overlap=0.5))
    found = dissent(sums[4:])
    assert (found[2] == 0).all()
    assert (found[[0, 1, 3]] == 100).all()


def test_one_pass_has_no_votes() -> None:
    single = Mirrored(lopsided, PASSES[:1], read, ballots=True)
    assert single(IMAGE[None]).shape[1] == 4


@pytest.mark.parametrize(("tta", "most"), [("fast", 1), ("full", 3)])
def test_a_segmentation_tells_how_many_mirror_images_alone_would_differ(
    tta: Tta, most: int
) -> None:
    study, segmenter = whole_window_study(), make_segmenter()
    found = segmenter.segment(study, SegmentOptions(tta=tta, votes=True))
    maps = []
    for count in range(most + 1):
        for axes in combinations(range(3), count):
            alone = segmenter.segment(mirrored(study, axes), SegmentOptions(tta="none"))
            maps.append(np.flip(alone.labels, axes))
    other = np.mean([one != found.labels for one in maps], axis=0) * 100
    assert found.disagreement is not None
    np.testing.assert_allclose(found.disagreement, other, rtol=0, atol=HALF)
    assert 0 < found.disagreement.max() <= 100


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.3, 1.0, 0.8)])
def test_keeping_votes_changes_no_label_and_zeros_stay_around_the_brain(
    spacing: tuple[float, float, float],
) -> None:
    study, segmenter = make_study(), make_segmenter(spacing_mm=spacing)
    plain = segmenter.segment(study, SegmentOptions(tta="fast"))
    found = segmenter.segment(study, SegmentOptions(tta="fast", votes=True))
    np.testing.assert_array_equal(found.labels, plain.labels)
    assert plain.disagreement is None
    assert found.disagreement is not None
    assert found.disagreement.shape == found.labels.shape
    assert 0 < found.disagreement.max() <= 100
    outside = np.ones(study.native.shape, bool)
    outside[2:-2, 2:-2, 1:-1] = False
    assert not found.disagreement[outside].any()


def test_without_several_passes_there_is_no_disagreement() -> None:
    found = make_segmenter().segment(make_study(), SegmentOptions(tta="none", votes=True))
    assert found.disagreement is None
