"""From a recipe to the config of a run: the data set's plan first, then what the user sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from model_core.cpu import usable_cpus
from training.bars import counting
from training.config import TrainConfig
from training.data.dataset import Dataset
from training.data.fingerprint import make_fingerprint
from training.data.memory import available_gb
from training.data.plan import Plan, apply_plan, fitting_task, make_plan, read_plan

_PLANNED_FOR = ("network", "network_args", "task", "precision", "checkpoint_activations")
"""Settings that a plan's sizes depend on: it must know them."""
_READ_AT_A_TIME = 4


@dataclass(frozen=True, kw_only=True)
class Configured:
    """A complete config, and the plan that went into it."""

    config: TrainConfig
    plan: Plan | None = None


def configure(
    recipe: TrainConfig,
    dataset: Dataset,
    *,
    plan: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> Configured:
    """The complete config of a run.

    Args:
        recipe: how it is trained.
        dataset: decides the task, and without `plan` the sizes that suit its images.
        plan: file of a plan made earlier; ``None``: a BraTS recipe keeps its sizes on BraTS data,
            anything else is planned now.
        settings: single settings; they win over the plan.
        console: shows a bar while images are read for a plan.

    Raises:
        OptionError: a setting that does not exist or contradicts the rest.
    """
    settings = settings or {}
    early = {name: value for name, value in settings.items() if _root(name) in _PLANNED_FOR}
    wanted = recipe.with_settings(early)
    if plan is not None:
        chosen: Plan | None = read_plan(plan)
    elif fitting_task(wanted, dataset).is_brats:
        chosen = None
    else:
        chosen = _planned(wanted, dataset, console)
    return Configured(
        config=apply_plan(wanted, dataset, chosen).with_settings(settings), plan=chosen
    )


def _planned(recipe: TrainConfig, dataset: Dataset, console: Console | None) -> Plan:
    workers = min(_READ_AT_A_TIME, usable_cpus())
    with counting(console, "reading cases for a plan") as count:
        fingerprint = make_fingerprint(dataset, workers=workers, progress=count)
    return make_plan(
        dataset,
        fingerprint,
        dims=recipe.task.dims,
        memory_gb=round(available_gb(), 1),
        network=recipe.network,
        network_args=recipe.network_args,
    )


def _root(name: str) -> str:
    return name.partition(".")[0]
