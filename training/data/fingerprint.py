"""The fingerprint of a data set: what its images and labels are like, in numbers.

It decides spacing, patch, batch and normalisation (`training.data.plan`). It holds no case's name
or picture, so it may be shown and shared. Axes are those of `Fingerprint.orientation`; volumes are
millilitres (pictures, which have no size: thousands of pixels).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from model_core.errors import StudyError
from model_core.imaging.preprocess import Preprocessing, prepare_volumes
from model_core.types import Shape3, Spacing
from training.config import Intensity
from training.data.dataset import CaseFiles, Dataset
from training.data.described import PICTURES
from training.data.images import read_images, read_labels

Progress = Callable[[str, int, int], None]
_VOXELS_PER_CASE: Final = 100_000
"""Of foreground, drawn at random: the percentiles of a data set need no more."""
_SPACING_DECIMALS: Final = 5


@dataclass(frozen=True, kw_only=True)
class LabelFacts:
    """One label over a data set."""

    name: str
    cases: int
    """That have it."""
    median_ml: float
    """Over the cases that have it, as the two below."""
    smallest_ml: float
    largest_ml: float
    frequency: float
    """Share of all voxels inside the cropped images."""


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """A data set in numbers; lists are per labelled case, in no telling order."""

    dataset: str
    layout: str
    channels: tuple[str, ...]
    pictures: bool
    orientation: str
    cases: int
    """With a label map."""
    without_label: int
    """Cases that have none."""
    without_foreground: int
    """Label maps that are background everywhere."""
    shapes: tuple[Shape3, ...]
    """Voxels after cropping to what is not 0, at the images' own spacing."""
    spacings_mm: tuple[Spacing, ...]
    cropped_share: float
    """Median over cases: voxels that the cropping leaves."""
    intensities: tuple[Intensity, ...]
    """Per channel, of the foreground voxels (of all voxels ≠ 0 where there is no foreground)."""
    medians: tuple[float, ...]
    """Per channel, likewise."""
    labels: tuple[LabelFacts, ...]

    @property
    def median_shape(self) -> Shape3:
        """Median over the cases, axis by axis."""
        x, y, z = (int(size) for size in np.median(self.shapes, axis=0).round())
        return x, y, z

    @property
    def median_spacing_mm(self) -> Spacing:
        """Median over the cases, axis by axis."""
        x, y, z = (float(mm) for mm in np.median(self.spacings_mm, axis=0))
        return x, y, z

    def to_json(self) -> dict[str, Any]:
        """In JSON's own types; `from_json` gives an equal fingerprint back."""
        values: dict[str, Any] = json.loads(_ADAPTER.dump_json(self))
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Fingerprint:
        """Inverse of `to_json`; anything else raises `StudyError`."""
        try:
            return _ADAPTER.validate_python(dict(values))
        except ValidationError as error:
            raise StudyError(
                "fingerprint",
                expected="what segmamba data fingerprint wrote",
                got=f"another form ({error.errors()[0]['msg']})",
                way_out="Make it again.",
            ) from error


_ADAPTER = TypeAdapter(Fingerprint)


@dataclass(frozen=True, kw_only=True)
class _CaseFacts:
    shape: Shape3
    spacing_mm: Spacing
    cropped_share: float
    sample: npt.NDArray[np.float32]
    """(C, N) values of foreground voxels."""
    counts: npt.NDArray[np.int64]
    """Voxels of each internal label."""
    voxel_ml: float
    foreground: bool


def make_fingerprint(
    dataset: Dataset,
    *,
    orientation: str = "SPL",
    workers: int = 1,
    progress: Progress | None = None,
) -> Fingerprint:
    """Read every labelled case and describe the data set.

    Args:
        dataset: what to describe.
        orientation: whose axes shapes and spacings follow; pictures keep theirs ("RAS").
        workers: cases that are read at a time.
        progress: told after each case.

    Raises:
        StudyError: no labelled case, or one that cannot be used.
        ImageError: a file that cannot be used.
    """
    cases = dataset.labelled
    if not cases:
        raise StudyError(
            "data",
            expected="cases with label maps",
            got="none",
            way_out="Fingerprint the training data; docs/how-to/data.md shows the layouts.",
        )
    pictures = are_pictures(dataset)
    axes = "RAS" if pictures else orientation
    facts = _all_facts(cases, dataset, axes, workers, progress)
    samples = np.concatenate([one.sample for one in facts], axis=1)
    without = [case for case in dataset.test if case.label is None]
    return Fingerprint(
        dataset=dataset.name,
        layout=dataset.layout,
        channels=dataset.task.channels,
        pictures=pictures,
        orientation=axes,
        cases=len(cases),
        without_label=len(without),
        without_foreground=sum(not one.foreground for one in facts),
        shapes=tuple(one.shape for one in facts),
        spacings_mm=tuple(one.spacing_mm for one in facts),
        cropped_share=float(np.median([one.cropped_share for one in facts])),
        intensities=tuple(_intensity(values) for values in samples),
        medians=tuple(float(np.median(values)) for values in samples),
        labels=tuple(
            _label(name, value, facts) for value, name in enumerate(dataset.task.labels, start=1)
        ),
    )


def are_pictures(dataset: Dataset) -> bool:
    """Whether the images are pictures (PNG …), which have no physical size."""
    every = (*dataset.labelled, *dataset.test)
    return bool(every) and every[0].images[0].suffix.lower() in PICTURES


def _all_facts(
    cases: Sequence[CaseFiles],
    dataset: Dataset,
    orientation: str,
    workers: int,
    progress: Progress | None,
) -> list[_CaseFacts]:
    with ThreadPoolExecutor(max(1, workers)) as pool:
        jobs = [
            pool.submit(_facts, case, dataset, orientation, number)
            for number, case in enumerate(cases)
        ]
        try:
            for done, job in enumerate(as_completed(jobs), start=1):
                job.result()
                if progress:
                    progress("fingerprint", done, len(jobs))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [job.result() for job in jobs]


def _facts(case: CaseFiles, dataset: Dataset, orientation: str, seed: int) -> _CaseFacts:
    volumes = read_images(case, dataset.task)
    native = volumes[0].grid
    labels = read_labels(case, dataset, on=native)
    unchanged = Preprocessing(
        channels=dataset.task.channels,
        orientation=native.axcodes,
        spacing_mm=None,
        normalisation="none",
    )
    prepared = prepare_volumes(volumes, unchanged)
    inside = labels[prepared.box] > 0
    x, y, z = prepared.model_grid.reoriented(orientation).spacing_mm
    return _CaseFacts(
        shape=prepared.model_grid.reoriented(orientation).shape,
        spacing_mm=(_rounded(x), _rounded(y), _rounded(z)),
        cropped_share=prepared.image[0].size / labels.size,
        sample=_sample(prepared.image, inside, seed),
        counts=np.bincount(labels.ravel(), minlength=len(dataset.task.labels) + 1),
        voxel_ml=native.voxel_ml,
        foreground=bool(labels.any()),
    )


def _sample(
    image: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_], seed: int
) -> npt.NDArray[np.float32]:
    """Some foreground values (C, N) of a case, all channels from the same voxels."""
    where = inside if inside.any() else (image != 0).any(axis=0)
    places = np.flatnonzero(where)
    if len(places) > _VOXELS_PER_CASE:
        places = np.random.default_rng(seed).choice(places, _VOXELS_PER_CASE, replace=False)
    return image.reshape(len(image), -1)[:, places]


def _intensity(values: npt.NDArray[np.float32]) -> Intensity:
    low, high = np.percentile(values, (0.5, 99.5))
    return Intensity(
        mean=float(values.mean(dtype=np.float64)),
        sd=float(values.std(dtype=np.float64)),
        low=float(low),
        high=float(high),
    )


def _label(name: str, value: int, facts: Sequence[_CaseFacts]) -> LabelFacts:
    volumes = [one.counts[value] * one.voxel_ml for one in facts if one.counts[value]]
    voxels = sum(float(np.prod(one.shape)) for one in facts)
    return LabelFacts(
        name=name,
        cases=len(volumes),
        median_ml=float(np.median(volumes)) if volumes else 0.0,
        smallest_ml=float(min(volumes, default=0.0)),
        largest_ml=float(max(volumes, default=0.0)),
        frequency=float(sum(one.counts[value] for one in facts) / voxels),
    )


def _rounded(mm: float) -> float:
    """Without the rounding of a header's float32."""
    return round(mm, _SPACING_DECIMALS)


def read_fingerprint(path: Path) -> Fingerprint:
    """A fingerprint from its file; anything else raises `StudyError`."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = {}
    return Fingerprint.from_json(values if isinstance(values, dict) else {})
