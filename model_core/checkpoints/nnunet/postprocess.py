"""nnU-Net's ``postprocessing.json`` as steps of our model card.

nnU-Net knows one correction: of some labels together (a label, a region, or all of the tumour),
keep the largest component and turn the rest into background. That is our ``keep_largest_of``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from model_core.errors import OptionError

_KNOWN: Final = "remove_all_but_largest_component_from_segmentation"


def read_postprocessing(
    content: Mapping[str, Any], tissues: Mapping[int, str]
) -> tuple[tuple[dict[str, Any], ...], tuple[str, ...]]:
    """Translate the corrections, in their order.

    Args:
        content: of ``postprocessing.json``.
        tissues: nnU-Net's value → NCR, ED or ET.

    Returns:
        steps as a card stores them, and a warning for each unknown correction, which is left out.

    Raises:
        OptionError: the file is not what nnU-Net writes.
    """
    functions, arguments = content.get("postprocessing_fns"), content.get("postprocessing_kwargs")
    if not isinstance(functions, list) or not isinstance(arguments, list):
        raise _bad("postprocessing_fns and postprocessing_kwargs", "a file without them")
    if len(functions) != len(arguments):
        raise _bad("as many functions as arguments", f"{len(functions)} and {len(arguments)}")
    steps, warnings = [], []
    for function, kwargs in zip(functions, arguments, strict=True):
        names = _tissues(function, kwargs, tissues)
        if names:
            steps.append({"name": "keep_largest_of", "params": {"names": sorted(names)}})
        else:
            warnings.append(f"post-processing: {function} is not known here and was left out")
    return tuple(steps), tuple(warnings)


def _tissues(function: Any, kwargs: Any, tissues: Mapping[int, str]) -> frozenset[str]:
    """The tissues that a correction keeps the largest component of; none if it is another."""
    if function != _KNOWN or not isinstance(kwargs, dict):
        return frozenset()
    if kwargs.keys() - {"labels_or_regions", "background_label"} or kwargs.get("background_label"):
        return frozenset()
    values = list(_flat(kwargs.get("labels_or_regions")))
    if not values or any(value not in tissues for value in values):
        raise _bad(f"labels out of {list(tissues)}", str(kwargs.get("labels_or_regions")))
    return frozenset(tissues[value] for value in values)


def _flat(values: Any) -> Iterable[Any]:
    """The numbers of a label, a region or a list of them: their union is what counts."""
    if not isinstance(values, list):
        return (values,)
    return (number for value in values for number in _flat(value))


def _bad(expected: str, got: str) -> OptionError:
    return OptionError(
        "postprocessing.json",
        expected=expected,
        got=got,
        way_out="Take the file that nnUNetv2_find_best_configuration wrote, or import without it.",
    )
