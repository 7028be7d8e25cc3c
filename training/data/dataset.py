"""A data set as a value: its task, its cases' files and how those files number their labels.

Every layout (BraTS folders, nnU-Net raw, Medical Segmentation Decathlon) is read into this; what
follows (verify, fingerprint, plan, prepare, train, predict) knows no layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from training.data.problem import Problem
from training.task import Task


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """Where the files of one case are.

    Args:
        name: as the files are named. It may identify a patient: for the user's own screen and
            folders, not for logs, metrics or cards (`training.naming.shown_names`).
        images: one file per channel in the task's order; one file alone may hold all channels
            (a colour PNG, a 4-D NIfTI).
        label: the truth, if there is one.
        channels: what the images show, in the files' order, so that a model with its channels in
            another order reads the right ones; empty: they follow the task.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None = None
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set found on disk.

    Args:
        name: e.g. ``Dataset137_BraTS2021`` or the folder's name.
        layout: ``brats``, ``nnunet`` or ``msd``.
        task: channels, labels and regions.
        values: file value → internal label, as the data set declares it; a value that is not
            named here is an error of the file, never guessed at. Where several file values are one
            label, the first is the one to write.
        training: labelled cases, sorted by name.
        validation: cases that the layout itself sets aside (``val/``, a split file); else empty.
        test: cases to predict (``imagesTs``), sorted by name; most have no truth.
        problems: what finding the files has shown already; `training.data.verify` tells the rest.
    """

    name: str
    layout: str
    task: Task
    values: Mapping[int, int]
    training: tuple[CaseFiles, ...]
    validation: tuple[CaseFiles, ...] = ()
    test: tuple[CaseFiles, ...] = ()
    problems: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        """Make the values read-only."""
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    def __getstate__(self) -> dict[str, Any]:
        """Travel between processes, which a read-only mapping cannot."""
        return {**self.__dict__, "values": dict(self.values)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Inverse of `__getstate__`."""
        self.__dict__.update(state, values=MappingProxyType(state["values"]))

    @property
    def file_values(self) -> Mapping[int, int]:
        """Internal label → the value that stands for it in a file."""
        first: dict[int, int] = {0: 0}
        for value, label in self.values.items():
            first.setdefault(label, value)
        return first

    @property
    def labelled(self) -> tuple[CaseFiles, ...]:
        """Every case with a truth, sorted by name."""
        return tuple(sorted((*self.training, *self.validation), key=lambda case: case.name))
