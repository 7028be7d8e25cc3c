"""How a channel's values are brought to a common scale before a network sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model_core.errors import OptionError, StudyError

Normalisation = Literal["zscore-nonzero", "zscore-brain", "zscore-box", "ct", "none"]
"""``zscore-nonzero``: mean and sd over the voxels ≠ 0 of each channel; zeros stay 0.
``zscore-brain``: over one mask for all channels, the voxels where some channel is not 0 with its
holes filled; 0 outside (nnU-Net's ``use_mask_for_norm``). ``zscore-box``: over the whole brain box,
zeros included, which then are no longer 0. ``ct``: clipped and scaled by `ChannelIntensity`.
``none``: the values as they are."""


class ChannelIntensity(Protocol):
    """What one channel's foreground holds over a whole data set: the numbers of ``ct``."""

    @property
    def mean(self) -> float:
        """Of the foreground voxels."""

    @property
    def sd(self) -> float:
        """Likewise, positive."""

    @property
    def low(self) -> float:
        """Values below are clipped to it."""

    @property
    def high(self) -> float:
        """Values above are clipped to it."""


def check_intensities(known: Sequence[ChannelIntensity] | None, channels: int) -> None:
    """Refuse what ``ct`` cannot be computed with; raises `OptionError`."""
    fits = known is not None and len(known) == channels
    if not fits or not all(one.sd > 0 and one.low < one.high for one in known or ()):
        raise OptionError(
            "intensities",
            expected=f"mean, sd > 0 and low < high for each of {channels} channels",
            got=f"{known}",
            way_out="Measure the data set's foreground: segmamba data fingerprint.",
        )


def brain_mask(image: NDArray[np.float32], how: Normalisation) -> NDArray[np.bool_]:
    """Where there is something to see in any channel of (C, X, Y, Z); see `Normalisation`."""
    if how in ("ct", "none"):
        return np.ones(image.shape[1:], np.bool_)
    brain: NDArray[np.bool_] = (image != 0).any(axis=0)
    if how == "zscore-brain":
        brain = ndimage.binary_fill_holes(brain)
    return brain


def normalise(
    image: NDArray[np.float32],
    brain: NDArray[np.bool_],
    how: Normalisation,
    *,
    names: Sequence[str],
    known: Sequence[ChannelIntensity] | None = None,
) -> None:
    """Shift and scale the channels in place.

    Args:
        image: (C, X, Y, Z).
        brain: `brain_mask` of it.
        how: see `Normalisation`.
        names: of the channels, for errors.
        known: one per channel, for ``ct``.

    Raises:
        StudyError: a channel has one value everywhere that counts.
    """
    if how == "ct":
        assert known is not None, "a Preprocessing that exists has been checked"
        for channel, intensity in zip(image, known, strict=True):
            np.clip(channel, intensity.low, intensity.high, out=channel)
            channel -= np.float32(intensity.mean)
            channel /= np.float32(intensity.sd)
        return
    if how == "none":
        return
    for channel, name in zip(image, names, strict=True):
        if how == "zscore-nonzero":
            where = channel != 0
        else:
            where = brain if how == "zscore-brain" else np.ones(channel.shape, bool)
        _standardise(channel, where, name)


def _standardise(channel: NDArray[np.float32], where: NDArray[np.bool_], name: str) -> None:
    """Bring the voxels of one channel to mean 0 and (population) standard deviation 1."""
    values = channel[where]
    if values.size:
        values -= np.float32(values.mean(dtype=np.float64))
        deviation = float(np.sqrt(np.square(values).mean(dtype=np.float64)))
        if np.isfinite(deviation) and deviation > 0:
            values /= np.float32(deviation)
            channel[where] = values
            return
    raise StudyError(
        name,
        expected="an image whose voxels differ from each other",
        got="one value everywhere in the brain",
        way_out="Check that this contrast was exported correctly.",
    )
