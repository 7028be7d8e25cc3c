"""A small head of nested ellipsoids in FreeSurfer's numbering, and tumour masks of nested balls."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

SHAPE = (56, 64, 52)
"""Axes to S, P, L."""
_SPL = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
_ATLAS = (155, 240, 240)


def ellipsoid(shape: tuple[int, int, int], radii: tuple[float, ...]) -> NDArray[np.bool_]:
    axes = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij")
    inside: NDArray[np.bool_] = sum((a / r) ** 2 for a, r in zip(axes, radii, strict=True)) <= 1
    return inside


def head_labels() -> NDArray[np.int16]:
    """Skull 516, CSF 24, cortex 3, white matter 2, ventricle 4."""
    labels = np.zeros(SHAPE, np.int16)
    for value, radii in ((516, (27, 31, 25)), (24, (25, 29, 23)), (3, (23, 27, 21)),
                         (2, (18, 22, 17)), (4, (4, 7, 3))):  # fmt: skip
        labels[ellipsoid(SHAPE, radii)] = value
    return labels


def tumour_labels(radius: int = 9) -> NDArray[np.uint8]:
    """Internal labels: oedema around a rim of enhancement around necrosis."""
    side = 2 * radius + 3
    labels = np.zeros((side, side, side), np.uint8)
    for value, part in ((2, 1.0), (3, 0.7), (1, 0.45)):
        labels[ellipsoid((side, side, side), (radius * part,) * 3)] = value
    return labels


@pytest.fixture(scope="session")
def material_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One head in ``labels``, one tumour on the BraTS atlas grid in ``masks``."""
    folder = tmp_path_factory.mktemp("material")
    for name in ("labels", "masks"):
        (folder / name).mkdir()
    nib.save(nib.Nifti1Image(head_labels(), _SPL), folder / "labels" / "head.nii.gz")
    atlas = np.zeros(_ATLAS, np.uint8)
    tumour = tumour_labels()
    tumour[tumour == 3] = 4
    x, y, z = (slice(n // 2, n // 2 + s) for n, s in zip(_ATLAS, tumour.shape, strict=True))
    atlas[x, y, z] = tumour
    nib.save(nib.Nifti1Image(atlas, _SPL), folder / "masks" / "tumour_seg.nii.gz")
    return folder
