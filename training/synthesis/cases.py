"""Synthetic studies as training cases: each made once from its seed, then kept like a real case."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from model_core.errors import OptionError
from model_core.imaging.preprocess import prepare_labels
from training.config import TrainConfig
from training.data.cases import CachedCase, cached_case, case_folder, write_arrays
from training.data.images import prepare_images
from training.synthesis.studies import Material, draw_study

Progress = Callable[[str, int, int], None]
VERSION: Final = 2
"""Raised when a seed would give another study; part of the cache's name."""


def synthetic_cases(
    config: TrainConfig, cache: Path, material: Material, *, progress: Progress | None = None
) -> tuple[CachedCase, ...]:
    """The config's synthetic studies (seeds 1, 2, …), prepared like real cases.

    A study takes several seconds to make; an interrupted call continues where it was.

    Raises:
        OptionError: the task wants something else than BraTS contrasts and labels.
    """
    if not config.task.is_brats:
        raise OptionError(
            "synthetic",
            expected="0, as only BraTS contrasts and labels can be made",
            got=str(config.synthetic),
            way_out="Leave synthetic studies out for this data set.",
        )
    cases = []
    for done, seed in enumerate(range(1, config.synthetic + 1)):
        if progress:
            progress("synthesise", done, config.synthetic)
        cases.append(_case(seed, config, cache, material))
    return tuple(dataclasses.replace(case, weight=config.synthetic_weight) for case in cases)


def _case(seed: int, config: TrainConfig, cache: Path, material: Material) -> CachedCase:
    name, origin = f"synthetic-{seed:05d}", _origin(material)
    folder = case_folder(name, origin, config, cache)
    if not (folder / "case.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
        try:
            _write(seed, config, material, partial)
            _give(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return cached_case(name, origin, config, cache)


def _give(partial: Path, folder: Path) -> None:
    """Rename a finished case to its place, unless another run has made it meanwhile."""
    try:
        partial.rename(folder)
    except OSError:
        if not (folder / "case.json").is_file():
            raise


def _write(seed: int, config: TrainConfig, material: Material, folder: Path) -> None:
    drawn = draw_study(material, seed)
    volumes = [drawn.study.volumes[channel] for channel in config.task.contrasts]
    prepared = prepare_images(volumes, config)
    labels = prepare_labels(drawn.labels, prepared)
    spacing = prepared.model_grid.spacing_mm
    write_arrays(folder, prepared.image, labels, prepared.brain, spacing_mm=spacing)


def _origin(material: Material) -> str:
    """A folder's name that changes with the generator and with the files it draws from."""
    files = [(path.name, path.stat().st_size) for path in (*material.heads, *material.masks)]
    digest = hashlib.sha256(repr((VERSION, files)).encode()).hexdigest()
    return f"synthetic-{digest[:10]}"
