"""Phantom cases: generated studies that join the training set, each from its own seed."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from model_core.phantom import write_phantom
from training.config import TrainConfig
from training.data.cases import CachedCase, cached_case, case_folder, prepare_case
from training.data.find import load_dataset

_DATASET = "phantoms"


def phantom_cases(config: TrainConfig, cache: Path) -> tuple[CachedCase, ...]:
    """The config's phantoms, prepared like real cases (seed 0, the demo's, is never used)."""
    cases = (_phantom_case(seed, config, cache) for seed in range(1, config.phantoms + 1))
    return tuple(dataclasses.replace(case, weight=config.phantom_weight) for case in cases)


def _phantom_case(seed: int, config: TrainConfig, cache: Path) -> CachedCase:
    name = f"phantom-{seed:04d}"
    if not (case_folder(name, _DATASET, config, cache) / "case.json").is_file():
        with tempfile.TemporaryDirectory() as folder:
            write_phantom(Path(folder), seed=seed)
            dataset = dataclasses.replace(load_dataset(Path(folder)), name=_DATASET)
            (case,) = dataset.labelled
            prepare_case(dataclasses.replace(case, name=name), dataset, config, cache)
    return cached_case(name, _DATASET, config, cache)
