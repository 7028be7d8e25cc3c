"""What bfloat16 costs in accuracy: the bundled model in both precisions, on a phantom and on cases.

The real cases are those that the model's card names for validation. The table of their Dice scores
is printed and recorded even where everything passes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from model_core.checkpoints import DEFAULT_MODEL, load_bundle
from model_core.cpu import usable_cpus
from model_core.imaging.nifti import read_label_map
from model_core.imaging.study import Study, find_studies, load_study, make_study
from model_core.inference.segmenter import Segmenter
from model_core.labels import REGIONS, LabelArray, region_mask
from model_core.metrics.overlap import dice
from model_core.phantom import make_phantom
from model_core.precision import Precision, fast_bfloat16

MUTUAL_DICE = 0.99
"""Whole tumour in one precision against the other."""
MEAN_LOSS = 0.002
"""Whole tumour against the truth: how far the mean over the cases may move, either way."""

COMPARED: tuple[Precision, ...] = ("float32", "bfloat16")

Labels = Mapping[Precision, LabelArray]


@cache
def segmenter(precision: Precision) -> Segmenter:
    return Segmenter(load_bundle(DEFAULT_MODEL), precision=precision)


def segmented(study: Study) -> Labels:
    return {name: segmenter(name).segment(study).labels for name in COMPARED}


def scores(labels: LabelArray, truth: LabelArray) -> dict[str, float]:
    return {
        region: dice(region_mask(labels, region), region_mask(truth, region)) for region in REGIONS
    }


def row(name: str, labels: Labels, truth: LabelArray) -> str:
    """One line: the Dice of each region in float32, and how far bfloat16 is from it."""
    exact, rounded = (scores(labels[name], truth) for name in ("float32", "bfloat16"))
    parts = [f"{r} {exact[r]:.4f} {rounded[r] - exact[r]:+.4f}" for r in REGIONS]
    mutual = scores(labels["bfloat16"], labels["float32"])
    return f"{name:16} {' · '.join(parts)} · mutual WT {mutual['WT']:.4f}"


@pytest.fixture
def every_processor() -> Iterator[None]:
    """Whole studies need them; other tests run on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(usable_cpus())
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("every_processor")
@pytest.mark.timeout(900)
def test_a_phantom_has_the_same_tumour_in_both_precisions() -> None:
    if fast_bfloat16() is None:
        pytest.skip("bfloat16 is emulated here: many minutes for one phantom")
    phantom = make_phantom(0)
    labels = segmented(make_study(phantom.images))
    assert np.count_nonzero(labels["float32"]) > 1000, "nothing was found: nothing is compared"
    mutual = scores(labels["bfloat16"], labels["float32"])
    assert mutual["WT"] >= MUTUAL_DICE, row(phantom.name, labels, phantom.labels.array)
    assert (labels["bfloat16"] != labels["float32"]).any(), "bfloat16 was not switched on"


def validation_cases(folder: Path) -> list[Path]:
    names = load_bundle(DEFAULT_MODEL).card.training.model_extra["validation_cases"]
    return [folder / name for name in names if (folder / name).is_dir()]


@pytest.mark.slow
@pytest.mark.usefixtures("every_processor")
@pytest.mark.timeout(1800)
def test_on_real_cases_bfloat16_scores_as_float32_does(
    real_cases: Path,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    if fast_bfloat16() is None:
        pytest.skip("bfloat16 is emulated here: many minutes for one case")
    cases = validation_cases(real_cases)
    if not cases:
        pytest.skip("none of the model's validation cases is in the folder of real cases")
    table, losses = [], []
    for case in cases:
        (files,) = find_studies(case)
        study = load_study(files.paths)
        assert files.truth is not None
        truth, _ = read_label_map(files.truth, argument="seg", on=study.native.grid)
        labels = segmented(study)
        table.append(row(case.name, labels, truth))
        losses.append(
            scores(labels["bfloat16"], truth)["WT"] - scores(labels["float32"], truth)["WT"]
        )
    record_property("dice", repr(table))
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(table) + "\n")
    assert abs(float(np.mean(losses))) < MEAN_LOSS, "\n".join(table)
