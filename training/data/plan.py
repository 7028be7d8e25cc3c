"""The plan of a data set: spacing, patch, batch and normalisation, each with its reason.

A plan is made from a fingerprint and a memory budget (`training.data.rules`) and kept as a JSON
file that people read: every choice stands beside why it was made. `apply_plan` brings it, or where
none is given one made on the spot, into a recipe.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from model_core.errors import OptionError
from model_core.types import Shape3, Spacing
from training.config import Intensity, NetworkName, Normalisation, TrainConfig
from training.data.choices import (
    check_dims,
    choose_normalisation,
    choose_orientation,
    why_patched,
)
from training.data.dataset import Dataset
from training.data.fingerprint import Fingerprint, make_fingerprint
from training.data.memory import appetite, available_gb, estimate_gb
from training.data.rules import (
    first_patch,
    largest_batch,
    resampled_shapes,
    shrink,
    target_spacing,
)
from training.task import Task


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a data set and a memory budget suggest. Axes are those of `orientation`."""

    dataset: str
    network: NetworkName
    dims: Literal[2, 3]
    memory_gb: float
    """The budget."""
    estimate_gb: float
    """What training is expected to take."""
    orientation: str
    spacing_mm: Spacing | None
    median_shape: Shape3
    """Of the cropped images at that spacing."""
    patch: Shape3
    batch: int
    normalisation: Normalisation
    intensities: tuple[Intensity, ...] | None
    reasons: Mapping[str, str]
    """Why: one sentence for each of the choices above that is one."""

    @property
    def window(self) -> Shape3:
        """Of the sliding window at validation and prediction: what was trained on."""
        return self.patch

    def to_json(self) -> dict[str, Any]:
        """In JSON's own types, every reason beside its choice."""
        values: dict[str, Any] = json.loads(_ADAPTER.dump_json(self))
        reasons = values.pop("reasons")
        return {
            name: {"value": value, "reason": reasons[name]} if name in reasons else value
            for name, value in values.items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """Inverse of `to_json`; anything else raises `OptionError`."""
        chosen = {name: v for name, v in values.items() if isinstance(v, dict) and "value" in v}
        plain = {**values, **{name: choice["value"] for name, choice in chosen.items()}}
        reasons = {name: choice.get("reason", "") for name, choice in chosen.items()}
        try:
            return _ADAPTER.validate_python({**plain, "reasons": reasons})
        except ValidationError as error:
            first = error.errors()[0]
            raise OptionError(
                "plan",
                expected="a plan as segmamba data plan writes it",
                got=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
                way_out="Correct the entry, or make the plan again.",
            ) from error


_ADAPTER = TypeAdapter(Plan)


def read_plan(path: Path) -> Plan:
    """A plan from its file; anything else raises `OptionError`."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        values = {}
    return Plan.from_json(values if isinstance(values, dict) else {})


def make_plan(
    dataset: Dataset,
    fingerprint: Fingerprint,
    *,
    dims: Literal[2, 3],
    memory_gb: float,
    network: NetworkName,
    network_args: Mapping[str, Any] | None = None,
) -> Plan:
    """Plan a data set for a network and a memory budget.

    Args:
        dataset: what is planned for.
        fingerprint: of it.
        dims: of the network: 3, or 2 for one that sees slices or pictures.
        memory_gb: gigabytes (10⁹ bytes) that training may take.
        network: which.
        network_args: its constructor's arguments where they are not the published ones.

    Raises:
        OptionError: pictures for a 3-D network, slices for one that has no 2-D form, or a budget
            that not even the smallest patch fits into.
    """
    check_dims(fingerprint, dims, network)
    orientation, why_oriented = choose_orientation(fingerprint, dims)
    order = [fingerprint.orientation.index(letter) for letter in orientation]
    shapes = [_ordered(shape, order) for shape in fingerprint.shapes]
    spacings = [_ordered(spacing, order) for spacing in fingerprint.spacings_mm]
    spacing, why_spaced = target_spacing(shapes, spacings)
    if fingerprint.pictures:
        why_spaced = "pictures have no physical size: nothing is resampled"
    resampled = resampled_shapes(shapes, spacings, spacing)
    median = _median(resampled)
    args = network_args or {}

    def fits(patch: Shape3, batch: int) -> bool:
        return estimate_gb(network, args, dims=dims, patch=patch, batch=batch) <= memory_gb

    multiple = appetite(network).multiple
    wanted = first_patch(median, spacing, multiple=multiple, dims=dims)
    patch = shrink(wanted, median, fits, multiple=multiple, dims=dims)
    if patch is None:
        smallest = (1,) * (3 - dims) + (2 * multiple,) * dims
        raise OptionError(
            "memory_gb",
            expected=f"enough for a batch of two patches of {smallest}",
            got=f"{memory_gb:g}",
            way_out="Choose a smaller network (small-segmamba) or a machine with more memory.",
        )
    voxels = sum(math.prod(shape) for shape in resampled)
    batch, why_batched = largest_batch(patch, voxels, fits)
    normalisation, why_normalised = choose_normalisation(fingerprint)
    estimate = estimate_gb(network, args, dims=dims, patch=patch, batch=batch)
    return Plan(
        dataset=dataset.name,
        network=network,
        dims=dims,
        memory_gb=memory_gb,
        estimate_gb=round(estimate, 2),
        orientation=orientation,
        spacing_mm=None if fingerprint.pictures else spacing,
        median_shape=median,
        patch=patch,
        batch=batch,
        normalisation=normalisation,
        intensities=fingerprint.intensities if normalisation == "ct" else None,
        reasons={
            "orientation": why_oriented,
            "spacing_mm": why_spaced,
            "patch": why_patched(wanted, patch, multiple, memory_gb),
            "batch": why_batched,
            "normalisation": why_normalised,
            "estimate_gb": "activations counted for this network at this patch and batch in "
            "float32, a quarter more for what comes and goes, and the optimiser's state",
        },
    )


def apply_plan(
    config: TrainConfig,
    dataset: Dataset,
    plan: Plan | None = None,
    *,
    memory_gb: float | None = None,
) -> TrainConfig:
    """A recipe made to fit a data set.

    The task is the data set's, with the recipe's dimensions; heads are regions only where the
    recipe wants them and the data set declares some. A BraTS data set keeps a BraTS recipe's own
    task and, without a plan, its sizes; any other is planned on the spot.

    Args:
        config: the recipe.
        dataset: what is trained on.
        plan: made earlier; None: see above.
        memory_gb: the budget of a plan on the spot; None: a GPU's memory, else half of what this
            process may use.

    Raises:
        OptionError: the plan or the data set does not suit the recipe's network.
    """
    task = fitting_task(config, dataset)
    if plan is None and task.is_brats:
        return dataclasses.replace(config, task=task)
    if plan is None:
        plan = make_plan(
            dataset,
            make_fingerprint(dataset),
            dims=task.dims,
            memory_gb=memory_gb or available_gb(),
            network=config.network,
            network_args=config.network_args,
        )
    if plan.dims != task.dims:
        raise OptionError(
            "plan",
            expected=f"one for {task.dims} dimensions, as the recipe {config.recipe} has",
            got=f"one for {plan.dims}",
            way_out="Make a plan for this recipe, or choose another recipe.",
        )
    return dataclasses.replace(
        config,
        task=task,
        orientation=plan.orientation,
        spacing_mm=plan.spacing_mm,
        normalisation=plan.normalisation,
        intensities=plan.intensities,
        patch=plan.patch,
        batch=plan.batch,
        mixed_patches=(),  # sized for the recipe's own patch
        window=None,  # the patch
    )


def fitting_task(config: TrainConfig, dataset: Dataset) -> Task:
    """The task of a recipe on a data set; see `apply_plan`."""
    own, found = config.task, dataset.task
    if own.is_brats and found.is_brats:
        return own
    heads = own.heads if found.heads == "regions" else "labels"
    return dataclasses.replace(found, dims=own.dims, heads=heads)


def _median(shapes: list[Shape3]) -> Shape3:
    middle = [sorted(sizes)[len(sizes) // 2] for sizes in zip(*shapes, strict=True)]
    x, y, z = middle
    return x, y, z


def _ordered(values: Any, order: list[int]) -> Any:
    return tuple(values[place] for place in order)
