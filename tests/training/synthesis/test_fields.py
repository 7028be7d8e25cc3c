import numpy as np
import pytest
import torch

from training.synthesis import fields

SHAPE = (20, 24, 18)


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_no_motion_changes_nothing():
    image = torch.rand(SHAPE)
    still = torch.zeros(3, *SHAPE)

    assert torch.allclose(fields.warp(image, still), image, atol=1e-5)


def test_a_whole_voxel_of_motion_shows_the_neighbour():
    image = torch.rand(SHAPE)
    motion = torch.zeros(3, *SHAPE)
    motion[1] = 2

    moved = fields.warp(image, motion)

    assert torch.allclose(moved[:, :-2], image[:, 2:], atol=1e-5)
    assert not moved[:, -2:].any()


def test_nearest_warping_invents_no_label():
    labels = torch.randint(0, 5, SHAPE)
    motion = fields.elastic_motion(rng(), SHAPE, scale=6.0, size=1.5)

    moved = fields.warp(labels, motion, nearest=True)

    assert moved.dtype == labels.dtype
    assert set(moved.unique().tolist()) <= {0, 1, 2, 3, 4}


def test_an_affine_motion_turns_about_its_centre():
    matrix = fields.affine_matrix(rng(), degrees=30.0, scale=(0.8, 1.2))
    centre = torch.tensor([7.0, 9.0, 5.0])

    motion = fields.affine_motion(matrix, SHAPE, centre, centre)

    assert torch.allclose(motion[:, 7, 9, 5], torch.zeros(3), atol=1e-5)
    step = motion[:, 8, 9, 5] - motion[:, 7, 9, 5]
    assert torch.allclose(step, matrix[:, 0] - torch.tensor([1.0, 0, 0]), atol=1e-5)


def test_rotations_keep_volumes_and_scales_change_them():
    still = fields.affine_matrix(rng(), degrees=40.0, scale=(1.0, 1.0))
    assert float(torch.det(still)) == pytest.approx(1.0, abs=1e-5)

    doubled = fields.affine_matrix(rng(), degrees=40.0, scale=(2.0, 2.0))
    # places of the deformed image are taken from half as far
    assert float(torch.det(doubled)) == pytest.approx(1 / 8, abs=1e-5)


def test_swelling_grows_the_middle_and_leaves_the_rest():
    shape = (40, 40, 40)
    centre = torch.tensor([20.0, 20.0, 20.0])
    places = fields.positions(shape) - centre[:, None, None, None]
    ball = ((places**2).sum(0) <= 25).float()

    motion = fields.swelling_motion(shape, centre, radius=8.0, strength=0.4)
    swollen = fields.warp(ball, motion)

    assert float(swollen.sum()) > 1.5 * float(ball.sum())
    assert float(motion[:, 0, 0, 0].abs().max()) < 0.05


def test_swelling_never_folds():
    motion = fields.swelling_motion(
        (40, 40, 40), torch.tensor([20.0, 20.0, 20.0]), radius=9.0, strength=0.5
    )
    along = motion[0, :, 20, 20] + torch.arange(40.0)

    assert bool((along.diff() > 0).all())


@pytest.mark.parametrize("scale", [3.0, 9.0])
def test_smooth_noise_has_mean_0_and_sd_1(scale: float):
    field = fields.smooth_noise(rng(), SHAPE, scale)

    assert float(field.mean()) == pytest.approx(0, abs=1e-5)
    assert float(field.std()) == pytest.approx(1, abs=1e-4)


def test_a_larger_scale_is_smoother():
    def roughness(scale: float) -> float:
        return float(fields.smooth_noise(rng(), SHAPE, scale).diff(dim=0).abs().mean())

    assert roughness(9.0) < 0.6 * roughness(3.0)


def test_blur_keeps_a_constant_and_the_sum():
    assert torch.allclose(fields.blur(torch.full(SHAPE, 7.0), (1.0, 2.0, 0.5)), torch.tensor(7.0))
    point = torch.zeros(SHAPE)
    point[10, 12, 9] = 1
    blurred = fields.blur(point, (1.0, 1.0, 1.0))
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-4)
    assert float(blurred[10, 12, 9]) == pytest.approx((2 * np.pi) ** -1.5, rel=0.02)


def test_the_seed_decides_everything():
    assert torch.equal(fields.texture(rng(), SHAPE), fields.texture(rng(), SHAPE))
