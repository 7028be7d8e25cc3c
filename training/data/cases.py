"""Training cases: prepared once, kept compressed and memory-mapped.

A prepared case is a folder in the model's frame (the config's orientation and spacing, cropped to
the box of what is not 0): ``image.b2nd`` (C, X, Y, Z), float16 unless the values are kept as they
are; ``labels.b2nd`` uint8 (X, Y, Z), internal; and for each label present up to 20 000 of its
voxels, which the sampler draws from. It lies at ``CACHE/PREPROCESSING/DATA SET/CASE``: another
preprocessing has another place, and files that have changed are prepared anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from model_core.errors import InputError
from model_core.imaging.preprocess import prepare_labels
from model_core.types import Shape3, Spacing
from training.config import TrainConfig
from training.data.arrays import CompressedArray, write_array
from training.data.dataset import CaseFiles, Dataset
from training.data.images import prepare_images, preprocessing, read_images, read_labels
from training.naming import shown_names

Progress = Callable[[str, int, int], None]
_LAYOUT: Final = 2
"""Version of the cached arrays; part of the cache's name."""
_VOXELS_PER_LABEL: Final = 20_000
_FACTS: Final = "case.json"


@dataclass(frozen=True, kw_only=True)
class CachedCase:
    """One prepared case on disk; arrays are mapped when asked for, never held."""

    name: str
    folder: Path
    shape: Shape3
    present: tuple[int, ...]
    """Internal labels that the case has."""
    background: tuple[float, ...]
    """Value of each channel outside the brain."""
    weight: float = 1.0
    """How often the case is drawn, relative to the others."""
    spacing_mm: Spacing = (1.0, 1.0, 1.0)
    """Of the arrays' grid, along their axes."""

    def image(self) -> CompressedArray:
        """Channels (C, X, Y, Z), normalised; slicing gives NumPy."""
        return CompressedArray(self.folder / "image.b2nd")

    def labels(self) -> CompressedArray:
        """Truth (X, Y, Z) on the image's grid; slicing gives NumPy."""
        return CompressedArray(self.folder / "labels.b2nd")

    def voxels(self, label: int) -> npt.NDArray[np.signedinteger[Any]]:
        """Some voxel indices (N, 3) of a label that is `present`."""
        mapped: npt.NDArray[np.signedinteger[Any]] = np.load(
            self.folder / f"voxels_{label}.npy", mmap_mode="r"
        )
        return mapped


def weighted(case: CachedCase, config: TrainConfig) -> CachedCase:
    """A real case with the weight that the config gives it."""
    lacking = len(case.present) < len(config.task.labels)
    return dataclasses.replace(case, weight=config.lacking_weight) if lacking else case


def cache_name(config: TrainConfig) -> str:
    """Name of the cache folder that belongs to a preprocessing."""
    described = json.dumps([_LAYOUT, asdict(preprocessing(config))], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:12]


def case_folder(name: str, dataset: str, config: TrainConfig, cache: Path) -> Path:
    """Where a case of the data set called `dataset` lies, prepared or not."""
    return cache / cache_name(config) / (dataset or "data") / name


def prepare_cases(
    cases: Sequence[CaseFiles],
    dataset: Dataset,
    config: TrainConfig,
    cache: Path,
    *,
    progress: Progress | None = None,
    workers: int = 1,
) -> tuple[CachedCase, ...]:
    """Every case as a `CachedCase`, from the cache where it is there already.

    Args:
        cases: with truth.
        dataset: that they belong to.
        config: the preprocessing.
        cache: folder of prepared cases; may be shared by runs at the same time.
        progress: told after each case.
        workers: cases that are prepared at a time; each needs memory for a case of its own.

    Raises:
        InputError: a case cannot be used; called by its `shown_names`.
    """
    shown = shown_names([case.name for case in cases])
    with ThreadPoolExecutor(max(1, workers)) as pool:
        jobs = [pool.submit(prepare_case, case, dataset, config, cache) for case in cases]
        try:
            for done, job in enumerate(as_completed(jobs), start=1):
                error = job.exception()
                if isinstance(error, InputError):
                    raise _of_case(error, shown[jobs.index(job)]) from error
                job.result()
                if progress:
                    progress("prepare", done, len(jobs))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return tuple(job.result() for job in jobs)


def prepare_case(case: CaseFiles, dataset: Dataset, config: TrainConfig, cache: Path) -> CachedCase:
    """One case as a `CachedCase`; a half-written cache is never seen.

    Raises:
        StudyError: the case has no truth, or its images do not fit the task.
        ImageError: a file cannot be used.
    """
    folder = case_folder(case.name, dataset.name, config, cache)
    source = _source(case, dataset)
    if not _holds(folder, source):
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
        try:
            _write_case(case, dataset, config, partial, source)
            _put(partial, folder, source)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return cached_case(case.name, dataset.name, config, cache)


def cached_case(name: str, dataset: str, config: TrainConfig, cache: Path) -> CachedCase:
    """A case that the cache holds already; else `FileNotFoundError`."""
    folder = case_folder(name, dataset, config, cache)
    facts = json.loads((folder / _FACTS).read_text())
    x, y, z = facts["shape"]
    dx, dy, dz = facts["spacing_mm"]
    return CachedCase(
        name=name,
        folder=folder,
        shape=(x, y, z),
        present=tuple(facts["present"]),
        background=tuple(facts["background"]),
        spacing_mm=(dx, dy, dz),
    )


def write_arrays(
    folder: Path,
    image: npt.NDArray[np.float32],
    labels: npt.NDArray[np.uint8],
    brain: npt.NDArray[np.bool_],
    *,
    spacing_mm: Spacing = (1.0, 1.0, 1.0),
    exact: bool = False,
    source: str = "",
) -> None:
    """Write the files of one case.

    Args:
        folder: an empty one.
        image: (C, X, Y, Z).
        labels: (X, Y, Z), internal.
        brain: (X, Y, Z), where there is something to see.
        spacing_mm: of the arrays.
        exact: keep float32 instead of float16 (values that are not normalised may be large).
        source: what the files were when they were read.
    """
    kept = np.float32 if exact else np.float16
    write_array(folder / "image.b2nd", image.astype(kept))
    write_array(folder / "labels.b2nd", labels.astype(np.uint8))
    present = [int(label) for label in np.flatnonzero(np.bincount(labels.ravel())) if label]
    rng = np.random.default_rng(0)
    index = np.int16 if max(labels.shape) < 2**15 else np.int32
    for label in present:
        voxels = np.argwhere(labels == label).astype(index)
        chosen = rng.permutation(len(voxels))[:_VOXELS_PER_LABEL]
        np.save(folder / f"voxels_{label}.npy", voxels[chosen])
    outside = image[:, ~brain]
    # In the type of the image: the augmentation recognises the background by equality.
    level = outside[:, 0] if outside.shape[1] else np.zeros(len(image))
    facts = {
        "shape": [int(n) for n in labels.shape],
        "spacing_mm": [float(mm) for mm in spacing_mm],
        "present": present,
        "background": [float(value) for value in level.astype(kept)],
        "source": source,
    }
    (folder / _FACTS).write_text(json.dumps(facts))


def _write_case(
    case: CaseFiles, dataset: Dataset, config: TrainConfig, folder: Path, source: str
) -> None:
    volumes = read_images(case, dataclasses.replace(dataset.task, channels=config.task.channels))
    labels = read_labels(case, dataset, on=volumes[0].grid)
    prepared = prepare_images(volumes, config)
    write_arrays(
        folder,
        prepared.image,
        prepare_labels(labels, prepared),
        prepared.brain,
        spacing_mm=prepared.model_grid.spacing_mm,
        exact=config.normalisation == "none",
        source=source,
    )


def _source(case: CaseFiles, dataset: Dataset) -> str:
    """What the case's files are now, by size and time; empty if one is gone."""
    paths = [*case.images, *([case.label] if case.label else [])]
    try:
        stats = [path.stat() for path in paths]
    except OSError:
        return ""
    described = json.dumps(
        [sorted(dataset.values.items()), [(s.st_size, s.st_mtime_ns) for s in stats]]
    )
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def _holds(folder: Path, source: str) -> bool:
    """Whether a whole case lies there that was read from these files, or they are gone since."""
    try:
        known = json.loads((folder / _FACTS).read_text())["source"]
    except (OSError, ValueError, KeyError):
        return False
    return known == source or not source


def _put(partial: Path, folder: Path, source: str) -> None:
    """Give a finished case its place, unless another process was faster."""
    if _holds(folder, source):
        return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        partial.rename(folder)
    except OSError:
        if not _holds(folder, source):
            raise


def _of_case(error: InputError, shown: str) -> InputError:
    return type(error)(
        f"{shown}, {error.argument}",
        expected=error.expected,
        got=error.got,
        way_out=f"{error.way_out} segmamba data verify names every such case.",
    )
