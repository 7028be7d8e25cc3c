"""A study that was made ready, the account of how, and the way back for its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model_core.errors import InputError
from model_core.imaging.study import Study
from model_core.imaging.volume import Volume
from model_core.labels import LabelArray
from model_core.preparation.back import carry_labels
from model_core.preparation.needs import Needs
from model_core.preparation.options import PrepareOptions
from model_core.preparation.rigid import Matrix, moved_grid
from model_core.types import Contrast


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that was done.

    Attributes:
        name: ``bias``, ``register``, ``resample`` or ``strip``.
        tool: what did it, with its version.
        seconds: how long it took.
        contrast: to which contrast; None where to all.
        figures: its numbers, as plain JSON values.
    """

    name: str
    tool: str
    seconds: float
    contrast: Contrast | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        about = {"step": self.name} | ({"contrast": self.contrast} if self.contrast else {})
        return {**about, **self.figures, "tool": self.tool, "seconds": round(self.seconds, 2)}


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedStudy:
    """What `model_core.preparation.prepare.prepare_study` gives.

    Attributes:
        study: the four contrasts as a network wants them.
        native: the volume on whose grid labels are wanted, as it was handed over.
        onto_fixed: 4 × 4, a point of `native` in RAS+ mm to that of the study.
        options: what was asked for.
        needs: what the images lacked.
        steps: what was done, in order; empty where nothing was.
    """

    study: Study
    native: Volume
    onto_fixed: Matrix
    options: PrepareOptions
    needs: Needs
    steps: tuple[Step, ...] = ()

    def bring_back(self, labels: LabelArray) -> tuple[LabelArray, Volume]:
        """Carry labels from the study's grid onto the grid that was asked for.

        Args:
            labels: (X, Y, Z) in the internal numbering, uint8, on the study's grid.

        Returns:
            The labels on the grid of `native`, exactly the same where nothing was moved or
            resampled; and `native`.

        Raises:
            InputError: the labels are not on the study's grid.
        """
        grid = self.study.native.grid
        if labels.shape != grid.shape:
            raise InputError(
                "labels",
                expected=f"the prepared study's shape {grid.shape}",
                got=f"{labels.shape}",
                way_out="Hand over the label map that was made from this study.",
            )
        return carry_labels(
            labels, grid, moved_grid(self.native.grid, self.onto_fixed)
        ), self.native

    def report(self) -> dict[str, Any]:
        """Everything that was done, as plain JSON values.

        Transforms (``moving_to_fixed_ras_mm``) take a point of the named contrast in RAS+ mm to the
        point of the fixed contrast that shows the same.
        """
        return {
            "mode": self.options.mode,
            "onto": self.options.onto,
            "fixed": self.study.reference,
            "needs": self.needs.to_dict(),
            "grid": self.study.native.grid.describe(),
            "steps": [step.to_dict() for step in self.steps],
            "seconds": round(sum(step.seconds for step in self.steps), 2),
        }


def as_it_is(study: Study) -> PreparedStudy:
    """A study that is looked at as it came: nothing was done, and nothing has to be undone."""
    return PreparedStudy(
        study=study,
        native=study.native,
        onto_fixed=np.eye(4),
        options=PrepareOptions(mode="none", onto=study.reference),
        needs=Needs(register=False, strip=False, resample=False, stripped=(), reasons=()),
    )
