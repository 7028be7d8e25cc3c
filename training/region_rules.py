"""How the regions of a task enclose each other: what a correction may take from where.

The steps of `model_core.postprocess` ask it; for BraTS it is the table that model cards use.
"""

from __future__ import annotations

from typing import Final

from model_core.postprocess import GLIOMA, RegionRule, RegionRules
from training.task import BRATS, Region, Task

FOREGROUND: Final = "foreground"
"""The union of all labels, offered as a region where the task has none of that kind."""


def rules_of(task: Task) -> RegionRules:
    """How the regions of a task enclose each other; those of model cards for BraTS.

    The smallest region that holds another one encloses it: what leaves the inner region takes the
    label that the outer one paints. Holes are filled from the background and from what encloses
    the region, never from a structure beside it. A map of one slice (1, H, W) counts as a picture.
    """
    if task.labels == BRATS.labels and task.regions == BRATS.regions:
        return GLIOMA
    regions = list(task.regions)
    everything = tuple(range(1, len(task.labels) + 1))
    names = {region.name for region in regions}
    if FOREGROUND not in names and not any(set(r.labels) == set(everything) for r in regions):
        regions.insert(0, Region(name=FOREGROUND, labels=everything, paints=everything[0]))
    rules = {region.name: _rule(region, task) for region in regions}
    if FOREGROUND in rules and FOREGROUND not in names:
        outer = rules[FOREGROUND]
        rules[FOREGROUND] = RegionRule(labels=outer.labels)  # which label a hole has is not known
    return RegionRules(labels=task.labels, regions=rules, flat=True)


def _rule(region: Region, task: Task) -> RegionRule:
    mine = set(region.labels)
    around = [other for other in task.regions if set(other.labels) > mine]
    if not around:
        return RegionRule(labels=region.labels, joining=region.paints)
    nearest = min(around, key=lambda other: len(other.labels))
    shell = sorted(set(nearest.labels) - mine)
    outer = {label for other in around for label in other.labels} - mine
    return RegionRule(
        labels=region.labels,
        leaving=nearest.paints if nearest.paints in shell else shell[0],
        joining=region.paints,
        fillable=(0, *sorted(outer)),
    )
