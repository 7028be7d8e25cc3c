"""Mirroring: the passes of each mode, flips undone, and logits averaged."""

import pytest
import torch
from torch import nn

from model_core.errors import OptionError
from model_core.inference.sliding_window import sliding_window
from model_core.inference.tta import mirror_passes, predict_mirrored
from model_core.inference.windows import WindowPlan

MODES = ("none", "fast", "full")


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("mode", "axes", "expected"),
    [
        ("none", (0, 1, 2), ((),)),
        ("fast", (0, 1, 2), ((), (0,), (1,), (2,))),
        (
            "full",
            (0, 1, 2),
            ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)),
        ),
        ("full", (2,), ((), (2,))),
        ("fast", (), ((),)),
        ("full", (), ((),)),
        ("full", (2, 0, 2), ((), (0,), (2,), (0, 2))),
    ],
)
def test_passes_of_each_mode(mode, axes, expected):
    assert mirror_passes(mode, axes) == expected


def test_an_unknown_mode_is_refused_with_the_allowed_ones():
    with pytest.raises(OptionError, match="none, fast, full") as error:
        mirror_passes("all", (0,))
    assert error.value.argument == "tta"


@pytest.mark.parametrize("axes", [(3,), (-1, 0)])
def test_axes_that_do_not_exist_are_refused(axes):
    with pytest.raises(OptionError, match="0, 1, 2"):
        mirror_passes("full", axes)


@pytest.mark.parametrize("mode", MODES)
def test_an_equivariant_network_gives_the_same_result_in_every_mode(mode):
    torch.manual_seed(3)
    # A kernel of one voxel sees no direction.
    network = nn.Sequential(nn.Conv3d(2, 5, 1), nn.GELU(), nn.Conv3d(5, 3, 1)).eval()
    batch = noise(2, 2, 5, 6, 7)
    with torch.no_grad():
        once = network(batch)
        mirrored = predict_mirrored(network, batch, mirror_passes(mode, (0, 1, 2)))
    torch.testing.assert_close(mirrored, once, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_network_that_sees_direction_gives_the_mean_of_hand_flipped_logits(mode):
    torch.manual_seed(4)
    network = nn.Conv3d(1, 2, 3, padding=1).eval()
    batch = noise(1, 1, 5, 6, 7)
    by_hand = {
        "none": [[]],
        "fast": [[], [2], [3], [4]],
        "full": [[], [2], [3], [4], [2, 3], [2, 4], [3, 4], [2, 3, 4]],
    }[mode]
    with torch.no_grad():
        expected = torch.stack([network(batch.flip(d)).flip(d) for d in by_hand]).mean(0)
        got = predict_mirrored(network, batch, mirror_passes(mode, (0, 1, 2)))
        plain = network(batch)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert torch.allclose(got, plain, atol=1e-3) == (mode == "none")


def test_each_pass_is_turned_back():
    # Marks the first voxel of what it sees: turned back, the marks lie on the two ends.
    def network(batch):
        out = torch.zeros_like(batch)
        out[:, :, 0, 0, 0] = 4.0
        return out

    got = predict_mirrored(network, torch.zeros(1, 1, 3, 1, 1), ((), (0,), (1,), (2,)))
    assert got.flatten().tolist() == [3.0, 0.0, 1.0]


def test_the_batch_is_left_unchanged_even_by_a_network_that_returns_it():
    batch = noise(1, 2, 4, 4, 4)
    kept = batch.clone()
    got = predict_mirrored(lambda x: x, batch, mirror_passes("full", (0, 1, 2)))
    torch.testing.assert_close(got, kept)
    assert torch.equal(batch, kept)


def test_reduced_precision_passes_are_averaged_in_float32():
    batch = torch.full((1, 1, 2, 2, 2), 1.0 / 3)
    got = predict_mirrored(lambda x: x.bfloat16(), batch, mirror_passes("fast", (0, 1, 2)))
    assert got.dtype == torch.float32


def test_mirroring_inside_windows_keeps_the_image_of_an_identity_network():
    image = noise(1, 13, 9, 8)
    passes = mirror_passes("full", (0, 1, 2))
    out = sliding_window(
        lambda x: predict_mirrored(lambda y: y, x, passes),
        image,
        plan=WindowPlan(window=(8, 8, 8)),
    )
    torch.testing.assert_close(out, image, rtol=1e-5, atol=1e-6)
