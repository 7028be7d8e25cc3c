"""Random fields and deformations of one grid, in PyTorch, from a NumPy generator.

Suffix legend: a *field* is float32 (X, Y, Z); a *motion* is float32 (3, X, Y, Z), in voxels: the
value of the deformed image at ``p`` is that of the original at ``p + motion(p)``.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model_core.types import Shape3


def noise(rng: np.random.Generator, shape: Shape3) -> Tensor:
    """White noise, mean 0 and sd 1."""
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))


def smooth_noise(rng: np.random.Generator, shape: Shape3, scale: float) -> Tensor:
    """Noise whose values agree over about `scale` voxels; mean 0 and sd 1 over the grid."""
    coarse = tuple(max(4, round(n / scale) + 3) for n in shape)
    values = torch.from_numpy(rng.standard_normal(coarse, dtype=np.float32))
    fine = F.interpolate(values[None, None], size=shape, mode="trilinear", align_corners=True)[0, 0]
    return (fine - fine.mean()) / fine.std().clamp_min(1e-6)


def texture(rng: np.random.Generator, shape: Shape3) -> Tensor:
    """Grain of a tissue: three scales of noise, sd 1."""
    parts = (0.35 * noise(rng, shape), 0.6 * smooth_noise(rng, shape, 2.5),
             0.6 * smooth_noise(rng, shape, 9.0))  # fmt: skip
    total = torch.stack(parts).sum(0)
    return total / total.std()


def affine_matrix(
    rng: np.random.Generator, *, degrees: float, scale: tuple[float, float]
) -> Tensor:
    """(3, 3) of a random rotation about all axes and a random scale per axis.

    It maps places of the deformed image to places of the original: a scale above 1 enlarges.
    """
    angles = np.deg2rad(rng.uniform(-degrees, degrees, 3))
    factors = np.exp(rng.uniform(np.log(scale[0]), np.log(scale[1]), 3))
    return torch.from_numpy((_rotation(angles) / factors).astype(np.float32))


def affine_motion(matrix: Tensor, shape: Shape3, centre: Tensor, onto: Tensor) -> Tensor:
    """The motion that shows at `centre` what the original has at `onto`, turned by `matrix`."""
    places = positions(shape)
    source = torch.einsum("ij,jxyz->ixyz", matrix, places - centre[:, None, None, None])
    return source + onto[:, None, None, None] - places


def elastic_motion(rng: np.random.Generator, shape: Shape3, *, scale: float, size: float) -> Tensor:
    """A smooth random deformation of `size` voxels (sd) that varies over `scale` voxels."""
    return torch.stack([size * smooth_noise(rng, shape, scale) for _ in range(3)])


def swelling_motion(shape: Shape3, centre: Tensor, *, radius: float, strength: float) -> Tensor:
    """Tissue pushed away from `centre` (3,), most at `radius` voxels; `strength` below 0.6.

    The volume that was at the centre grows by ``1 / (1 - strength)`` along every direction; far
    away nothing moves, and no two points change places.
    """
    away = positions(shape) - centre[:, None, None, None]
    near = torch.exp(-(away**2).sum(0) / (2 * radius**2))
    return -strength * near * away


def warp(values: Tensor, motion: Tensor, *, nearest: bool = False) -> Tensor:
    """(X, Y, Z) values moved; 0 comes from outside. Labels want `nearest`."""
    shape = motion.shape[1:]
    source = positions(shape) + motion  # type: ignore[arg-type]
    sizes = torch.tensor(values.shape, dtype=torch.float32)[:, None, None, None]
    grid = (2 * source / (sizes - 1) - 1).flip(0).permute(1, 2, 3, 0)[None]
    moved = F.grid_sample(
        values[None, None].float(), grid, mode="nearest" if nearest else "bilinear",
        padding_mode="zeros", align_corners=True,
    )[0, 0]  # fmt: skip
    return moved.round().to(values.dtype) if nearest else moved


def blur(values: Tensor, sigma: tuple[float, float, float]) -> Tensor:
    """Gaussian blur of (X, Y, Z) with one sigma (voxels) per axis."""
    for axis, width in enumerate(sigma):
        if width > 0.05:
            values = _blur_along(values, axis, width)
    return values


def positions(shape: Shape3) -> Tensor:
    """Voxel coordinates, float32 (3, X, Y, Z)."""
    axes = [torch.arange(n, dtype=torch.float32) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def _blur_along(values: Tensor, axis: int, sigma: float) -> Tensor:
    reach = max(1, round(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    last = values.movedim(axis, -1)
    rows = F.pad(last.reshape(1, -1, last.shape[-1]), (reach, reach), mode="replicate")
    summed = torch.zeros(1, rows.shape[1], last.shape[-1])
    for index, weight in enumerate(kernel.tolist()):
        summed.add_(rows[..., index : index + last.shape[-1]], alpha=weight)
    return summed.reshape(last.shape).movedim(-1, axis).contiguous()


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation matrix about the three axes in turn."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = [other for other in range(3) if other != axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix
