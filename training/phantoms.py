"""Phantom cases: generated studies that join the training set, each from its own seed."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from model_core.imaging.study import find_studies
from model_core.phantom import write_phantom
from training.cases import CachedCase, cache_name, cached_case, prepare_case
from training.config import TrainConfig


def phantom_cases(config: TrainConfig, cache: Path) -> tuple[CachedCase, ...]:
    """The config's phantoms, prepared like real cases (seed 0, the demo's, is never used)."""
    cases = (_phantom_case(seed, config, cache) for seed in range(1, config.phantoms + 1))
    return tuple(dataclasses.replace(case, weight=config.phantom_weight) for case in cases)


def _phantom_case(seed: int, config: TrainConfig, cache: Path) -> CachedCase:
    name = f"phantom-{seed:04d}"
    with tempfile.TemporaryDirectory() as folder:
        if not (cache / cache_name(config) / name / "case.json").is_file():
            write_phantom(Path(folder), seed=seed)
            (study,) = find_studies(Path(folder))
            return prepare_case(dataclasses.replace(study, name=name), config, cache)
    return cached_case(name, config, cache)
