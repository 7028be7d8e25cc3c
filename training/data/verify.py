"""The integrity check: every broken case of a data set in one pass, and what is wrong with each.

Errors make a case unusable. Warnings may be meant that way: a label map without foreground, one
image under two channels, a description that counts wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from model_core.errors import ImageError
from model_core.imaging.volume import Volume
from training.data.dataset import CaseFiles, Dataset
from training.data.images import read_files, read_label_file, undeclared
from training.data.problem import Kind, Problem

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was looked at and what was found, sorted by case."""

    dataset: str
    layout: str
    cases: int
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What makes a case unusable."""
        return tuple(problem for problem in self.problems if problem.error)

    @property
    def ok(self) -> bool:
        """Whether every case can be used."""
        return not self.errors

    def to_json(self) -> dict[str, Any]:
        """Everything, in JSON's own types; it names cases."""
        return {
            "dataset": self.dataset,
            "layout": self.layout,
            "cases": self.cases,
            "ok": self.ok,
            "problems": [asdict(problem) for problem in self.problems],
        }


def verify(dataset: Dataset, *, workers: int = 1, progress: Progress | None = None) -> Verification:
    """Read every file of every case, test cases included.

    Args:
        dataset: as `load_dataset` finds it with ``strict=False``.
        workers: cases that are read at a time; each needs memory for a case of its own.
        progress: told after each case.
    """
    cases = (*dataset.labelled, *dataset.test)
    problems = list(dataset.problems)
    contents: dict[str, list[str]] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        jobs = {pool.submit(check_case, case, dataset): case.name for case in cases}
        for done, job in enumerate(as_completed(jobs), start=1):
            found, content = job.result()
            problems += found
            if content:
                contents.setdefault(content, []).append(jobs[job])
            if progress:
                progress("verify", done, len(jobs))
    for names in contents.values():
        problems += _same_images(sorted(names))
    return Verification(
        dataset=dataset.name,
        layout=dataset.layout,
        cases=len(cases),
        problems=tuple(sorted(problems, key=lambda p: (p.case, not p.error, p.kind, p.text))),
    )


def check_case(case: CaseFiles, dataset: Dataset) -> tuple[list[Problem], str]:
    """What is wrong with one case, and a digest of its images (empty if they cannot be read)."""
    problems: list[Problem] = []

    def note(kind: Kind, text: str, *, error: bool = True) -> None:
        problems.append(Problem(case=case.name, kind=kind, text=text, error=error))

    names = case.channels or dataset.task.channels
    volumes: list[tuple[str, Volume]] = []
    for kind, text, volume in _read(case, names):
        if volume is None:
            note(kind, text)
        else:
            volumes.append((text, volume))
    for kind, text, error in (*_image_faults(volumes), *_label_faults(case, dataset, volumes)):
        note(kind, text, error=error)
    whole = not any(problem.error for problem in problems)
    return problems, _digest([volume for _, volume in volumes]) if whole else ""


_Read = tuple[Kind, str, Volume | None]
_Fault = tuple[Kind, str, bool]


def _read(case: CaseFiles, names: Sequence[str]) -> Iterator[_Read]:
    """Each channel that can be read, by name, and what is wrong with those that cannot."""
    together = len(case.images) == 1 and len(names) > 1
    if not together and len(case.images) != len(names):
        yield "channels", f"{len(case.images)} image files for {len(names)} channels", None
    for number, path in enumerate(case.images):
        name = names[number] if number < len(names) else f"channel {number}"
        if not path.is_file():
            yield "missing-channel", f"no image for {name}", None
            continue
        try:
            volumes = read_files([path], names if together else [name])
        except ImageError as error:
            yield _kind(error), f"{'images' if together else name}: {_says(error)}", None
            continue
        wanted = names if together else (name,)
        if len(volumes) != len(wanted):
            yield "channels", f"{len(volumes)} channels in a file for {len(wanted)}", None
            continue
        yield from (("channels", known, one) for known, one in zip(wanted, volumes, strict=True))


def _image_faults(volumes: Sequence[tuple[str, Volume]]) -> Iterator[_Fault]:
    for name, volume in volumes:
        if volume.array.min() == volume.array.max():
            yield "empty", f"{name} is {volume.array.flat[0]:g} everywhere", True
    for name, volume in volumes[1:]:
        first_name, first = volumes[0]
        fault = _apart(volume, first)
        if fault:
            yield "grid", f"{name} lies on another grid than {first_name}: {fault}", True
    for (one, first), (other, second) in combinations(volumes, 2):
        varied = first.array.min() != first.array.max()
        if varied and first.shape == second.shape and np.array_equal(first.array, second.array):
            yield "channels", f"{one} and {other} hold the same image", False


def _label_faults(
    case: CaseFiles, dataset: Dataset, volumes: Sequence[tuple[str, Volume]]
) -> Iterator[_Fault]:
    if case.label is None:
        return
    if not case.label.is_file():
        yield "missing-label", "no label map", True
        return
    try:
        truth = read_label_file(case.label)
    except ImageError as error:
        yield _kind(error), f"label: {_says(error)}", True
        return
    fault = _apart(truth, volumes[0][1]) if volumes else ""
    if fault:
        yield "grid", f"the label lies on another grid than {volumes[0][0]}: {fault}", True
    strange = undeclared(truth.array, dataset)
    if strange:
        shown = ", ".join(f"{value:g}" for value in strange[:5])
        declared = ", ".join(map(str, sorted(dataset.values)))
        text = f"label values {shown}{', …' if len(strange) > 5 else ''} of declared {declared}"
        yield "values", text, True
    elif not truth.array.any():
        yield "no-foreground", "the label map is background everywhere", False


def _apart(volume: Volume, first: Volume) -> str:
    """How another grid differs, for people; empty if it does not (axis order aside)."""
    turned, wanted = volume.reoriented(first.axcodes).grid, first.grid
    if turned.matches(wanted):
        return ""
    if turned.shape != wanted.shape:
        return f"{turned.describe()} instead of {wanted.describe()}"
    return f"{turned.distance_mm(wanted.affine):.3g} mm apart"


def _kind(error: ImageError) -> Kind:
    return "not-finite" if "NaN" in error.got else "unreadable"


def _says(error: ImageError) -> str:
    return f"expected {error.expected}, got {error.got}"


def _digest(volumes: Sequence[Volume]) -> str:
    content = hashlib.sha256()
    for volume in volumes:
        content.update(repr(volume.shape).encode())
        content.update(np.asfortranarray(volume.array).tobytes("A"))
    return content.hexdigest()


def _same_images(names: Sequence[str]) -> list[Problem]:
    """Cases that are one another's copies: in training and validation they would flatter."""
    if len(names) == 1:
        return []
    return [
        Problem(
            case=name,
            kind="duplicate",
            text=f"the same images as {', '.join(other for other in names if other != name)}",
        )
        for name in names
    ]
