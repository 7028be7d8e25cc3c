"""Steps as a model card stores them: parsed with clear errors, applied in order, reported.

A stored step is ``{"name": "relabel_small_et", "params": {"min_mm3": 50}}``. The signature of the
step's function is the only description of its parameters: names, types and ranges are checked
against it when the card is read, not when the first patient comes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any, Final, Self, get_type_hints

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    create_model,
    model_validator,
)

from model_core.errors import OptionError
from model_core.labels import LabelArray
from model_core.postprocess.regions import GLIOMA, RegionRules
from model_core.postprocess.steps import (
    fill_holes,
    keep_largest,
    keep_largest_of,
    relabel_small_et,
    remove_small_components,
)
from model_core.types import Spacing

StepFunction = Callable[..., LabelArray]

STEPS: Final[Mapping[str, StepFunction]] = MappingProxyType(
    {
        "remove_small_components": remove_small_components,
        "keep_largest": keep_largest,
        "keep_largest_of": keep_largest_of,
        "relabel_small_et": relabel_small_et,
        "fill_holes": fill_holes,
    }
)
"""The names a card may use."""


class Step(BaseModel):
    """One named correction with its parameters; valid once it exists.

    The regions are those of BraTS, or of the `RegionRules` in the validation context ``rules``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    params: dict[str, Any] = {}

    @model_validator(mode="after")
    def _is_known(self, info: ValidationInfo) -> Self:
        rules = (info.context or {}).get("rules", GLIOMA)
        try:
            _check(self.name, self.params, rules, argument="postprocess")
        except OptionError as error:
            raise ValueError(str(error)) from error  # so that pydantic adds where in the card
        return self


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What one step did; each label before and after, in voxels and in millilitres."""

    name: str
    params: Mapping[str, Any]
    """As given, completed with the defaults."""
    voxels_changed: int
    voxels_before: Mapping[str, int]
    voxels_after: Mapping[str, int]
    ml_before: Mapping[str, float]
    ml_after: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        fields = ("voxels_before", "voxels_after", "ml_before", "ml_after")
        return {
            "name": self.name,
            "params": dict(self.params),
            "voxels_changed": self.voxels_changed,
            **{field: dict(getattr(self, field)) for field in fields},
        }


def parse_steps(
    stored: Iterable[Mapping[str, Any]],
    *,
    argument: str = "postprocess",
    rules: RegionRules = GLIOMA,
) -> tuple[Step, ...]:
    """The steps of a model card, checked.

    Args:
        stored: mappings with ``name`` and, where the step takes any, ``params``.
        argument: the field to name in an error; a position is added.
        rules: the regions that the steps may name.

    Raises:
        OptionError: an unknown step or parameter, or a value that the step does not take.
    """
    return tuple(_parse(step, rules, f"{argument}[{index}]") for index, step in enumerate(stored))


def apply_steps(
    labels: LabelArray,
    spacing_mm: Spacing,
    steps: Iterable[Step],
    rules: RegionRules = GLIOMA,
) -> tuple[LabelArray, tuple[StepReport, ...]]:
    """Apply `steps` in order to internal labels (X, Y, Z).

    Returns:
        a new label map (also when there is no step), and one report per step.
    """
    current = labels.copy()
    reports = []
    for step in steps:
        before, current = current, apply_step(step, current, spacing_mm, rules)
        reports.append(_report(step, before, current, spacing_mm, rules))
    return current, tuple(reports)


def apply_step(
    step: Step, labels: LabelArray, spacing_mm: Spacing, rules: RegionRules = GLIOMA
) -> LabelArray:
    """Apply one step to internal labels (X, Y, Z), without a report: a new label map."""
    return STEPS[step.name](labels, spacing_mm, rules, **step.params)


def _report(
    step: Step, before: LabelArray, after: LabelArray, spacing_mm: Spacing, rules: RegionRules
) -> StepReport:
    voxel_ml = math.prod(spacing_mm) / 1000
    voxels_before, voxels_after = rules.counts(before), rules.counts(after)
    return StepReport(
        name=step.name,
        params=_params_model(step.name)(**step.params).model_dump(exclude_none=True),
        voxels_changed=int(np.count_nonzero(before != after)),
        voxels_before=voxels_before,
        voxels_after=voxels_after,
        ml_before={name: count * voxel_ml for name, count in voxels_before.items()},
        ml_after={name: count * voxel_ml for name, count in voxels_after.items()},
    )


# ---------------------------------------------------------------- checking


def _parse(stored: Mapping[str, Any], rules: RegionRules, argument: str) -> Step:
    extra = sorted(set(stored) - {"name", "params"})
    name, params = stored.get("name"), stored.get("params", {})
    if extra or not isinstance(name, str) or not isinstance(params, Mapping):
        raise OptionError(
            argument,
            expected="a name (text) and params (a mapping)",
            got=f"also {', '.join(extra)}" if extra else "a step without them",
            way_out='Write {"name": "…", "params": {…}}.',
        )
    _check(name, params, rules, argument=argument)
    plain = {"name": name, "params": dict(params)}
    return Step.model_validate(plain, context={"rules": rules})


def _check(name: str, params: Mapping[str, Any], rules: RegionRules, *, argument: str) -> None:
    if name not in STEPS:
        raise OptionError(
            f"{argument}.name",
            expected=f"one of {', '.join(STEPS)}",
            got=repr(name),
            way_out="Correct the name, or use a release that knows the step.",
        )
    try:
        _params_model(name)(**params)
    except ValidationError as error:
        raise _bad_param(name, argument, error) from error
    # Rules between parameters live in the functions; an empty map is enough to hear them.
    try:
        STEPS[name](np.zeros((1, 1, 1), dtype=np.uint8), (1.0, 1.0, 1.0), rules, **params)
    except OptionError as error:
        if error.argument not in ("region", "names"):
            raise
        raise OptionError(
            f"{argument}.params.{error.argument}",
            expected=error.expected,
            got=error.got,
            way_out=error.way_out,
        ) from error


@cache
def _params_model(name: str) -> type[BaseModel]:
    """The keyword-only parameters of a step's function as a strict pydantic model."""
    function = STEPS[name]
    types = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {
        parameter.name: (types[parameter.name], parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    return create_model(name, __config__=ConfigDict(extra="forbid", strict=True), **fields)


def _bad_param(name: str, argument: str, error: ValidationError) -> OptionError:
    first = error.errors()[0]
    known = ", ".join(_params_model(name).model_fields)
    param = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        expected = f"only the parameters of {name}: {known}"
        return OptionError(
            f"{argument}.params", expected=expected, got=repr(param), way_out="Remove it."
        )
    return OptionError(
        f"{argument}.params.{param}",
        expected=first["msg"].removeprefix("Input should be "),
        got=repr(first["input"]),
        way_out=f"The parameters of {name} are {known}.",
    )
