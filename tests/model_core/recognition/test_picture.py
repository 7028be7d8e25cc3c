"""Images that contradict their names: exchanged, equal, or of another place."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from model_core.imaging.grid import Grid
from model_core.imaging.nifti import read_nifti
from model_core.imaging.resample import resample
from model_core.imaging.volume import Volume
from model_core.recognition.picture import suspect
from model_core.types import CONTRASTS, Contrast

Brain = Mapping[Contrast, Volume]
PAIRS = list(combinations(CONTRASTS, 2))
NAMES = {"t1": "T1", "t1ce": "T1ce", "t2": "T2", "flair": "FLAIR"}


def exchanged(brain: Brain, first: Contrast, second: Contrast) -> dict[Contrast, Volume]:
    return {**brain, first: brain[second], second: brain[first]}


def test_right_names_raise_no_suspicion(brain: Brain) -> None:
    picture = suspect(brain)
    assert picture.looked
    assert picture.suspicions == ()
    assert picture.fit == picture.best


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_an_exchange_of_two_names_is_seen_and_named(
    brain: Brain, first: Contrast, second: Contrast
) -> None:
    picture = suspect(exchanged(brain, first, second))
    assert picture.suspicions == (
        f"{NAMES[first]} and {NAMES[second]} look as if they were exchanged",
    )
    assert picture.best > picture.fit


def test_scale_offset_and_orientation_of_the_images_do_not_matter(brain: Brain) -> None:
    changed = {
        contrast: Volume(volume.array * np.float32(number + 2.5), volume.affine).reoriented("PIR")
        for number, (contrast, volume) in enumerate(brain.items())
    }
    assert suspect(changed).suspicions == ()
    assert suspect(changed).fit == pytest.approx(suspect(brain).fit, abs=0.05)
    swapped = exchanged(changed, "t2", "flair")
    assert suspect(swapped).suspicions == ("T2 and FLAIR look as if they were exchanged",)


def test_images_on_other_grids_are_compared_by_place(brain: Brain) -> None:
    source = brain["t2"]
    affine = source.affine.copy()
    affine[:3, 2] *= 2  # slices twice as thick
    target = Grid((source.shape[0], source.shape[1], source.shape[2] // 2), affine)
    thick = Volume(resample(source.array, source.grid, target), affine)
    assert suspect({**brain, "t2": thick}).suspicions == ()
    swapped = exchanged({**brain, "t2": thick}, "t2", "flair")
    assert suspect(swapped).suspicions == ("T2 and FLAIR look as if they were exchanged",)


def test_one_image_under_two_names_is_seen_even_when_it_was_scaled(brain: Brain) -> None:
    doubled = Volume(brain["t1"].array * np.float32(1.7), brain["t1"].affine)
    assert suspect({**brain, "t1ce": doubled}).suspicions == ("T1 and T1ce are the same image",)
    assert suspect({"t1": brain["t1"], "t2": doubled}).suspicions == (
        "T1 and T2 are the same image",
    )


def test_images_of_different_places_cannot_be_compared(brain: Brain) -> None:
    affine = brain["t2"].affine.copy()
    affine[:3, 3] += 1000
    picture = suspect({**brain, "t2": Volume(brain["t2"].array, affine)})
    assert not picture.looked
    assert picture.suspicions == ()


def test_three_images_are_not_searched_for_exchanges(brain: Brain) -> None:
    three = {contrast: brain[contrast] for contrast in ("t1", "t2", "flair")}
    picture = suspect(three)
    assert not picture.looked
    assert picture.suspicions == ()


def test_empty_images_are_no_ground_for_suspicion(brain: Brain) -> None:
    empty = Volume(np.zeros(brain["t1"].shape, np.float32), brain["t1"].affine)
    assert suspect({**brain, "t1": empty}).suspicions == ()


def coarse(volume: Volume, mm: float = 3.0) -> Volume:
    """The image in larger voxels, as it is looked at; once, and not for every exchange."""
    affine = volume.affine.copy()
    affine[:3, :3] *= mm / np.array(volume.spacing_mm)
    x, y, z = (
        int(size * step / mm) for size, step in zip(volume.shape, volume.spacing_mm, strict=True)
    )
    target = Grid((x, y, z), affine)
    return Volume(resample(volume.array, volume.grid, target), affine)


@pytest.mark.slow
def test_real_cases_raise_no_suspicion_and_nearly_every_exchange_is_seen(real_cases: Path) -> None:
    seen = 0
    cases = sorted(folder for folder in real_cases.iterdir() if folder.is_dir())
    for case in cases:
        volumes = {
            contrast: coarse(read_nifti(case / f"{case.name}_{contrast}.nii.gz", argument=contrast))
            for contrast in CONTRASTS
        }
        assert suspect(volumes).suspicions == ()
        seen += sum(bool(suspect(exchanged(volumes, *pair)).suspicions) for pair in PAIRS)
    assert seen >= 0.95 * len(PAIRS) * len(cases)
