"""A brain is told from a head by its volume, whatever the background and the intensities."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from model_core.imaging.nifti import read_nifti
from model_core.imaging.skull import FLAT_BACKGROUND, look_for_skull
from model_core.imaging.volume import Volume
from model_core.types import CONTRASTS, Contrast

Brain = Mapping[Contrast, Volume]


def head_around(brain: Volume) -> Volume:
    """The brain in a dark skull and a bright scalp, 18 mm thick together, in air of zeros."""
    mask = ndimage.binary_fill_holes(brain.array > 0)
    distance = ndimage.distance_transform_edt(~mask) * brain.spacing_mm[0]
    array = brain.array.copy()
    array[(distance > 0) & (distance <= 9)] = 40
    array[(distance > 9) & (distance <= 18)] = 900
    return Volume(array, brain.affine)


def test_a_stripped_brain_is_stripped_in_every_contrast_and_orientation(brain: Brain) -> None:
    for volume in brain.values():
        assert look_for_skull(volume) == "stripped"
        assert look_for_skull(volume.reoriented("PIR")) == "stripped"


@pytest.mark.parametrize("background", [-1000.0, 5.0])
def test_the_background_may_have_any_one_value(brain: Brain, background: float) -> None:
    volume = brain["t1"]
    moved = np.where(volume.array > 0, volume.array - 300.0, background).astype(np.float32)
    assert look_for_skull(Volume(moved, volume.affine)) == "stripped"


def test_a_head_in_air_of_zeros_is_present_though_it_has_many_zeros(brain: Brain) -> None:
    head = head_around(brain["t1"])
    assert np.mean(head.array == 0) > FLAT_BACKGROUND
    assert look_for_skull(head) == "present"


def test_a_head_in_noise_is_present(brain: Brain) -> None:
    head = head_around(brain["t1"])
    noise = np.random.default_rng(0).rayleigh(8.0, head.shape)
    assert look_for_skull(Volume((head.array + noise).astype(np.float32), head.affine)) == "present"


def test_a_slab_through_a_head_in_zeros_cannot_be_told(brain: Brain) -> None:
    head = head_around(brain["t1"])
    slab = Volume(head.array[:, :, 24:32], head.affine)
    assert look_for_skull(slab) == "unknown"


def test_something_small_on_a_flat_background_cannot_be_told() -> None:
    array = np.zeros((80, 80, 50), np.float32)
    array[30:40, 30:40, 20:30] = 100
    assert look_for_skull(Volume(array, np.diag([3.0, 3.0, 3.0, 1.0]))) == "unknown"


@pytest.mark.slow
def test_every_real_brain_is_stripped(real_cases: Path) -> None:
    seen = {
        look_for_skull(read_nifti(case / f"{case.name}_{contrast}.nii.gz", argument=contrast))
        for case in sorted(real_cases.iterdir())
        for contrast in CONTRASTS
    }
    assert seen == {"stripped"}


@pytest.mark.slow
def test_a_real_scan_is_present(real_cases: Path) -> None:
    folder = real_cases.parent / "raw_native" / "TCGA-FG-6692"
    if not folder.is_dir():
        pytest.skip("no study as it was scanned beside the real cases")
    seen = {look_for_skull(read_nifti(path, argument="image")) for path in folder.iterdir()}
    assert seen == {"present"}
