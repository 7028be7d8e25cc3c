"""The choices of a plan that are no sizes: dimensions, orientation, normalisation; with reasons."""

from __future__ import annotations

import re
from typing import Final

from model_core.errors import OptionError
from model_core.types import Shape3
from training.config import NetworkName, Normalisation
from training.data.fingerprint import Fingerprint
from training.data.memory import appetite
from training.data.rules import slice_axis

CROPPED: Final = 0.75
"""Where cropping leaves less than this share of the voxels, the images are masked (nnU-Net)."""


def check_dims(fingerprint: Fingerprint, dims: int, network: NetworkName) -> None:
    """Refuse a network that cannot see such images; raises `OptionError`."""
    if fingerprint.pictures and dims != 2:
        raise OptionError(
            "dims",
            expected="2, for pictures have no third axis",
            got=f"{dims}",
            way_out="Choose a 2-D recipe: lightm-unet-2d.",
        )
    if dims not in appetite(network).bytes_per_voxel:
        raise OptionError(
            "network",
            expected=f"one with {dims} dimensions",
            got=network,
            way_out="lightm-unet has 2 or 3 dimensions, segmamba and segmamba-brtm have 3.",
        )


def choose_orientation(fingerprint: Fingerprint, dims: int) -> tuple[str, str]:
    """The direction of each array axis, and why."""
    letters = fingerprint.orientation
    if fingerprint.pictures:
        return letters, "pictures: one slice each, rows and columns as stored"
    if dims == 3:
        return letters, "as every other model of this project"
    axis = slice_axis(fingerprint.median_spacing_mm)
    turned = letters[axis] + letters[:axis] + letters[axis + 1 :]
    return turned, f"slices are cut along {letters[axis]}, where the voxels are the thickest"


def choose_normalisation(fingerprint: Fingerprint) -> tuple[Normalisation, str]:
    """How values are brought to a common scale, and why."""
    names = [name.lower() for name in fingerprint.channels]
    if all(re.match(r"ct\b", name) for name in names):
        if all(one.sd > 0 and one.low < one.high for one in fingerprint.intensities):
            return "ct", "every channel is named CT: clipped to the foreground's 0.5 to 99.5 %"
        return "zscore-box", "CT, but the foreground has one value only"
    if all(re.match(r"no_?norm", name) for name in names):
        return "none", "every channel is named noNorm"
    share = fingerprint.cropped_share
    mixed = "; CT beside other channels is treated like them" if "ct" in names else ""
    if share < CROPPED:
        why = f"cropping leaves {share:.0%} of the voxels: the images are masked, 0 means nothing"
        return "zscore-brain", f"{why}{mixed}"
    why = f"cropping leaves {share:.0%} of the voxels: 0 is a value like others"
    return "zscore-box", f"{why}{mixed}"


def why_patched(wanted: Shape3, patch: Shape3, multiple: int, memory_gb: float) -> str:
    """Why the patch is as large as it is."""
    sizes = f"multiples of {multiple}, the network's stride"
    if wanted == patch:
        return f"the median image; {sizes}"
    return f"begun at {wanted}, cut until a batch of two fits into {memory_gb:g} GB; {sizes}"
