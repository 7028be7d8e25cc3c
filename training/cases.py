"""Training cases: found once, prepared once, kept as memory-mapped arrays.

A prepared case is a folder of plain ``.npy`` files in the model's frame (the card's orientation and
spacing, cropped to the brain box): ``image`` float16 (C, X, Y, Z), ``labels`` uint8 (X, Y, Z) in
internal numbering, and for each label present up to 20 000 of its voxels, which the sampler draws
from. The folder's parent is named after the preprocessing, so a changed one is never mistaken.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_core.errors import StudyError
from model_core.imaging.nifti import read_label_map
from model_core.imaging.preprocess import Preprocessing, prepare, prepare_labels
from model_core.imaging.study import StudyFiles, load_study
from model_core.types import Label, Shape3
from training.config import TrainConfig

_LAYOUT = 1
"""Version of the cached arrays; part of the cache's name."""
_VOXELS_PER_LABEL = 20_000


@dataclass(frozen=True, kw_only=True)
class CachedCase:
    """One prepared case on disk; arrays are mapped when asked for, never held."""

    name: str
    folder: Path
    shape: Shape3
    present: tuple[int, ...]
    """Tumour labels that the case has."""
    background: tuple[float, ...]
    """Value of each channel outside the brain."""
    weight: float = 1.0
    """How often the case is drawn, relative to the others."""

    def image(self) -> npt.NDArray[np.float16]:
        """Channels (C, X, Y, Z), normalised."""
        mapped: npt.NDArray[np.float16] = np.load(self.folder / "image.npy", mmap_mode="r")
        return mapped

    def labels(self) -> npt.NDArray[np.uint8]:
        """Truth (X, Y, Z) on the image's grid."""
        mapped: npt.NDArray[np.uint8] = np.load(self.folder / "labels.npy", mmap_mode="r")
        return mapped

    def voxels(self, label: int) -> npt.NDArray[np.int16]:
        """Some voxel indices (N, 3) of a label that is `present`."""
        mapped: npt.NDArray[np.int16] = np.load(self.folder / f"voxels_{label}.npy", mmap_mode="r")
        return mapped


def preprocessing(config: TrainConfig) -> Preprocessing:
    """How a study becomes the network's input, the same for training and for the bundle."""
    return Preprocessing(
        channels=config.channels,
        orientation=config.orientation,
        spacing_mm=config.spacing_mm,
        normalisation=config.normalisation,
    )


def cache_name(config: TrainConfig) -> str:
    """Name of the cache folder that belongs to a preprocessing."""
    described = json.dumps([_LAYOUT, asdict(preprocessing(config))], sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:12]


def prepare_cases(
    studies: Sequence[StudyFiles],
    config: TrainConfig,
    cache: Path,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[CachedCase, ...]:
    """Every study as a `CachedCase`, from the cache where it is there already."""
    cases = []
    for done, study in enumerate(studies):
        if progress:
            progress("prepare", done, len(studies))
        cases.append(prepare_case(study, config, cache))
    return tuple(cases)


def prepare_case(study: StudyFiles, config: TrainConfig, cache: Path) -> CachedCase:
    """One study as a `CachedCase`; a half-written cache is never seen.

    Raises:
        StudyError: the study has no ground truth.
        ImageError: an image cannot be used.
    """
    folder = cache / cache_name(config) / study.name
    if not (folder / "case.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
        try:
            _write_case(study, config, partial)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return cached_case(study.name, config, cache)


def cached_case(name: str, config: TrainConfig, cache: Path) -> CachedCase:
    """A case that the cache holds already."""
    folder = cache / cache_name(config) / name
    facts = json.loads((folder / "case.json").read_text())
    x, y, z = facts["shape"]
    return CachedCase(
        name=name,
        folder=folder,
        shape=(x, y, z),
        present=tuple(facts["present"]),
        background=tuple(facts["background"]),
    )


def _write_case(study: StudyFiles, config: TrainConfig, folder: Path) -> None:
    if study.truth is None:
        raise StudyError(
            "seg",
            expected="a ground-truth label map beside the four contrasts",
            got="none",
            way_out="Leave the case out or add its label map.",
        )
    loaded = load_study(study.paths)
    prepared = prepare(loaded, preprocessing(config))
    truth, _ = read_label_map(study.truth, argument="seg", on=loaded.native.grid)
    labels = prepare_labels(truth, prepared)
    write_arrays(folder, prepared.image, labels, prepared.brain)


def write_arrays(
    folder: Path,
    image: npt.NDArray[np.float32],
    labels: npt.NDArray[np.uint8],
    brain: npt.NDArray[np.bool_],
) -> None:
    """Write the files of one case: image (C, X, Y, Z), labels and brain mask (X, Y, Z)."""
    np.save(folder / "image.npy", image.astype(np.float16))
    np.save(folder / "labels.npy", labels.astype(np.uint8))
    present = [int(label) for label in Label if label and bool((labels == label).any())]
    rng = np.random.default_rng(0)
    for label in present:
        voxels = np.argwhere(labels == label).astype(np.int16)
        chosen = rng.permutation(len(voxels))[:_VOXELS_PER_LABEL]
        np.save(folder / f"voxels_{label}.npy", voxels[chosen])
    outside = image[:, ~brain]
    # In float16 as the image is: the augmentation recognises the background by equality.
    level = outside[:, 0] if outside.shape[1] else np.zeros(len(image))
    facts = {
        "shape": [int(n) for n in labels.shape],
        "present": present,
        "background": [float(value) for value in level.astype(np.float16)],
    }
    (folder / "case.json").write_text(json.dumps(facts))
