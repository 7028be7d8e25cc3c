"""Laws of the sliding window, with lambdas and one small convolution as networks."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference
from torch import nn

from model_core.errors import Cancelled, NumericalError, ShapeError
from model_core.inference.sliding_window import Watch, sliding_slabs, sliding_window
from model_core.inference.windows import WindowPlan

OVERLAPS = [0.0, 0.25, 0.5, 0.75]


def identity(batch):
    return batch


def plan(window=(8, 8, 8), **kw):
    return WindowPlan(window=window, **kw)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 15)] * 3),
    overlap=st.sampled_from(OVERLAPS),
    blend=st.sampled_from(["gaussian", "constant"]),
    batch=st.integers(1, 5),
)
def test_constant_in_gives_the_same_constant_out(shape, overlap, blend, batch):
    constant = torch.tensor([3.7, -1e-3]).view(1, 2, 1, 1, 1)
    out = sliding_window(
        lambda x: constant.expand(x.shape[0], 2, *x.shape[2:]),
        torch.zeros(1, *shape),
        plan=plan(window=(8, 7, 5), overlap=overlap, blend=blend, batch=batch),
    )
    assert out.shape == (2, *shape)
    torch.testing.assert_close(out, constant[0].expand(2, *shape), rtol=1e-5, atol=0)


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("shape", [(8, 8, 8), (17, 9, 11), (3, 20, 1), (1, 1, 1)])
def test_identity_network_returns_the_image(shape, overlap):
    image = noise(4, *shape)
    kept = image.clone()
    out = sliding_window(identity, image, plan=plan(overlap=overlap, batch=3))
    torch.testing.assert_close(out, image, rtol=1e-5, atol=1e-6)
    assert torch.equal(image, kept)


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
@pytest.mark.parametrize("shape", [(19, 16, 13), (9, 21, 16)])
def test_equals_monai_for_a_convolution(shape, overlap, blend):
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.Conv3d(4, 3, 3, padding=1)
    ).eval()
    image = noise(2, *shape)
    window = (12, 10, 11)
    with torch.no_grad():
        ours = sliding_window(network, image, plan=plan(window, overlap=overlap, blend=blend))
        theirs = sliding_window_inference(
            image[None], window, 1, network, overlap=overlap, mode=blend
        )[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6)


def test_any_number_of_spatial_axes():
    image = noise(2, 13, 6)
    out = sliding_window(identity, image, plan=plan(window=(8, 8)))
    torch.testing.assert_close(out, image, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [2, 3, 7, 100])
def test_batch_size_does_not_change_the_result(batch):
    torch.manual_seed(2)
    network = nn.Conv3d(1, 2, 3, padding=1)
    image = noise(1, 15, 13, 9)
    with torch.no_grad():
        one = sliding_window(network, image, plan=plan())
        many = sliding_window(network, image, plan=plan(batch=batch))
    torch.testing.assert_close(many, one, rtol=1e-6, atol=1e-6)


def test_batches_are_as_large_as_planned_and_the_rest_is_smaller():
    seen = []

    def network(batch):
        seen.append(batch.shape[0])
        return batch

    sliding_window(network, noise(1, 20, 8, 8), plan=plan(batch=3))  # starts 0, 4, 8, 12
    assert seen == [3, 1]


def test_progress_is_monotone_from_zero_to_the_number_of_windows():
    told, seconds = [], []
    sliding_window(
        identity,
        noise(1, 20, 12, 8),
        plan=plan(batch=3),
        progress=lambda *step: told.append(step),
        on_window=seconds.append,
    )
    assert told == [("infer", n, 8) for n in (0, 3, 6, 8)]
    assert len(seconds) == 8
    assert min(seconds) > 0


def test_cancelled_between_windows_raises_and_leaves_nothing():
    seen, kept = [], []

    def network(batch):
        scores = batch * 2
        seen.append(batch.shape)
        kept.append(weakref.ref(scores))
        return scores

    with pytest.raises(Cancelled):
        sliding_window(network, noise(1, 24, 8, 8), plan=plan(), cancelled=lambda: len(seen) == 2)
    gc.collect()
    assert len(seen) == 2
    assert [ref() for ref in kept] == [None, None]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_bad_number_in_one_window_is_an_error_naming_the_window(bad):
    calls = iter(range(100))

    def network(batch):
        scores = batch.clone()
        if next(calls) == 1:
            scores[0, 0, 3, 3, 3] = bad
        return scores

    with pytest.raises(NumericalError, match=r"window \[4:12, 0:8, 0:8\].*weights are damaged"):
        sliding_window(network, torch.ones(1, 16, 8, 8), plan=plan())


def test_a_bad_number_in_the_image_is_told_from_one_of_the_networks_making():
    image = torch.ones(1, 16, 8, 8)
    image[0, 13, 0, 0] = float("nan")
    with pytest.raises(NumericalError, match=r"\[8:16, .*its input already holds NaN"):
        sliding_window(identity, image, plan=plan(batch=4))


def test_overflow_in_half_precision_is_named_as_the_cause():
    with pytest.raises(NumericalError, match=r"float16; run it in float32"):
        sliding_window(lambda x: x.half() * 60000, torch.full((1, 8, 8, 8), 2.0), plan=plan())


def test_large_finite_scores_are_not_mistaken_for_overflow():
    image = torch.full((1, 8, 8, 8), 3e38)
    assert torch.isfinite(sliding_window(identity, image, plan=plan(blend="constant"))).all()


@pytest.mark.parametrize(
    "network",
    [
        lambda x: x[:, :, 1:],
        lambda x: x[:, 0],
        lambda x: torch.cat([x, x]),
    ],
)
def test_a_network_of_the_wrong_shape_is_refused(network):
    with pytest.raises(ShapeError, match=r"\(N, K, \*window\)"):
        sliding_window(network, torch.ones(1, 8, 8, 8), plan=plan())


def test_a_network_that_changes_its_number_of_classes_is_refused():
    calls = iter(range(1, 100))
    with pytest.raises(ShapeError, match="1 classes for one window and 2 for another"):
        sliding_window(
            lambda x: x.expand(-1, next(calls), -1, -1, -1),
            torch.ones(1, 16, 8, 8),
            plan=plan(),
        )


@pytest.mark.parametrize("shape", [(8, 8, 8), (1, 8, 8), (1, 8, 0, 8)])
def test_an_image_of_the_wrong_rank_or_an_empty_one_is_refused(shape):
    with pytest.raises(ShapeError, match=r"\(C, \*spatial\)"):
        sliding_window(identity, torch.ones(shape), plan=plan())


def test_no_autograd_graph_outlives_a_window():
    network = nn.Conv3d(1, 1, 1)
    assert not sliding_window(network, torch.ones(1, 8, 8, 8), plan=plan()).requires_grad


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("shape", [(8, 8, 8), (17, 9, 11), (3, 20, 1), (24, 5, 9)])
def test_slabs_are_the_scores_times_a_positive_weight(shape, overlap):
    """So they have the same signs and the same order of channels, row by row, without padding."""
    torch.manual_seed(4)
    network = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.InstanceNorm3d(4))
    image, seen = noise(2, *shape), []
    with torch.no_grad():
        scores = sliding_window(network, image, plan=plan(overlap=overlap))
        sliding_slabs(
            network,
            image,
            lambda rows, sums: seen.append((rows, sums.clone())),
            plan=plan(overlap=overlap),
            watch=Watch(),
        )
    stops = [0, *(rows.stop for rows, _ in seen)]
    assert [rows.start for rows, _ in seen] == stops[:-1]
    assert stops[-1] == shape[0]
    sums = torch.cat([part for _, part in seen], 1)
    ratio = sums / scores
    assert ratio.min() > 0
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-3, atol=0)


def test_windows_never_leave_an_image_that_is_large_enough():
    """Zeros are shown along an axis shorter than the window only, and no more than it takes."""
    zeros = []

    def network(batch):
        zeros.append(int((batch == 0).sum()))
        return batch

    sliding_window(network, torch.ones(1, 13, 20, 8), plan=plan())
    assert zeros == [0] * 12
    zeros.clear()
    sliding_window(network, torch.ones(1, 13, 20, 5), plan=plan())
    assert zeros == [3 * 8 * 8] * 12


def test_a_single_window_is_handed_over_without_a_copy():
    image, shared = noise(2, 12, 8, 8), []

    def network(batch):
        shared.append(batch.untyped_storage().data_ptr() == image.untyped_storage().data_ptr())
        return batch * 2

    sliding_window(network, image, plan=plan())
    assert shared == [True, True]
