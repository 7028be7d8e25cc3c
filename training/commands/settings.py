"""What follows ``--set``: names and JSON values, checked before anything else happens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model_core.errors import OptionError

EPOCH_STEPS = 250
"""Steps of one epoch, as in nnU-Net: an epoch is a measure of time, not a pass over the data."""


def parse_settings(pairs: Sequence[str], **direct: float | str | None) -> dict[str, Any]:
    """Settings by name: ``NAME=VALUE`` pairs, then the `direct` ones that are not ``None``.

    A value is JSON, or text as it is, or ``@FILE`` for the JSON in a file.

    Raises:
        OptionError: no ``=``, or a file that cannot be read.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise OptionError(
                "set",
                expected="SETTING=VALUE",
                got=repr(pair),
                way_out="For example --set patch=[96,96,96].",
            )
        settings[name] = _value(name, text)
    return settings | {name: value for name, value in direct.items() if value is not None}


def with_epochs(
    settings: Mapping[str, Any], epochs: int | None, *, epoch_steps: int = EPOCH_STEPS
) -> dict[str, Any]:
    """`settings` with the steps that `epochs` are.

    Args:
        settings: an ``epoch_steps`` among them counts.
        epochs: wanted; ``None``: nothing changes.
        epoch_steps: of the recipe, or of the run that goes on.

    Raises:
        OptionError: the steps are given as well.
    """
    if epochs is None:
        return dict(settings)
    if "steps" in settings:
        raise OptionError(
            "epochs",
            expected="no --steps beside it",
            got=f"--steps {settings['steps']}",
            way_out=f"Give one of the two: an epoch is {EPOCH_STEPS} steps.",
        )
    return {**settings, "steps": epochs * int(settings.get("epoch_steps", epoch_steps))}


def corrections_in(settings: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """Settings in which ``postprocess`` is a list of steps, and what their search reported.

    ``segmamba postprocess find`` writes the steps and how they were found into one file; both are
    wanted, the steps for the card's pipeline, the rest for its readers.
    """
    value = settings.get("postprocess")
    if not isinstance(value, Mapping):
        return dict(settings), None
    if "steps" not in value:
        raise OptionError(
            "postprocess",
            expected="a list of steps, or a file of segmamba postprocess find",
            got=f"an object with {', '.join(sorted(value)) or 'nothing'}",
            way_out="Write --set postprocess=@corrections.json.",
        )
    return {**settings, "postprocess": value["steps"]}, value.get("evidence")


def _value(name: str, text: str) -> Any:
    if text.startswith("@"):
        return _from_file(name, Path(text[1:]))
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _from_file(name: str, path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise OptionError(
            name,
            expected="a file of JSON after @",
            got=f"{path.name}: {reason}",
            way_out="Check it.",
        ) from error
