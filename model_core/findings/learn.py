"""Making ``appearance_ranges.json`` from reference studies: one command, for maintainers.

::

    python -m model_core.findings.learn BraTS2021/ 00006 01476 01477 ...

Each word picks the case whose name ends in it. The limit of each kind of number is found by leaving
each case out in turn: how strange it is to the ranges of the others. The strangest case is passed
over, and the limit is the next multiple of `STEP` above what the rest need. So about one such case
in as many as there are is flagged though nothing is wrong with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import typer

from model_core.errors import OptionError
from model_core.findings.appearance import Kind, appearance, kind_of
from model_core.findings.familiar import RANGES_FILE, Ranges
from model_core.imaging.study import find_studies, load_study

STEP: Final = 0.05
_DIGITS: Final = 4
_Features = Mapping[str, float]


def learn(
    folder: Annotated[Path, typer.Argument(help="A folder of studies.")],
    cases: Annotated[list[str], typer.Argument(help="Endings of the names of those to take.")],
    output: Annotated[Path, typer.Option(help="The file to write.")] = RANGES_FILE,
) -> None:
    """Write the ranges and limits of the chosen cases."""
    chosen = [study for study in find_studies(folder) if study.name.endswith(tuple(cases))]
    if len(chosen) != len(cases) or len(cases) < 3:
        raise OptionError(
            "cases",
            expected="at least three studies, one for each ending",
            got=f"{len(chosen)}",
            way_out="Name each case once.",
        )
    studies = [appearance(load_study(study.paths)) for study in chosen]
    found = Ranges(limits=limits_of(studies), ranges=ranges_of(studies))
    output.write_text(text_of(found, cases=len(chosen)), encoding="utf-8")


def limits_of(studies: Sequence[_Features]) -> dict[Kind, float]:
    """The limit of each kind of number; see above."""
    alone = [
        _strangest(one, ranges_of([other for other in studies if other is not one]))
        for one in studies
    ]
    alone.remove(max(alone, key=lambda by_kind: max(by_kind.values())))
    return {
        kind: (math.floor(max(by_kind[kind] for by_kind in alone) / STEP) + 1) * STEP
        for kind in get_args(Kind)
    }


def _strangest(one: _Features, ranges: Mapping[str, tuple[float, float]]) -> dict[Kind, float]:
    """How strange a study is, by kind of number."""
    strange = Ranges(limits={}, ranges=ranges).strangeness(one)
    return {
        kind: max((value for name, value in strange.items() if kind_of(name) == kind), default=0.0)
        for kind in get_args(Kind)
    }


def ranges_of(studies: Iterable[_Features]) -> dict[str, tuple[float, float]]:
    """Least and largest value of each feature that every study has."""
    features = list(studies)
    names = [name for name in features[0] if all(name in one for one in features)]
    return {
        name: (min(one[name] for one in features), max(one[name] for one in features))
        for name in names
    }


def text_of(found: Ranges, *, cases: int) -> str:
    """The content of the file, one feature a line."""
    head: dict[str, Any] = {
        "about": "least and largest value of each feature over reference cases of BraTS 2021 "
        "(CC BY 4.0, doi 10.7937/jc8x-9874)",
        "cases": cases,
        "limits": {kind: round(limit, _DIGITS) for kind, limit in found.limits.items()},
    }
    lines = [
        f'    "{name}": [{low:.{_DIGITS}f}, {high:.{_DIGITS}f}]'
        for name, (low, high) in found.ranges.items()
    ]
    start = json.dumps(head, indent=2).removesuffix("\n}")
    return f'{start},\n  "ranges": {{\n' + ",\n".join(lines) + "\n  }\n}\n"


if __name__ == "__main__":
    typer.run(learn)
