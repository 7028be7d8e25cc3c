"""What a ``dataset.json`` declares: channels, labels or regions, and their file values.

nnU-Net writes ``"labels": {"background": 0, "edema": 1}`` or, for regions that overlap, lists of
values with ``regions_class_order``: the value that each region paints. The Decathlon writes
``{"0": "background", "1": "edema"}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_core.errors import OptionError, StudyError
from training.data.glioma import as_glioma
from training.task import Region, Task


def read_description(path: Path) -> dict[str, Any]:
    """The content of a ``dataset.json`` that has labels; anything else raises `StudyError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise bad_description("content", "JSON", "something else") from error
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise bad_description("labels", '{"background": 0, "NAME": 1, …}', "none")
    return content


def _channels(content: Mapping[str, Any]) -> tuple[str, ...]:
    names = content.get("channel_names", content.get("modality"))
    if not isinstance(names, dict) or sorted(names) != sorted(map(str, range(len(names)))):
        raise bad_description("channel_names", '{"0": "NAME", "1": …}', repr(names))
    plain = [str(names[str(number)]) for number in range(len(names))]
    # "MRI" twice is common; a task's channels have names of their own
    return tuple(
        name if plain.index(name) == place else f"{name} {plain[: place + 1].count(name)}"
        for place, name in enumerate(plain)
    )


def declared_task(content: Mapping[str, Any]) -> tuple[Task, dict[int, int]]:
    """The task of a description, and file value → internal label.

    Internal labels follow the file values in ascending order, except where the names are those of
    BraTS glioma (`training.data.glioma`).

    Raises:
        StudyError: naming the entry that cannot be used.
        OptionError: an ``ignore`` label.
    """
    channels = _channels(content)
    declared = _declared(content["labels"])
    regions = any(len(values) > 1 for values in declared.values())
    paints = _paints(content, len(declared)) if regions else None
    glioma = as_glioma(channels, declared, paints=paints)
    if glioma:
        return glioma
    numbers = sorted({value for values in declared.values() for value in values})
    internal = {value: label for label, value in enumerate(numbers, start=1)}
    if not 1 <= len(numbers) <= 255:
        raise bad_description("labels", "1 to 255 labels besides the background", f"{len(numbers)}")
    if paints is None:
        by_value = {value: name for name, values in declared.items() for value in values}
        names = tuple(by_value[value] for value in numbers)
        return Task(channels=channels, labels=names), {0: 0, **internal}
    painted = dict(zip(paints, declared, strict=True))
    if not set(painted) <= set(internal):
        raise bad_description("regions_class_order", "values of the regions", f"{paints}")
    return Task(
        channels=channels,
        labels=tuple(painted.get(value, f"label {value}") for value in numbers),
        regions=tuple(
            Region(name=name, labels=tuple(internal[v] for v in values), paints=internal[paint])
            for (name, values), paint in zip(declared.items(), paints, strict=True)
        ),
        heads="regions",
    ), {0: 0, **internal}


def _declared(labels: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name → values without the background; the Decathlon writes value → name."""
    try:
        if all(isinstance(name, str) and key.isdigit() for key, name in labels.items()):
            named: dict[str, tuple[int, ...]] = {
                str(name): (int(key),) for key, name in labels.items()
            }
        else:
            named = {
                name: tuple(map(int, value)) if isinstance(value, list) else (int(value),)
                for name, value in labels.items()
            }
    except (TypeError, ValueError) as error:
        raise bad_description(
            "labels", '{"background": 0, "NAME": 1, …}', "another form"
        ) from error
    if any(name.lower() == "ignore" for name in named):
        raise OptionError(
            "dataset.json",
            expected="labels without 'ignore': voxels that are left out are not supported",
            got="an ignore label",
            way_out="Turn the label into background or into one of its own, and remove it.",
        )
    if any(not values or min(values) < 0 for values in named.values()):
        raise bad_description("labels", "values from 0 on", "an empty list or a negative value")
    flat = [values for values in named.values() if len(values) == 1]
    if len(set(flat)) != len(flat) or not any(0 in values for values in flat):
        raise bad_description(
            "labels", "background as 0 and every other value once", "another numbering"
        )
    return {name: values for name, values in named.items() if values != (0,)}


def _paints(content: Mapping[str, Any], regions: int) -> tuple[int, ...]:
    order = content.get("regions_class_order")
    if not isinstance(order, list) or len(order) != regions:
        raise bad_description(
            "regions_class_order", f"{regions} values, one per region", repr(order)
        )
    try:
        return tuple(int(value) for value in order)
    except (TypeError, ValueError) as error:
        raise bad_description("regions_class_order", "whole numbers", repr(order)) from error


def bad_description(entry: str, expected: str, got: str) -> StudyError:
    """The error for an entry that cannot be used."""
    return StudyError(
        "dataset.json",
        expected=f"{entry}: {expected}",
        got=got,
        way_out="Correct the description; docs/how-to/data.md shows one.",
    )
