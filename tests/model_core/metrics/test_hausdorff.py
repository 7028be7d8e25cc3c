"""Both HD95 against values made by hand, a brute-force oracle, MONAI and surface-distance."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from model_core.errors import InputError
from model_core.metrics import hd95, surface_hd95
from model_core.metrics.hausdorff import MISSING_MM

ISOTROPIC = (1.0, 1.0, 1.0)
ANISOTROPIC = (0.7, 1.0, 2.5)
Mask = NDArray[np.bool_]


def cube(start: tuple[int, int, int], size: int, shape: int = 16) -> Mask:
    mask = np.zeros((shape,) * 3, dtype=bool)
    mask[tuple(slice(first, first + size) for first in start)] = True
    return mask


def blobs(seed: int) -> tuple[Mask, Mask]:
    """Two ragged, partly overlapping masks that touch the edge of the volume."""
    noise = np.random.default_rng(seed).random((2, 9, 11, 8))
    noise[:, 2:7, 3:8, 2:6] += 0.35
    noise[1, 0, 0, 0] = 2  # an outlier, so that 95 % and 100 % differ
    pred, truth = noise > 0.9
    return pred, truth


def brute_force_hd95(pred: Mask, truth: Mask, spacing: tuple[float, ...]) -> float:
    """All pairs of surface voxels; the definition word for word."""

    def surface(mask: Mask) -> NDArray[np.float64]:
        points = []
        for voxel in np.argwhere(mask):
            faces = [
                voxel + step * np.eye(3, dtype=int)[axis] for axis in range(3) for step in (-1, 1)
            ]
            inside = [
                bool((face >= 0).all() and (face < mask.shape).all() and mask[tuple(face)])
                for face in faces
            ]
            if not all(inside):
                points.append(voxel * np.array(spacing))
        return np.array(points)

    distances = cdist(surface(pred), surface(truth))
    return max(
        float(np.percentile(distances.min(axis=1), 95)),
        float(np.percentile(distances.min(axis=0), 95)),
    )


@pytest.mark.parametrize("spacing", [ISOTROPIC, ANISOTROPIC])
@pytest.mark.parametrize("seed", range(4))
class TestOracles:
    def test_hd95_equals_brute_force(self, seed: int, spacing: tuple[float, float, float]) -> None:
        pred, truth = blobs(seed)
        assert hd95(pred, truth, spacing) == pytest.approx(brute_force_hd95(pred, truth, spacing))

    def test_hd95_equals_monai(self, seed: int, spacing: tuple[float, float, float]) -> None:
        torch = pytest.importorskip("torch")
        pred, truth = (torch.from_numpy(mask)[None, None] for mask in blobs(seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI calls its own deprecated arguments
            from monai.metrics import compute_hausdorff_distance

            expected = compute_hausdorff_distance(
                pred, truth, include_background=True, percentile=95, spacing=spacing
            )
        assert hd95(*blobs(seed), spacing) == pytest.approx(expected.item(), rel=1e-5)

    def test_surface_hd95_equals_the_published_package(
        self, seed: int, spacing: tuple[float, float, float]
    ) -> None:
        package = pytest.importorskip("surface_distance")
        pred, truth = blobs(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its use of scipy.ndimage.filters
            surfaces = package.compute_surface_distances(truth, pred, spacing)
        expected = package.compute_robust_hausdorff(surfaces, 95)
        assert surface_hd95(pred, truth, spacing) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [hd95, surface_hd95])
class TestLaws:
    def test_equal_masks_are_at_distance_zero(self, metric: type[hd95]) -> None:
        assert metric(cube((3, 4, 5), 5), cube((3, 4, 5), 5), ANISOTROPIC) == 0

    def test_a_shifted_cube_is_as_far_as_the_shift_in_millimetres(self, metric: type[hd95]) -> None:
        # a whole face, far more than 5 % of the surface, lies two voxels of 2.5 mm off
        assert metric(cube((4, 4, 4), 5), cube((4, 4, 6), 5), ANISOTROPIC) == pytest.approx(5.0)

    def test_the_order_of_the_masks_does_not_matter(self, metric: type[hd95]) -> None:
        pred, truth = blobs(7)
        assert metric(pred, truth, ANISOTROPIC) == metric(truth, pred, ANISOTROPIC)

    def test_place_in_the_volume_and_empty_space_do_not_matter(self, metric: type[hd95]) -> None:
        pred, truth = blobs(8)
        roomy = [np.pad(mask, ((3, 1), (0, 4), (2, 2))) for mask in (pred, truth)]
        assert metric(*roomy, ISOTROPIC) == pytest.approx(metric(pred, truth, ISOTROPIC))

    def test_both_empty_is_zero(self, metric: type[hd95]) -> None:
        empty = np.zeros((4, 4, 4), dtype=bool)
        assert metric(empty, empty, ISOTROPIC) == 0

    def test_masks_of_two_grids_are_refused(self, metric: type[hd95]) -> None:
        with pytest.raises(InputError, match="shape of the truth"):
            metric(cube((0, 0, 0), 2, shape=4), cube((0, 0, 0), 2, shape=5), ISOTROPIC)


def test_one_empty_mask_costs_the_diagonal_of_a_brats_volume() -> None:
    empty, tumour = np.zeros((16,) * 3, dtype=bool), cube((1, 1, 1), 2)
    assert hd95(empty, tumour, ANISOTROPIC) == hd95(tumour, empty, ANISOTROPIC) == MISSING_MM
    assert math.hypot(240, 240, 155) == pytest.approx(MISSING_MM, abs=0.005)


def test_one_empty_mask_has_no_surface_distance() -> None:
    empty, tumour = np.zeros((16,) * 3, dtype=bool), cube((1, 1, 1), 2)
    assert surface_hd95(empty, tumour, ISOTROPIC) == math.inf
    assert surface_hd95(tumour, empty, ISOTROPIC) == math.inf


def test_a_few_far_voxels_below_five_percent_do_not_count() -> None:
    truth = cube((2, 2, 2), 8)  # 296 surface voxels
    pred = truth.copy()
    pred[15, 15, 15] = True
    assert hd95(pred, truth, ISOTROPIC) == 0
    assert surface_hd95(pred, truth, ISOTROPIC) == 0


class TestFlatVolumes:
    """Pictures: contours in the plane, whichever axis is the thin one."""

    def squares(self, axis: int) -> tuple[Mask, Mask]:
        pred, truth = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
        truth[4:16, 4:16] = True
        pred[6:14, 6:14] = True
        return np.expand_dims(pred, axis), np.expand_dims(truth, axis)

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_square_inside_another_is_a_margin_away(self, axis: int) -> None:
        spacing = (1.0, 1.0, 1.0)
        pred, truth = self.squares(axis)
        # the four corners, √8 away, are more than 5 % of the outer outline
        assert hd95(pred, truth, spacing) == pytest.approx(math.sqrt(8))
        assert surface_hd95(pred, truth, spacing) == pytest.approx(math.sqrt(8))

    @pytest.mark.parametrize("seed", range(3))
    def test_surface_hd95_equals_the_published_package_in_two_dimensions(self, seed: int) -> None:
        package = pytest.importorskip("surface_distance")
        pred, truth = (np.ascontiguousarray(mask[:, :, 3]) for mask in blobs(seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            surfaces = package.compute_surface_distances(truth, pred, (0.7, 2.5))
        expected = package.compute_robust_hausdorff(surfaces, 95)
        found = surface_hd95(pred[:, None], truth[:, None], (0.7, 9.0, 2.5))
        assert found == pytest.approx(expected)

    @pytest.mark.parametrize("seed", range(3))
    def test_hd95_equals_monai_in_two_dimensions(self, seed: int) -> None:
        torch = pytest.importorskip("torch")
        pred, truth = (np.ascontiguousarray(mask[:, :, 3]) for mask in blobs(seed))
        tensors = (torch.from_numpy(mask)[None, None] for mask in (pred, truth))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from monai.metrics import compute_hausdorff_distance

            expected = compute_hausdorff_distance(
                *tensors, include_background=True, percentile=95, spacing=(0.7, 2.5)
            )
        found = hd95(pred[None], truth[None], (9.0, 0.7, 2.5))
        assert found == pytest.approx(expected.item(), rel=1e-5)

    def test_the_missing_axis_has_no_say(self) -> None:
        pred, truth = self.squares(0)
        near = surface_hd95(pred, truth, (1.0, 2.0, 3.0))
        assert surface_hd95(pred, truth, (50.0, 2.0, 3.0)) == near
