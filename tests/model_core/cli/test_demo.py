"""`segmamba demo`, with a small phantom and a small model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model_core.checkpoints import load_bundle
from model_core.cli.demo import run_demo
from model_core.imaging.nifti import read_label_map
from model_core.inference.segmenter import Segmenter, SegmentOptions
from model_core.labels import region_mask
from model_core.metrics.overlap import dice


def test_the_demo_prints_volumes_times_dice_and_where_the_files_lie(
    models_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segmenter = Segmenter(load_bundle(models_folder / "tiny"))
    run_demo(segmenter, SegmentOptions(), tmp_path, seed=3, shape=(32, 36, 30))
    said = capsys.readouterr().out
    found, _ = read_label_map(tmp_path / "segmentation.nii.gz", argument="found")
    truth, _ = read_label_map(tmp_path / "study" / "Phantom_0003_seg.nii.gz", argument="truth")
    expected = dice(region_mask(found, "WT"), region_mask(truth, "WT"))
    assert re.search(rf"WT .* {expected:.3f}", said)
    assert re.search(r"read \d+\.\d s .* total \d+\.\d s", said)
    for name in ("segmentation.nii.gz", "report.json", "preview.png"):
        assert str(tmp_path / name) in said
        assert (tmp_path / name).stat().st_size > 0
