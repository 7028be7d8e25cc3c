"""Tiny data sets, made in code and written as real files, one for each layout.

The anatomy is a noisy bright ball with a brighter lesion in it, so that a network of a few hundred
weights can learn it in a few steps. The same seed gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_core.imaging import Volume, write_nifti

Shape = tuple[int, ...]

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""1 mm, as BraTS stores it."""


def write_png_dataset(folder: Path, cases: int = 6, size: int = 64) -> Path:
    """nnU-Net pictures: one grey channel, labels background and blob, two unlabelled test images.

    Returns:
        ``folder/Dataset002_TinyPng``.
    """
    root = folder / "Dataset002_TinyPng"
    for number in range(cases + 2):
        image, distance = _ball((size, size), number)
        name, place = (f"png_{number:03d}", "Tr" if number < cases else "Ts")
        _save_png(root / f"images{place}" / f"{name}_0000.png", image.clip(0, 255))
        if place == "Tr":
            _save_png(root / "labelsTr" / f"{name}.png", distance < 0.5)
    description = {"channel_names": {"0": "XRay"}, "labels": {"background": 0, "blob": 1}}
    return describe(root, description, cases=cases, ending=".png")


def write_nifti_dataset(folder: Path, cases: int = 6, shape: Shape = (32, 32, 24)) -> Path:
    """nnU-Net volumes: one channel "MRI", two labels, oblique thick slices, two test images.

    Returns:
        ``folder/Dataset001_TinyNifti``.
    """
    root = folder / "Dataset001_TinyNifti"
    for number in range(cases + 2):
        image, distance = _ball(shape, number)
        name, place = (f"vol_{number:03d}", "Tr" if number < cases else "Ts")
        affine = oblique((1.0, 1.0, 2.5), degrees=3.0 * number)
        _save_nifti(root / f"images{place}" / f"{name}_0000.nii.gz", image, affine)
        if place == "Tr":
            labels = (distance < 0.6).astype(np.uint8) + (distance < 0.35)
            _save_nifti(root / "labelsTr" / f"{name}.nii.gz", labels.astype(np.uint8), affine)
    labels_of = {"background": 0, "rim": 1, "core": 2}
    description = {"channel_names": {"0": "MRI"}, "labels": labels_of}
    return describe(root, description, cases=cases, ending=".nii.gz")


def write_brats_dataset(folder: Path, cases: int = 4, shape: Shape = (48, 48, 40)) -> Path:
    """BraTS 2021: folders of t1, t1ce, t2, flair and seg (values 1, 2, 4), stripped to zeros.

    Returns:
        ``folder`` with ``tiny_000``, ``tiny_001``, … in it.
    """
    for number in range(cases):
        name = f"tiny_{number:03d}"
        images, labels = brats_case(shape, number)
        for contrast, image in images.items():
            _save_nifti(folder / name / f"{name}_{contrast}.nii.gz", image, LPS)
        values = np.array([0, 1, 2, 4], np.uint8)[labels]
        _save_nifti(folder / name / f"{name}_seg.nii.gz", values, LPS)
    return folder


def brats_case(
    shape: Shape, seed: int
) -> tuple[dict[str, npt.NDArray[np.float32]], npt.NDArray[np.uint8]]:
    """Four contrasts of one made-up head, and its internal labels (0 to 3)."""
    _, distance = _ball(shape, seed)
    labels = np.zeros(shape, np.uint8)
    labels[distance < 0.6] = 2
    labels[distance < 0.42] = 3
    labels[distance < 0.25] = 1
    brain = _radius(shape, np.divide(shape, 2)) < 1
    labels[~brain] = 0
    levels = {
        "t1": (400, 250, 330, 380), "t1ce": (400, 260, 350, 900),
        "t2": (300, 800, 650, 550), "flair": (350, 420, 900, 650),
    }  # fmt: skip
    rng = np.random.default_rng((seed, 1))
    images = {}
    for contrast, level in levels.items():
        image = np.array(level, np.float32)[labels] + rng.normal(0, 30, shape)
        images[contrast] = np.where(brain, image.clip(1), 0).round().astype(np.float32)
    return images, labels


def oblique(spacing: tuple[float, float, float], degrees: float) -> npt.NDArray[np.float64]:
    """An LPS affine of that spacing (mm), turned about the z axis."""
    turn = np.radians(degrees)
    rotation = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([-1.0, -1.0, 1.0]) * spacing
    affine[:3, 3] = (12.5, 20.0, -30.0)
    return affine


def describe(root: Path, description: Mapping[str, Any], *, cases: int, ending: str) -> Path:
    """Write nnU-Net's ``dataset.json``; gives `root` back."""
    content = {**description, "numTraining": cases, "file_ending": ending}
    (root / "dataset.json").write_text(json.dumps(content, indent=2))
    return root


def _ball(shape: Shape, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """A noisy ball with a lesion, and the distance from the lesion's centre (1: its radius × 2)."""
    rng = np.random.default_rng(seed)
    body = _radius(shape, np.divide(shape, 2)) < 0.95
    centre = np.divide(shape, 2) + rng.uniform(-0.1, 0.1, len(shape)) * shape
    distance = _radius(shape, centre) / 0.6
    image = rng.normal(20, 6, shape) + 60 * body + 90 * (distance < 0.6) + 40 * (distance < 0.35)
    return image.round().clip(1, 255).astype(np.float32), distance


def _radius(shape: Shape, centre: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Distance from `centre` in units of half the array's size."""
    axes = np.meshgrid(*(np.arange(n) + 0.5 for n in shape), indexing="ij")
    parts = [
        ((axis - middle) / (n / 2)) ** 2
        for axis, middle, n in zip(axes, np.asarray(centre), shape, strict=True)
    ]
    distance: npt.NDArray[np.float64] = np.sqrt(np.sum(parts, axis=0))
    return distance


def _save_png(path: Path, image: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.astype(np.uint8)).save(path)


def _save_nifti(path: Path, array: npt.NDArray[Any], affine: npt.NDArray[np.float64]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, Volume(array, affine))
