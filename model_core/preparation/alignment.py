"""From a registration to a placement that may be used: judged, and kept only where it is needed.

A registration always ends somewhere. Whether it ended at the right place cannot be read off its
metric alone, so more is asked. Do the images have more in common than where the headers put them?
If not, the headers are believed. Does the moving image reach enough of the head, is the turn one
that a patient can make between two series, and do the images lose what they have in common when
they are pushed apart again? What fails is refused, never used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from model_core.errors import StudyError
from model_core.imaging.volume import Volume
from model_core.preparation.register import THREADS, NotFound, register
from model_core.preparation.rigid import (
    Matrix,
    displacements_mm,
    moved,
    rotation_degrees,
    voxel_places,
)
from model_core.preparation.similarity import Look
from model_core.types import Contrast

LEAST_COVERED: Final = 0.25
"""Share of the fixed head that a moving image has to show."""
WELL_COVERED: Final = 0.95
"""Below this share a warning says that part of the head lacks a contrast."""
LARGEST_TURN_DEG: Final = 40.0
"""No head turns farther between two series of one session, with a coil around it."""
PUSH_MM: Final = 8.0
"""How far images are pushed apart to see whether they lose what they have in common."""
LEAST_LOSS: Final = 0.2
"""Share of the information above none (1) that a push has to cost on average. Thirteen patients:
0.31 to 0.55 at the right place; on the next patient 0.08 to 0.20, upside down at most 0.11."""
ALREADY_MM: Final = 0.5
"""Images on one grid that are said to lie this near are left alone: no interpolation."""


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Where one contrast goes, and how that is known.

    Attributes:
        matrix: 4 × 4, a point of the moving contrast in RAS+ mm to that of the fixed one.
        start: which start of the registration led there.
        before: normalised mutual information where the headers put the images.
        after: the same after the movement.
        loss: share of the common information that a push of `PUSH_MM` costs.
        covered: share of the fixed head that the moving image shows.
        displacement_mm: how far the head is moved, on average.
        rotation_deg: by which angle.
        kept: the headers put it as well, or so near that it is left there: the matrix is the
            identity.
    """

    matrix: Matrix
    start: str
    before: float
    after: float
    loss: float
    covered: float
    displacement_mm: float
    rotation_deg: float
    kept: bool

    def figures(self) -> dict[str, object]:
        """The numbers as plain JSON values."""
        return {
            "moving_to_fixed_ras_mm": [[round(x, 6) for x in row] for row in self.matrix.tolist()],
            "normalised_mutual_information": {
                "before": round(self.before, 4),
                "after": round(self.after, 4),
            },
            "loss_when_pushed": round(self.loss, 3),
            "covered": round(self.covered, 3),
            "displacement_mm": round(self.displacement_mm, 2),
            "rotation_deg": round(self.rotation_deg, 2),
            "start": self.start,
            "kept_headers": self.kept,
            "threads": THREADS,
        }


def align(
    fixed: Volume,
    moving: Volume,
    *,
    contrast: Contrast,
    stop: Callable[[], bool] = lambda: False,
) -> Alignment:
    """Register one contrast and judge what came out.

    Args:
        fixed: the contrast that stays.
        moving: the contrast to be moved.
        contrast: its name, for errors.
        stop: asked after every round or step.

    Raises:
        StudyError: the two do not show the same head, or nobody can tell where.
        Cancelled: `stop` answered yes.
    """
    look = Look(fixed)
    try:
        found = register(fixed, moving, stop=stop)
    except NotFound as error:
        raise _refusal(contrast, "images that never meet") from error
    alignment = _judged(look, moving, found.matrix, found.start)
    if alignment.after < alignment.before:  # the headers were right, to less than can be told
        alignment = replace(_judged(look, moving, np.eye(4), "headers"), kept=True)
    if (problem := _problem(alignment)) is not None:
        raise _refusal(contrast, problem)
    same_grid = moving.reoriented(fixed.axcodes).grid.matches(fixed.grid)
    if same_grid and alignment.displacement_mm < ALREADY_MM:
        return replace(alignment, matrix=np.eye(4), after=alignment.before, kept=True)
    return alignment


def _judged(look: Look, moving: Volume, matrix: Matrix, start: str) -> Alignment:
    there = moved(moving, matrix)
    after = look.information(there)
    places = voxel_places(look.head, look.grid)
    back: Matrix = np.linalg.inv(matrix).astype(np.float64)
    return Alignment(
        matrix=matrix,
        start=start,
        before=look.information(moving),
        after=after,
        loss=_loss(look, there, after),
        covered=look.covered(there),
        displacement_mm=float(displacements_mm(back, np.eye(4), places).mean()),
        rotation_deg=rotation_degrees(matrix),
        kept=False,
    )


def _loss(look: Look, there: Volume, information: float) -> float:
    """What six pushes, two along each axis, cost on average."""
    pushed = []
    for axis in range(3):
        for way in (-PUSH_MM, PUSH_MM):
            push = np.eye(4)
            push[axis, 3] = way
            pushed.append(look.information(moved(there, push)))
    return 1 - (float(np.mean(pushed)) - 1) / max(information - 1, 1e-9)


def _problem(alignment: Alignment) -> str | None:
    """What speaks against a registration, in words for people; None if nothing does."""
    if alignment.covered < LEAST_COVERED:
        return f"one that shows {alignment.covered:.0%} of it"
    if alignment.rotation_deg > LARGEST_TURN_DEG:
        return f"a turn of {alignment.rotation_deg:.0f}°, which no head makes"
    if alignment.loss < LEAST_LOSS:
        return "images that fit no better here than anywhere near"
    return None


def _refusal(contrast: Contrast, got: str) -> StudyError:
    return StudyError(
        contrast,
        expected="an image of the same head as t1ce, which registration can lay on it",
        got=got,
        way_out="Look at both images; if they are right, co-register them yourself and prepare "
        "with mode none.",
    )
