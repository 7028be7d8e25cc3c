"""Blending and decoding: each backend against float64 or NumPy, and bit for bit between them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from model_core.labels import decode_scores, reading
from model_core.ops import use_backend
from model_core.ops.backends import CUDA_KERNELS
from model_core.ops.blend import add_weighted, labels_of

SHAPES = [(1, 1, 1, 1), (3, 4, 5, 6), (3, 2, 3, 300), (4, 3, 7, 17), (5, 2, 2, 33)]
REGIONS = ("TC", "WT", "ET")
LABELS = ("ED", "background", "ET", "NCR")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole_numbers(*shape: int, seed: int = 0) -> Tensor:
    """Few enough values for ties, and small enough that every sum of products is exact."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float()


def laid_out(scores: Tensor, layout: str) -> Tensor:
    """The same (K, X, Y, Z) in other strides."""
    if layout == "planar":
        return scores
    if layout == "channels last":
        return scores[None].contiguous(memory_format=torch.channels_last_3d)[0]
    return torch.repeat_interleave(scores, 2, dim=-1)[..., ::2]


def inside_a_larger_image(sums: Tensor) -> Tensor:
    """A view of `sums`' values that is contiguous along rows only."""
    channels, x, y, z = sums.shape
    image = torch.zeros(channels, x + 2, y + 3, z + 5)
    view = image[:, 1 : x + 1, 2 : y + 2, 3 : z + 3]
    view.copy_(sums)
    return view


@pytest.mark.parametrize("layout", ["planar", "channels last", "every other"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_added_by_their_weights(
    backend: str, shape: tuple[int, ...], dtype: torch.dtype, layout: str
) -> None:
    scores = laid_out(noise(*shape).to(dtype), layout)
    weights = noise(*shape[1:], seed=1).abs() + 0.01
    before = noise(*shape, seed=2)
    sums, kept = inside_a_larger_image(before), scores.clone()
    with use_backend(backend):
        assert add_weighted(sums, scores, weights)
    expected = before.double() + scores.double() * weights.double()
    torch.testing.assert_close(sums.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(scores, kept)


@pytest.mark.parametrize("layout", ["planar", "channels last", "every other"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_no_rounding_is_needed_the_sum_is_exact(
    backend: str, dtype: torch.dtype, layout: str
) -> None:
    """So the backends agree bit for bit; elsewhere one may fuse multiply and add, the other not."""
    shape = (3, 5, 4, 270)
    scores, weights = whole_numbers(*shape), whole_numbers(*shape[1:], seed=1)
    sums = inside_a_larger_image(whole_numbers(*shape, seed=2))
    expected = sums + scores * weights
    with use_backend(backend):
        add_weighted(sums, laid_out(scores.to(dtype), layout), weights)
    assert torch.equal(sums, expected)


def test_nothing_is_written_beside_the_window(backend: str) -> None:
    image = torch.zeros(3, 6, 6, 40)
    window = (slice(None), slice(1, 4), slice(2, 6), slice(5, 38))
    with use_backend(backend):
        add_weighted(image[window], torch.ones(3, 3, 4, 33), torch.ones(3, 4, 33))
    assert image.sum() == 3 * 3 * 4 * 33
    assert torch.equal(image[window], torch.ones(3, 3, 4, 33))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (2, 1, 2, 299), (1, 0, 2, 256), (2, 1, 0, 15)])
def test_a_score_that_is_no_number_is_told(
    backend: str, place: tuple[int, ...], dtype: torch.dtype, bad: float
) -> None:
    scores = noise(3, 2, 3, 300).to(dtype)
    scores[place] = bad
    with use_backend(backend):
        assert not add_weighted(torch.zeros(3, 2, 3, 300), scores, torch.ones(2, 3, 300))


def test_large_and_tiny_scores_are_finite(backend: str) -> None:
    scores = torch.tensor([3.4e38, -3.4e38, 1e-45, 0.0]).view(1, 1, 1, 4)
    with use_backend(backend):
        assert add_weighted(torch.zeros(1, 1, 1, 4), scores, torch.ones(1, 1, 4))


def test_any_number_of_axes_and_any_float_type_is_added(backend: str) -> None:
    with use_backend(backend):
        for dtype in (torch.float16, torch.float64):
            sums = torch.ones(2, 5)
            assert add_weighted(sums, torch.full((2, 5), 3.0, dtype=dtype), torch.full((5,), 2.0))
            assert torch.equal(sums, torch.full((2, 5), 7.0))


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 5, 6), (3, 2, 600), (5, 1, 17)])
@pytest.mark.parametrize(("heads", "outputs"), [("regions", REGIONS), ("labels", LABELS)])
def test_labels_are_those_of_decode_scores(
    backend: str, heads: str, outputs: tuple[str, ...], shape: tuple[int, ...]
) -> None:
    """Ties and zeros included: the earlier channel wins, and a logit of 0 is outside."""
    sums = inside_a_larger_image(whole_numbers(len(outputs), *shape))
    how = reading(heads, outputs)  # type: ignore[arg-type]
    with use_backend(backend):
        labels = labels_of(sums, "nested" if how.nested else "highest", how.channels, how.labels)
    assert labels is not None
    assert labels.dtype == torch.uint8
    expected = decode_scores(sums.numpy(), heads, outputs)  # type: ignore[arg-type]
    np.testing.assert_array_equal(labels.numpy(), expected)


@pytest.mark.parametrize("rule", ["nested", "highest"])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (2, 1, 2, 299), (1, 0, 2, 256)])
def test_nan_never_becomes_a_label(backend: str, place: tuple[int, ...], rule: str) -> None:
    sums = noise(3, 2, 3, 300)
    sums[place] = float("nan")
    with use_backend(backend):
        assert labels_of(sums, rule, (0, 1, 2), (1, 2, 3)) is None  # type: ignore[arg-type]


def test_an_infinite_sum_is_only_a_large_one(backend: str) -> None:
    sums = torch.tensor([[1.0, 5.0], [float("inf"), float("-inf")]]).view(2, 1, 1, 2)
    with use_backend(backend):
        labels = labels_of(sums, "highest", (0, 1), (7, 9))
    assert labels is not None
    assert labels.flatten().tolist() == [9, 7]


@pytest.mark.parametrize("rule", ["nested", "highest"])
def test_a_division_by_positive_weights_changes_no_label(backend: str, rule: str) -> None:
    sums = noise(3, 6, 7, 40)
    total = noise(6, 7, 40, seed=3).abs() + 0.1
    with use_backend(backend):
        one, other = (labels_of(x, rule, (2, 0, 1), (1, 2, 3)) for x in (sums, sums / total))  # type: ignore[arg-type]
    assert one is not None
    assert other is not None
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", CUDA_KERNELS)
def test_a_scan_for_cuda_changes_nothing_on_a_cpu(name: str) -> None:
    scores, weights = noise(3, 4, 5, 6), noise(4, 5, 6, seed=1).abs()
    expected, sums = torch.zeros(3, 4, 5, 6), torch.zeros(3, 4, 5, 6)
    assert add_weighted(expected, scores, weights)
    with use_backend(name):
        assert add_weighted(sums, scores, weights)
        labels = labels_of(sums, "highest", (0, 1, 2), (0, 1, 2))
    assert torch.equal(sums, expected)
    assert labels is not None
    assert np.array_equal(labels, sums.argmax(0).byte())
