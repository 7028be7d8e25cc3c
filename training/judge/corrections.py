"""Corrections of label maps as a file: steps that were found on some cases, and on what evidence.

The steps are those a model card takes (`model_core.postprocess`), so that an export may put them
into a bundle. For a task other than BraTS their regions are the task's own; the file keeps the
task's labels and regions, so that it can be read and applied without the run it was found on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from model_core.errors import InputError, OptionError
from model_core.imaging.atomic import write_atomically
from model_core.postprocess import (
    Step,
    StepReport,
    apply_steps,
    parse_steps,
)
from model_core.types import Spacing
from training.region_rules import rules_of
from training.task import BRATS, LabelArray, Region, Task

FORMAT: Final = "segmamba-corrections/1"
"""Changes when a field is renamed, moved or redefined; new fields do not change it."""
_REGIONS: Final = TypeAdapter(tuple[Region, ...])
_DIMS: Final[TypeAdapter[Literal[2, 3]]] = TypeAdapter(Literal[2, 3])


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """Steps for the label maps of one kind of task.

    Args:
        steps: applied in this order; may be empty.
        labels: the task's foreground names.
        regions: the task's regions.
        dims: of the networks whose predictions they were found on.
        values: file value → internal label of the data they were found on.
        evidence: how they were found and what they gained, JSON values for people.
    """

    steps: tuple[Step, ...]
    labels: tuple[str, ...] = BRATS.labels
    regions: tuple[Region, ...] = BRATS.regions
    dims: Literal[2, 3] = 3
    values: Mapping[int, int] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """A task with these labels and regions; its channel is a stand-in."""
        return Task(channels=("image",), labels=self.labels, regions=self.regions, dims=self.dims)

    def stored(self) -> list[dict[str, Any]]:
        """The steps as a model card and ``TrainConfig.postprocess`` hold them."""
        return [step.model_dump() for step in self.steps]

    def to_json(self) -> dict[str, Any]:
        """JSON values; `load_corrections` gives equal corrections back."""
        return {
            "format": FORMAT,
            "steps": self.stored(),
            "task": {
                "labels": list(self.labels),
                "regions": _REGIONS.dump_python(self.regions, mode="json"),
                "dims": self.dims,
            },
            "values": {str(value): label for value, label in self.values.items()},
            "evidence": dict(self.evidence),
        }

    def write(self, path: Path) -> None:
        """Write the file: whole, or not at all."""
        text = json.dumps(self.to_json(), indent=2, allow_nan=False)
        write_atomically(path, f"{text}\n".encode())


def load_corrections(path: Path) -> Corrections:
    """Read a corrections file, or a bare list of steps as model cards hold them (then BraTS).

    Raises:
        InputError: no file, no JSON, or JSON of another kind.
        OptionError: a step that does not exist or does not fit the regions.
    """
    content = _read(path)
    if isinstance(content, list):
        return Corrections(steps=parse_steps(content, argument="corrections.steps"))
    try:
        plain = {
            "labels": tuple(content["task"]["labels"]),
            "regions": _REGIONS.validate_python(content["task"]["regions"]),
            "dims": _DIMS.validate_python(content["task"]["dims"]),
            "values": {int(value): int(label) for value, label in content["values"].items()},
            "evidence": content.get("evidence", {}),
        }
        steps = content["steps"]
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as error:
        raise _not_corrections("a file without its fields") from error
    rules = rules_of(Corrections(steps=(), **plain).task)
    return Corrections(steps=parse_steps(steps, argument="corrections.steps", rules=rules), **plain)


def apply_corrections(
    labels: LabelArray, spacing_mm: Spacing, task: Task, corrections: Corrections
) -> tuple[LabelArray, tuple[StepReport, ...]]:
    """Apply corrections to internal labels (X, Y, Z).

    Args:
        labels: not changed.
        spacing_mm: along the array axes; (1, 1, 1) for pictures, whose thresholds are pixels.
        task: what the labels mean.
        corrections: found on the same labels and regions.

    Returns:
        a new label map, and what each step changed (``to_dict()`` gives JSON values).

    Raises:
        OptionError: the corrections belong to other labels or regions.
    """
    if (task.labels, task.regions) != (corrections.labels, corrections.regions):
        raise OptionError(
            "corrections",
            expected=f"corrections for the labels {', '.join(task.labels)}",
            got=f"some for {', '.join(corrections.labels)}",
            way_out="Find corrections on predictions of this task (segmamba postprocess find).",
        )
    return apply_steps(labels, spacing_mm, corrections.steps, rules_of(task))


def _read(path: Path) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _not_corrections("no such file") from error
    except ValueError as error:
        raise _not_corrections("a file that is no JSON") from error
    if isinstance(content, list):
        return content
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise _not_corrections("JSON of another kind")
    return content


def _not_corrections(got: str) -> InputError:
    return InputError(
        "corrections",
        expected=f"a file that segmamba postprocess find wrote ({FORMAT}), or a JSON list of steps",
        got=got,
        way_out="Check the path, or run segmamba postprocess find.",
    )
