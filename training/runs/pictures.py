"""Pictures of validation cases: the truth beside the prediction, one PNG for each evaluation."""

from __future__ import annotations

import io
import logging
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_core.imaging.atomic import write_atomically
from training.runs.run_folder import RunFolder, read_json
from training.runs.scene import Picture, Scene, draw_heading, draw_legend, draw_scene, stacked
from training.runs.view import PLAIN, View, axial_view, fullest_slice, view_across
from training.task import BRATS, LabelArray, Task

logger = logging.getLogger("training")

BRATS_SHOWN: Final = ("flair", "t1ce")
"""Oedema shows best on the first, the enhancing rim on the second."""
_CONTRAST_TITLES: Final = {"t1": "T1", "t1ce": "T1ce", "t2": "T2", "flair": "FLAIR"}
MANY_REGIONS: Final = 5
"""Up to so many, the title has the Dice of each."""


class ValidationPictures:
    """Draws the first `limit` cases of one evaluation: ``plots/val_predictions_epoch_*.png``.

    An *epoch* here is what lies between two evaluations; the file's name carries its number and
    the step. The PNG is whole after every case; a case that cannot be drawn is logged, no more.

    Args:
        folder: the run; its ``config.json`` tells orientation and spacing, if it is there.
        step: after which the evaluation is made.
        task: labels and regions.
        limit: cases shown.
    """

    def __init__(self, folder: RunFolder, step: int, task: Task, limit: int = 3) -> None:
        earlier = [line for line in folder.records("validation") if line.get("step", 0) < step]
        self.number = len(earlier) + 1
        self.path = folder.plots / f"val_predictions_epoch_{self.number:04d}_step_{step:06d}.png"
        self.task, self.step, self.limit = task, step, limit
        config = read_json(folder.config) or {}
        self._orientation = str(config.get("orientation") or "RAS")
        self._spacing = tuple(config.get("spacing_mm") or (1.0, 1.0, 1.0))
        self._cases: list[Picture] = []

    def __call__(
        self, name: str, image: NDArray[Any], truth: LabelArray, predicted: LabelArray
    ) -> None:
        """Add one case.

        Args:
            name: its shown name.
            image: (C, X, Y, Z) as the network sees it, in the config's orientation.
            truth: internal labels (X, Y, Z).
            predicted: likewise.
        """
        if len(self._cases) >= self.limit:
            return
        try:
            self._add(name, image, truth, predicted)
        except Exception as error:  # noqa: BLE001 - hours of training outweigh a picture
            logger.warning("no picture of %s: %s", name, error)

    def _add(
        self, name: str, image: NDArray[Any], truth: LabelArray, predicted: LabelArray
    ) -> None:
        truth, predicted = np.asarray(truth), np.asarray(predicted)
        view, index = self._place(truth, predicted)
        cuts = [np.asarray(view.cut(np.asarray(channel), index), np.float32) for channel in image]
        scene = Scene(
            title=f"{name}  ·  Dice: {dice_in_words(truth, predicted, self.task)}",
            images={channel_title(self.task, n): cuts[n] for n in shown_channels(self.task)},
            outside=np.all([cut == 0 for cut in cuts], axis=0),
            truth=view.cut(truth, index),
            predicted=view.cut(predicted, index),
            aspect=self._spacing[view.rows] / self._spacing[view.columns],
        )
        self._cases.append(draw_scene(scene, self.task))
        heading = draw_heading(f"Evaluation {self.number}, after step {self.step}")
        legend = draw_legend(self.task, view.left and f"largest section; left: {view.left}")
        write_png(self.path, stacked([heading, *self._cases, legend]))

    def _place(self, truth: LabelArray, predicted: LabelArray) -> tuple[View, int]:
        """The slice with the largest labelled area of the truth, else of the prediction."""
        if self.task.dims == 3:
            view = axial_view(self._orientation)
        else:
            view = PLAIN if truth.shape[0] == 1 else view_across(0, self._orientation)
        marked = truth > 0
        return view, fullest_slice(marked if marked.any() else predicted > 0, view.axis)


def shown_channels(task: Task) -> tuple[int, ...]:
    """Numbers of the channels that a picture shows: two of a BraTS task, else the first."""
    if task.labels == BRATS.labels and set(BRATS_SHOWN) <= set(task.channels):
        return tuple(task.channels.index(name) for name in BRATS_SHOWN)
    return (0,)


def channel_title(task: Task, number: int) -> str:
    """What a channel is called above a picture: BraTS contrasts as clinicians write them."""
    name = task.channels[number]
    return _CONTRAST_TITLES.get(name, name)


def dice_in_words(truth: LabelArray, predicted: LabelArray, task: Task) -> str:
    """Dice of the whole case per region; of many regions only the mean and the lowest."""
    from model_core.metrics import dice

    scores = {
        region.name: dice(task.mask(predicted, region.name), task.mask(truth, region.name))
        for region in task.regions
    }
    if len(scores) <= MANY_REGIONS:
        return ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
    lowest = min(scores, key=lambda name: scores[name])
    mean = sum(scores.values()) / len(scores)
    return f"mean of {len(scores)} regions {mean:.2f}, lowest {lowest} {scores[lowest]:.2f}"


def write_png(path: Any, picture: Picture) -> None:
    """Write (rows, columns, 3) as PNG, whole or not at all."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
