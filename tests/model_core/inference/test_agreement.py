"""What mirrored passes say of each other, against segmenting every mirror image by itself."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from model_core.findings.agreement import agreement_of
from model_core.imaging.study import Study
from model_core.imaging.volume import Volume
from model_core.inference.segmenter import SegmentOptions
from model_core.types import CONTRASTS, Tta
from tests.model_core.inference.small_network import make_segmenter

SIDE = 16


def whole_window_study() -> Study:
    """Noise without a margin, so that the brain box is exactly one window."""
    rng = np.random.default_rng(3)
    volumes = {
        contrast: Volume(rng.uniform(1, 9, (SIDE,) * 3).astype(np.float32), np.eye(4))
        for contrast in CONTRASTS
    }
    return Study(volumes, "t1", volumes["t1"])


def mirrored(study: Study, axes: tuple[int, ...]) -> Study:
    volumes = {
        contrast: Volume(np.flip(volume.array, axes), volume.affine)
        for contrast, volume in study.volumes.items()
    }
    return Study(volumes, "t1", volumes["t1"])


@pytest.mark.parametrize(("tta", "most"), [("fast", 1), ("full", 3)])
def test_it_is_the_agreement_of_every_mirror_image_segmented_alone(tta: Tta, most: int) -> None:
    study, segmenter = whole_window_study(), make_segmenter()
    found = segmenter.segment(study, SegmentOptions(tta=tta)).agreement
    maps = []
    for count in range(most + 1):
        for axes in combinations(range(3), count):
            alone = segmenter.segment(mirrored(study, axes), SegmentOptions(tta="none"))
            maps.append(np.flip(alone.labels, axes))
    assert found == pytest.approx(agreement_of(maps))
    assert all(0 < value < 1 for value in found.values())


def test_one_pass_has_no_agreement_and_the_label_map_does_not_change_by_looking() -> None:
    study, segmenter = whole_window_study(), make_segmenter()
    assert segmenter.segment(study, SegmentOptions(tta="none")).agreement == {}
    report = segmenter.segment(study, SegmentOptions(tta="fast")).report()
    assert set(report["agreement"]) == {"WT", "TC", "ET"}
