"""``python -m benchmarks.registration``: how far a registered brain lies from where it belongs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Final

import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.commandline import Options, close_results, open_results, options, parser, say
from benchmarks.results import Results, Row
from model_core.imaging.grid import Grid
from model_core.imaging.nifti import read_nifti
from model_core.imaging.resample import resample
from model_core.imaging.study import find_studies
from model_core.imaging.volume import Volume
from model_core.phantom import make_phantom
from model_core.preparation.grids import covering
from model_core.preparation.needs import FIXED
from model_core.preparation.register import THREADS, register
from model_core.preparation.rigid import Matrix, displacements_mm, moved_grid, voxel_places
from model_core.types import CONTRASTS, Contrast

DESCRIPTION: Final = """\
Moves contrasts of a study by known rigid movements (up to 15 degrees and 20 mm, about the brain's
middle), samples them anew on their old grid or in 5.5 mm slices, registers them to the
contrast-enhanced T1, and measures how far that leaves every voxel of the brain from its place.
Phantoms without --data; with it, real co-registered cases too.
"""
NOTES: Final = (
    "Seconds are processor seconds of one thread, reading excluded.",
    "mean mm, p95 mm: displacement from the true place over the voxels of the brain, all movements "
    "together; worst mm: mean over the brain of the worst movement; moved mm: how far the brain "
    "was from its place before, on average.",
    "scatter mm: how far registrations of one image pair that began elsewhere end from each other. "
    "Of real cases only this is ours alone: their contrasts were registered to each other by those "
    "who published them, by another program, and its error is in mean and p95.",
    "there and back: the movement from registering A to B after that from B to A, which should be "
    "none.",
)
LARGEST_DEG: Final = 15.0
LARGEST_MM: Final = 20.0
THICK_MM: Final = 5.5
CASES: Final = 4
PAIRS: Final[tuple[Contrast, ...]] = tuple(contrast for contrast in CONTRASTS if contrast != FIXED)
SLICES: Final = (
    "1 mm voxels",
    f"moving in {THICK_MM:g} mm slices",
    f"both in {THICK_MM:g} mm slices",
)


@dataclass(frozen=True, kw_only=True)
class Head:
    """A co-registered study, and where the voxels of its brain lie in RAS+ mm, (N, 3)."""

    volumes: Mapping[Contrast, Volume]
    places: Matrix


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One registration: its seconds, displacements over the brain before and after, what is left.

    ``left`` is the movement that remains, the identity if all went well.
    """

    head: int
    seconds: float
    before: Matrix
    after: Matrix
    left: Matrix


def heads(volumes: Sequence[Mapping[Contrast, Volume]]) -> list[Head]:
    return [
        Head(volumes=some, places=voxel_places(some[FIXED].array > 0, some[FIXED].grid))
        for some in volumes
    ]


def real_cases(folder: Path, count: int) -> Iterator[Mapping[Contrast, Volume]]:
    for study in find_studies(folder)[:count]:
        yield {c: read_nifti(study.paths[c], argument=c) for c in CONTRASTS}


def movements(head: Head, count: int, seed: int) -> list[Matrix]:
    """Turns about any axis and shifts in any direction, uniform up to the largest."""
    rng = np.random.default_rng(seed)
    middle = head.places.mean(axis=0)
    found = []
    for _ in range(count):
        axis, way = (vector / np.linalg.norm(vector) for vector in rng.normal(size=(2, 3)))
        matrix = np.eye(4)
        turn = np.radians(rng.uniform(0, LARGEST_DEG)) * axis
        matrix[:3, :3] = Rotation.from_rotvec(turn).as_matrix()
        matrix[:3, 3] = middle - matrix[:3, :3] @ middle + rng.uniform(0, LARGEST_MM) * way
        found.append(matrix)
    return found


def slices(grid: Grid) -> Grid:
    """The same box in thick slices along the axis nearest to the body's."""
    axis = next(i for i, code in enumerate(grid.axcodes) if code in "SI")
    x, y, z = (THICK_MM if i == axis else mm for i, mm in enumerate(grid.spacing_mm))
    return covering(grid, (x, y, z))


def sampled(volume: Volume, movement: Matrix, grid: Grid) -> Volume:
    """What a scanner would see on a grid after the head made a movement."""
    return Volume(resample(volume.array, moved_grid(volume.grid, movement), grid), grid.affine)


def pair(head: Head, contrast: Contrast, movement: Matrix, kind: str) -> tuple[Volume, Volume]:
    """The fixed and the moved contrast."""
    fixed, moving = head.volumes[FIXED], head.volumes[contrast]
    grid = moving.grid if kind == SLICES[0] else slices(moving.grid)
    if kind == SLICES[2]:
        fixed = sampled(fixed, np.eye(4), slices(fixed.grid))
    return fixed, sampled(moving, movement, grid)


def attempt(number: int, head: Head, contrast: Contrast, movement: Matrix, kind: str) -> Trial:
    fixed, moving = pair(head, contrast, movement, kind)
    began = process_time()
    found = register(fixed, moving).matrix
    seconds = process_time() - began
    left = found @ movement
    return Trial(
        head=number,
        seconds=seconds,
        before=displacements_mm(movement, np.eye(4), head.places),
        after=displacements_mm(left, np.eye(4), head.places),
        left=left,
    )


def back_and_forth(number: int, head: Head, contrast: Contrast, movement: Matrix) -> Trial:
    fixed, moving = pair(head, contrast, movement, SLICES[0])
    began = process_time()
    left = register(moving, fixed).matrix @ register(fixed, moving).matrix
    seconds = (process_time() - began) / 2
    there = head.places @ movement[:3, :3].T + movement[:3, 3]
    return Trial(
        head=number,
        seconds=seconds,
        before=displacements_mm(movement, np.eye(4), head.places),
        after=displacements_mm(left, np.eye(4), there),
        left=left,
    )


def scatter(trials: Sequence[Trial], some: Sequence[Head]) -> float | None:
    """Mean distance between ends of one pair of images, divided by √2; None where each is alone."""
    distances = [
        displacements_mm(one.left, other.left, some[one.head].places).mean()
        for i, one in enumerate(trials)
        for other in trials[i + 1 :]
        if one.head == other.head
    ]
    return float(np.mean(distances) / np.sqrt(2)) if distances else None


def measure(name: str, some: Sequence[Head], results: Results, chosen: Options) -> None:
    """All rows of one kind of head."""
    count = chosen.plan.rounds
    for kind in SLICES:
        for contrast in PAIRS:
            group = f"{name}, {kind}"
            if chosen.wants(results, group, f"{contrast} to {FIXED}"):
                trials = [
                    attempt(i % len(some), some[i % len(some)], contrast, movement, kind)
                    for i, movement in plan(some, count, CONTRASTS.index(contrast))
                ]
                results.add(row(group, f"{contrast} to {FIXED}", trials, scatter(trials, some)))
                tell(results.rows[-1])
    group = f"{name}, there and back, {SLICES[0]}"
    for contrast in PAIRS:
        if chosen.wants(results, group, f"{contrast} and {FIXED}"):
            trials = [
                back_and_forth(i % len(some), some[i % len(some)], contrast, movement)
                for i, movement in plan(some, max(1, count // 3), 10 + CONTRASTS.index(contrast))
            ]
            results.add(row(group, f"{contrast} and {FIXED}", trials, None))
            tell(results.rows[-1])


def plan(some: Sequence[Head], count: int, seed: int) -> list[tuple[int, Matrix]]:
    """Number and movement of each trial; heads take turns."""
    return [(i, movements(some[i % len(some)], 1, 1000 * seed + i)[0]) for i in range(count)]


def row(group: str, way: str, trials: Sequence[Trial], spread_mm: float | None) -> Row:
    after = np.concatenate([trial.after for trial in trials])
    numbers = {
        "moved_mm": float(np.mean([trial.before.mean() for trial in trials])),
        "mean_mm": float(after.mean()),
        "p95_mm": float(np.percentile(after, 95)),
        "worst_mm": max(float(trial.after.mean()) for trial in trials),
        "scatter_mm": spread_mm,
    }
    return Row(
        group=group,
        way=way,
        seconds=tuple(round(trial.seconds, 3) for trial in trials),
        threads=THREADS,
        precision="",
        extra={name: round(x, 3) for name, x in numbers.items() if x is not None},
    )


def tell(one: Row) -> None:
    numbers = "  ".join(f"{name} {value:g}" for name, value in one.extra.items())
    say(f"  {one.group}: {one.way:16s} {one.typical:6.2f} s  {numbers}")


def main() -> None:
    """Measure every row that was asked for, then write the page."""
    made = parser("registration", DESCRIPTION, rounds=20)
    made.add_argument("--no-phantom", action="store_true", help="measure real cases only")
    made.add_argument("--data", type=Path, metavar="FOLDER",
        help="co-registered, skull-stripped BraTS cases; without it phantoms only")  # fmt: skip
    values: argparse.Namespace = made.parse_args()
    chosen = options(values)
    results = open_results("registration", chosen, NOTES, peaks=False)
    shape = (60, 60, 40) if chosen.quick else (240, 240, 155)
    count = 1 if chosen.quick else CASES
    if not values.no_phantom:
        phantoms = [make_phantom(seed, shape=shape).images for seed in range(count)]
        measure("phantom", heads(phantoms), results, chosen)
    if values.data:
        measure("real cases", heads(list(real_cases(values.data, count))), results, chosen)
    close_results(results, chosen)


if __name__ == "__main__":
    main()
