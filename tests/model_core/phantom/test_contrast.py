"""Appearance: the table covers every tissue, and the noise is that of a magnitude image."""

from __future__ import annotations

import numpy as np
import pytest

from model_core.phantom.anatomy import Tissue
from model_core.phantom.contrast import APPEARANCE, acquire
from model_core.types import CONTRASTS


def test_every_contrast_knows_every_tissue() -> None:
    assert set(APPEARANCE) == set(CONTRASTS)
    for look in APPEARANCE.values():
        assert set(look.tissue) == set(Tissue) - {Tissue.OUTSIDE}


def test_contrasts_order_tissues_as_physics_does() -> None:
    t1, t2, flair = (APPEARANCE[c].tissue for c in ("t1", "t2", "flair"))

    assert t1[Tissue.WHITE] > t1[Tissue.GREY] > t1[Tissue.VENTRICLE]
    assert t2[Tissue.VENTRICLE] > t2[Tissue.GREY] > t2[Tissue.WHITE]
    assert flair[Tissue.GREY] > flair[Tissue.WHITE] > flair[Tissue.VENTRICLE]


def test_noise_is_rician() -> None:
    """Without signal the mean is noise * sqrt(pi / 2); far above the noise it is the signal."""
    rng = np.random.default_rng(0)
    dark, bright = np.zeros((40, 40, 40), np.float32), np.full((40, 40, 40), 2000, np.float32)
    mask = np.ones(dark.shape, np.bool_)

    assert acquire(rng, dark, 50.0, mask).mean() == pytest.approx(50 * np.sqrt(np.pi / 2), rel=0.01)
    loud = acquire(rng, bright, 50.0, mask)
    assert loud.mean() == pytest.approx(2000.6, abs=1.0)
    assert loud.std() == pytest.approx(50.0, rel=0.02)


def test_only_the_brain_has_signal_and_all_of_it_has() -> None:
    mask = np.zeros((4, 4, 4), np.bool_)
    mask[1:3] = True

    image = acquire(np.random.default_rng(0), np.zeros(mask.shape, np.float32), 0.01, mask)

    assert np.array_equal(image > 0, mask)
