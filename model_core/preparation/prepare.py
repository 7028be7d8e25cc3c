"""From four scans of one head to a study that a network may look at, and back.

The contrast-enhanced T1 stays where it is. In order: the bias field where asked for, a rigid
registration of the other three to it, one resampling of each onto its 1 mm grid, and a brain mask
for all four. What a study does not lack is not done; a study that lacks nothing comes out as it
went in, voxel for voxel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_core.cpu import usable_cpus
from model_core.errors import StudyError
from model_core.imaging.grid import Grid
from model_core.imaging.orientation import turn
from model_core.imaging.resample import LINEAR, resample
from model_core.imaging.study import SPACING_RANGE_MM, make_study
from model_core.imaging.volume import Volume
from model_core.preparation.alignment import WELL_COVERED, Alignment
from model_core.preparation.confined import Bounds
from model_core.preparation.grids import working_grid
from model_core.preparation.itk import itk_version
from model_core.preparation.n4 import correct_bias
from model_core.preparation.needs import FIXED, Needs, brain_of, needs
from model_core.preparation.options import PrepareOptions
from model_core.preparation.prepared import PreparedStudy, Step
from model_core.preparation.rigid import Matrix, moved
from model_core.preparation.skull import find_brain
from model_core.preparation.skull_tools import Tool, find_tool
from model_core.preparation.together import Timed, align_all
from model_core.preparation.watch import Watch, timed
from model_core.types import CONTRASTS, CancelCheck, Contrast, Progress

__all__ = ["PrepareOptions", "PreparedStudy", "prepare_study"]

Volumes = Mapping[Contrast, Volume]
STANDS: Final[Matrix] = np.eye(4)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What will be done: by the mode and by what the study lacks."""

    register: bool
    strip: bool
    resample: bool
    n4: bool
    mask_from: Contrast | None
    """A contrast that is stripped already and lends its mask to those that are not."""

    @property
    def anything(self) -> bool:
        return self.register or self.strip or self.resample or self.n4


def prepare_study(
    volumes: Volumes,
    options: PrepareOptions | None = None,
    *,
    progress: Progress | None = None,
    cancelled: CancelCheck | None = None,
) -> PreparedStudy:
    """Make a study ready.

    Args:
        volumes: the four contrasts as they were read; any grids, with or without skull.
        options: what the caller chooses.
        progress: told ``(stage, done, total)`` for the stages ``bias``, ``register``, ``resample``
            and ``strip``, as far as they are needed, from the calling thread.
        cancelled: asked several times a second.

    Raises:
        StudyError: a contrast is missing or implausible, cannot be laid on the others, or no tool
            finds its brain; says which.
        Cancelled: `cancelled` answered yes; nothing is left behind.
    """
    options = options or PrepareOptions()
    watch = Watch(progress=progress, cancelled=cancelled)
    lacking = needs(volumes)
    plan = _plan(options, lacking)
    watch.stop_if_asked()
    if not plan.anything:
        study = make_study(volumes, reference=options.onto)
        native = volumes[options.onto]
        return PreparedStudy(
            study=study, native=native, onto_fixed=STANDS, options=options, needs=lacking
        )
    return _prepared(volumes, options, lacking, plan, watch)


def _plan(options: PrepareOptions, lacking: Needs) -> _Plan:
    if options.mode == "none":
        return _Plan(register=False, strip=False, resample=False, n4=False, mask_from=None)
    full = options.mode == "full"
    return _Plan(
        register=full or lacking.register,
        strip=full or lacking.strip,
        resample=full or lacking.resample,
        n4=options.n4,
        mask_from=None if full else _lender(lacking.stripped),
    )


def _lender(stripped: Sequence[Contrast]) -> Contrast | None:
    """Which stripped contrast lends its mask: the fixed one rather than another."""
    return FIXED if FIXED in stripped else next(iter(stripped), None)


def _prepared(
    volumes: Volumes, options: PrepareOptions, lacking: Needs, plan: _Plan, watch: Watch
) -> PreparedStudy:
    _check_spacing(volumes)
    # Before anything slow: a missing tool is told at once.
    tool = find_tool(options.skull_strip) if plan.strip and plan.mask_from is None else None
    steps: list[Step] = []
    scans = _corrected(volumes, steps, watch) if plan.n4 else volumes
    matrices, warnings = _aligned(scans, plan, steps, watch)
    reference: Contrast = FIXED if plan.register or plan.strip or plan.resample else options.onto
    grid = _grid(scans, matrices, plan, reference)
    images = _on_grid(scans, matrices, grid, steps, watch)
    if plan.strip:
        images = _stripped(images, plan, tool, steps, watch)
    study = make_study(images, reference=reference)
    return PreparedStudy(
        study=replace(study, warnings=(*study.warnings, *warnings)),
        native=volumes[options.onto],
        onto_fixed=matrices[options.onto],
        options=options,
        needs=lacking,
        steps=tuple(steps),
    )


def _check_spacing(volumes: Volumes) -> None:
    """Refuse before anything slow what `make_study` would refuse of the scans themselves."""
    least, most = SPACING_RANGE_MM
    for contrast in CONTRASTS:
        spacing = volumes[contrast].spacing_mm
        if not (least <= min(spacing) and max(spacing) <= most):
            raise StudyError(
                contrast,
                expected=f"voxels of {least:g} to {most:g} mm",
                got=f"{'×'.join(f'{mm:.3g}' for mm in spacing)} mm",
                way_out="Check the unit and the spacing in the header.",
            )


def _corrected(volumes: Volumes, steps: list[Step], watch: Watch) -> Volumes:
    """All contrasts without their bias fields."""
    corrected: dict[Contrast, Volume] = {}
    for done, contrast in enumerate(CONTRASTS):
        watch.stop_if_asked()
        watch.tell("bias", done, len(CONTRASTS))
        with timed() as clock:
            corrected[contrast], spread = correct_bias(volumes[contrast])
        figures = {"field_p95_by_p5": round(spread, 3)}
        steps.append(
            Step(
                name="bias",
                contrast=contrast,
                tool=f"{itk_version()}, N4",
                seconds=clock.seconds,
                figures=figures,
            )
        )
    watch.tell("bias", len(CONTRASTS), len(CONTRASTS))
    return corrected


def _aligned(
    volumes: Volumes, plan: _Plan, steps: list[Step], watch: Watch
) -> tuple[dict[Contrast, Matrix], list[str]]:
    """Where each contrast goes, and what people should know about it."""
    matrices: dict[Contrast, Matrix] = dict.fromkeys(CONTRASTS, STANDS)
    if not plan.register:
        return matrices, []
    moving = {contrast: volumes[contrast] for contrast in CONTRASTS if contrast != FIXED}
    found = align_all(volumes[FIXED], moving, watch)
    steps.extend(_registration_step(contrast, *found[contrast]) for contrast in moving)
    matrices |= {contrast: alignment.matrix for contrast, (alignment, _) in found.items()}
    return matrices, _coverage_warnings(found)


def _registration_step(contrast: Contrast, alignment: Alignment, seconds: float) -> Step:
    return Step(
        name="register",
        contrast=contrast,
        tool=f"{itk_version()}, Mattes mutual information, rigid",
        seconds=seconds,
        figures={"fixed": FIXED, **alignment.figures()},
    )


def _coverage_warnings(found: Mapping[Contrast, Timed]) -> list[str]:
    return [
        f"{contrast}: shows {alignment.covered:.0%} of the head that {FIXED} shows; where it does "
        "not, its voxels are 0"
        for contrast, (alignment, _) in found.items()
        if alignment.covered < WELL_COVERED
    ]


def _grid(
    volumes: Volumes, matrices: Mapping[Contrast, Matrix], plan: _Plan, reference: Contrast
) -> Grid:
    """The reference's own grid where nothing has to be interpolated, else that of 1 mm."""
    grid = volumes[reference].grid
    still = all(np.array_equal(matrix, STANDS) for matrix in matrices.values())
    return grid if still and not plan.resample else working_grid(grid)


def _on_grid(
    volumes: Volumes,
    matrices: Mapping[Contrast, Matrix],
    grid: Grid,
    steps: list[Step],
    watch: Watch,
) -> dict[Contrast, Volume]:
    """Every contrast on one grid, by a single interpolation or, where possible, by none."""
    watch.stop_if_asked()
    watch.tell("resample", 0)
    with timed() as clock:
        images = {c: _placed(moved(volumes[c], matrices[c]), grid) for c in CONTRASTS}
    interpolated = [c for c in CONTRASTS if not _fits(moved(volumes[c], matrices[c]), grid)]
    if interpolated:
        steps.append(
            Step(
                name="resample",
                tool="SciPy, linear",
                seconds=clock.seconds,
                figures={"contrasts": interpolated, "grid": grid.describe()},
            )
        )
    watch.tell("resample", 1)
    return images


def _fits(volume: Volume, grid: Grid) -> bool:
    return volume.grid.reoriented(grid.axcodes).matches(grid)


def _placed(volume: Volume, grid: Grid) -> Volume:
    if _fits(volume, grid):
        values = turn(volume.array, volume.axcodes, grid.axcodes)
    else:
        values = resample(volume.array, volume.grid, grid, order=LINEAR, fill=0.0)
    return Volume(values, grid.affine, warnings=volume.warnings)


def _stripped(
    images: Volumes, plan: _Plan, tool: Tool | None, steps: list[Step], watch: Watch
) -> dict[Contrast, Volume]:
    """Every contrast, 0 outside the brain."""
    watch.stop_if_asked()
    watch.tell("strip", 0)
    with timed() as clock:
        mask, volume_ml, by = _brain(images, plan, tool, watch)
    figures = {"brain_ml": round(volume_ml, 1), "image": plan.mask_from or FIXED}
    steps.append(Step(name="strip", tool=by, seconds=clock.seconds, figures=figures))
    watch.tell("strip", 1)
    return {
        contrast: Volume(np.where(mask, image.array, 0), image.affine, warnings=image.warnings)
        for contrast, image in images.items()
    }


def _brain(
    images: Volumes, plan: _Plan, tool: Tool | None, watch: Watch
) -> tuple[NDArray[np.bool_], float, str]:
    """The mask, its volume in mL, and who said so."""
    if tool is None:
        assert plan.mask_from is not None
        lender = images[plan.mask_from]
        mask = brain_of(lender)
        return mask, float(mask.sum()) * lender.grid.voxel_ml, "the mask of a stripped contrast"
    bounds = Bounds(threads=usable_cpus())
    brain = find_brain(images[FIXED], tool, bounds=bounds, watch=watch)
    return brain.mask, brain.volume_ml, brain.tool
