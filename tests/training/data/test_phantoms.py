"""Phantoms join the training set as cases of their own, never the demo's."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from model_core.phantom import make_phantom, write_phantom
from training.data import phantoms
from training.recipes import small_segmamba

SHAPE = (48, 48, 40)


@pytest.fixture(autouse=True)
def _small_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phantoms, "write_phantom", partial(write_phantom, shape=SHAPE))


def test_phantoms_are_cases_with_their_truth_and_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(small_segmamba(), phantoms=2, phantom_weight=0.5)
    first, second = phantoms.phantom_cases(config, tmp_path)
    assert [first.name, second.name] == ["phantom-0001", "phantom-0002"]
    assert first.weight == 0.5
    truth = make_phantom(1, shape=SHAPE).labels.array
    assert (np.asarray(first.labels()) > 0).sum() == (truth > 0).sum()
    images = [np.asarray(case.image()) for case in (first, second)]
    assert images[0].shape != images[1].shape or (images[0] != images[1]).any()

    monkeypatch.setattr(phantoms, "write_phantom", None)  # the second time nothing is generated
    assert phantoms.phantom_cases(config, tmp_path) == (first, second)
