"""Predicting cases, and all that is kept of it: label maps, corrected ones, scores and pictures.

::

    OUT/raw/CASE.nii.gz            as the network gave it, on the case's own grid, in file values
    OUT/postprocessed/CASE.nii.gz  after the corrections, where there are any
    OUT/pictures/CASE.png          of the first cases
    OUT/summary.json               what ran, what the corrections changed, scores (see `results`)

Pictures (PNG) become pictures. A case that fails is noted and the others go on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from model_core.errors import Cancelled, SegMambaError
from model_core.imaging.volume import Volume
from model_core.inference.sliding_window import Watch, raise_if_cancelled
from model_core.types import CancelCheck, Tta
from training.data.dataset import CaseFiles, Dataset
from training.data.described import PICTURES
from training.data.images import (
    read_images,
    read_label_file,
    read_labels,
    to_internal,
    write_labels,
)
from training.judge.inputs import Inputs, renumbering
from training.judge.models import Model
from training.judge.outputs import PICTURES_FOLDER, source_of, take_folder, write_summary
from training.judge.results import CORRECTED, RAW, CaseResult, Failure, Results
from training.judge.score import CaseScore, score_case
from training.loop.memory import is_out_of_memory
from training.naming import shown_names
from training.task import LabelArray, Task

if TYPE_CHECKING:
    from training.judge.corrections import Corrections


class Bars(Protocol):
    """Who shows how far the work is, e.g. `model_core.cli.show.StudyProgress`."""

    def start_study(self, name: str, doing: str = "read") -> None:
        """A case begins."""

    def update(self, stage: str, done: int, total: int) -> None:
        """Windows of it are done."""

    def finish_study(self) -> None:
        """It is over, whatever became of it."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What is made of each case."""

    tta: Tta = "none"
    corrections: Corrections | None = None
    pictures: int = 10
    """Cases that are drawn, in their order."""
    overwrite: bool = False
    """Predict anew what is there already, instead of keeping it."""


def predict_case(
    model: Model,
    case: CaseFiles,
    dataset: Dataset,
    *,
    tta: Tta = "none",
    watch: Watch | None = None,
) -> tuple[LabelArray, Volume]:
    """Predict one case.

    Args:
        model: from `training.judge.loading.load_model`.
        case: its files; a truth is not looked at.
        dataset: that it belongs to.
        tta: mirrored passes.
        watch: who is told, who may stop.

    Returns:
        labels: internal labels of the data set's task (X, Y, Z) on the case's own grid.
        image: its first channel, whose geometry a file of the labels takes over.

    Raises:
        StudyError: images that the model cannot take, or other labels than the model's.
        ImageError: a file that is unusable.
    """
    place = renumbering(model.task, dataset.task)
    volumes = read_images(case, model.task)
    labels = model.predict(volumes, tta=tta, watch=watch)
    return labels if place is None else place[labels], volumes[0]


def predict_cases(
    model: Model,
    inputs: Inputs,
    out: Path,
    options: PredictOptions,
    *,
    bars: Bars | None = None,
    cancelled: CancelCheck | None = None,
) -> Results:
    """Predict cases into a folder; ``summary.json`` is true after every case.

    Args:
        model: from `training.judge.loading.load_model`.
        inputs: from `training.judge.inputs.find_inputs`.
        out: the folder; results that the same settings gave before for the same images are kept.
        options: what is made of each case.
        bars: told of the progress.
        cancelled: asked between cases and windows.

    Raises:
        OptionError: the folder holds results of other settings, or the corrections belong to
            another task.
        Cancelled: what was finished before is there.
    """
    _check_corrections(options.corrections, model.task)
    results = Results(
        settings=_settings(model, options), task=model.task, trained_on=model.trained_on
    )
    kept = take_folder(out, results.settings, overwrite=options.overwrite)
    results = replace(results, sources=kept)
    write_summary(out, results)
    maker = _Maker(model=model, dataset=inputs.dataset, out=out, options=options)
    for number, case in enumerate(inputs.cases):
        raise_if_cancelled(cancelled)
        watch = Watch(progress=bars.update if bars else None, cancelled=cancelled)
        if bars:
            bars.start_study(case.name)
        try:
            source = source_of(case, inputs.dataset)
            if results.sources.get(case.name) != source:
                results = maker.forget(case, results)
            done = maker.make(case, watch, draw=number < options.pictures)
            sources = {**results.sources, case.name: source}
            results = replace(results, done=(*results.done, done), sources=sources)
        except Cancelled:
            raise
        except (SegMambaError, OSError, RuntimeError, MemoryError) as error:
            if not isinstance(error, SegMambaError | OSError) and not is_out_of_memory(error):
                raise
            failure = Failure(name=case.name, reason=_reason(error))
            results = replace(results, failed=(*results.failed, failure))
        if bars:
            bars.finish_study()
        write_summary(out, results)
    return results


@dataclass(frozen=True, kw_only=True)
class _Maker:
    """Everything that is the same for all cases of one call."""

    model: Model
    dataset: Dataset
    """Its labels are numbered as the model's."""
    out: Path
    options: PredictOptions

    def forget(self, case: CaseFiles, results: Results) -> Results:
        """Drop what was made from other images under this name: first from the summary."""
        if not self._path(RAW, case).exists():
            return results
        others = {name: kept for name, kept in results.sources.items() if name != case.name}
        results = replace(results, sources=others)
        write_summary(self.out, results)
        for path in (self._path(RAW, case), self._path(CORRECTED, case), self._picture(case)):
            path.unlink(missing_ok=True)
        return results

    def make(self, case: CaseFiles, watch: Watch, *, draw: bool) -> CaseResult:
        """Predict, correct, score, write and draw one case."""
        began = perf_counter()
        task = self.model.task
        volumes = read_images(case, task)
        raw, predicted = self._raw(case, volumes, watch)
        maps: dict[str, LabelArray] = {RAW: raw}
        steps: tuple[dict[str, Any], ...] = ()
        if self.options.corrections is not None:
            maps[CORRECTED], steps = self._correct(case, raw, volumes[0])
        truth = self._truth(case, volumes[0])
        if draw:
            self._draw(case, volumes, maps, truth)
        return CaseResult(
            name=case.name,
            predicted=predicted,
            voxels={r.name: int(task.mask(raw, r.name).sum()) for r in task.regions},
            voxel_ml=None if ending_of(case) == ".png" else volumes[0].grid.voxel_ml,
            steps=steps,
            changed_voxels=(
                int(np.count_nonzero(maps[CORRECTED] != raw)) if CORRECTED in maps else None
            ),
            scores=None if truth is None else _scores(maps, truth, task, volumes[0]),
            seconds=perf_counter() - began,
        )

    def _raw(
        self, case: CaseFiles, volumes: tuple[Volume, ...], watch: Watch
    ) -> tuple[LabelArray, bool]:
        """The network's labels, and whether they were predicted now."""
        path = self._path(RAW, case)
        if path.exists():
            kept = read_label_file(path, on=volumes[0].grid)
            return to_internal(kept.array, self.dataset), False
        labels = self.model.predict(volumes, tta=self.options.tta, watch=watch)
        write_labels(path, labels, volumes[0], self.dataset)
        return labels, True

    def _correct(
        self, case: CaseFiles, raw: LabelArray, like: Volume
    ) -> tuple[LabelArray, tuple[dict[str, Any], ...]]:
        from training.judge.corrections import apply_corrections

        assert self.options.corrections is not None
        corrected, reports = apply_corrections(
            raw, like.spacing_mm, self.model.task, self.options.corrections
        )
        path = self._path(CORRECTED, case)
        path.parent.mkdir(exist_ok=True)
        write_labels(path, corrected, like, self.dataset)
        return corrected, tuple(report.to_dict() for report in reports)

    def _truth(self, case: CaseFiles, like: Volume) -> LabelArray | None:
        if case.label is None or not case.label.is_file():
            return None
        return read_labels(case, self.dataset, on=like.grid)

    def _draw(
        self,
        case: CaseFiles,
        volumes: tuple[Volume, ...],
        maps: dict[str, LabelArray],
        truth: LabelArray | None,
    ) -> None:
        from training.judge.sheets import draw_sheet, write_sheet

        figure = draw_sheet(
            volumes,
            self.model.task,
            prediction=maps[RAW],
            postprocessed=maps.get(CORRECTED),
            truth=truth,
            title=shown_names([case.name])[0],
        )
        path = self._picture(case)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sheet(path, figure)

    def _picture(self, case: CaseFiles) -> Path:
        return self.out / PICTURES_FOLDER / f"{case.name}.png"

    def _path(self, kind: str, case: CaseFiles) -> Path:
        return self.out / kind / f"{case.name}{ending_of(case)}"


def ending_of(case: CaseFiles) -> str:
    """What the name of a case's label map ends in: ``.png`` for pictures, else ``.nii.gz``."""
    return ".png" if case.images[0].suffix.lower() in PICTURES else ".nii.gz"


def _scores(
    maps: dict[str, LabelArray], truth: LabelArray, task: Task, like: Volume
) -> dict[str, CaseScore]:
    return {kind: score_case(labels, truth, task, like.spacing_mm) for kind, labels in maps.items()}


def _settings(model: Model, options: PredictOptions) -> dict[str, Any]:
    corrections = options.corrections
    return {
        "model": model.name,
        "weights": model.fingerprint,
        "tta": options.tta,
        "passes": model.passes(options.tta),
        "corrections": None if corrections is None else corrections.stored(),
    }


def _check_corrections(corrections: Corrections | None, task: Task) -> None:
    """Refuse now what every case would stumble over."""
    from training.judge.corrections import apply_corrections

    if corrections is not None:
        apply_corrections(np.zeros((1, 1, 1), np.uint8), (1.0, 1.0, 1.0), task, corrections)


def _reason(error: Exception) -> str:
    """Why a case failed, without a path."""
    if is_out_of_memory(error):
        return "out of memory. Predict it on a machine with more, or with a smaller window."
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)
