"""nnU-Net's plans as the geometry of our model card.

Axes. nnU-Net works on the array that its image reader hands over: the file's axes in reverse order
(SimpleITK's z, y, x), never turned to the patient, then permuted by ``transpose_forward``. Plans
count these axes and do not say where they point. Our card does, and every study is turned to it, so
the way in which the training files were stored has to be known: BraTS files are stored LPS, which
reads as superior, posterior, left. Readers that turn every image to RAS say it themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from model_core.errors import OptionError
from model_core.types import Shape3, Spacing

BRATS_STORED: Final = "LPS"
"""How BraTS stores its files: the first axis runs to the left, then posterior, then superior."""

_READERS: Final[Mapping[str, str | None]] = MappingProxyType(
    {
        "SimpleITKIO": None,
        "NibabelIO": None,
        "SimpleITKIOWithReorient": "RAS",
        "NibabelIOWithReorient": "RAS",
    }
)
"""Readers of volumes, and the orientation they turn to; None: as the file is stored."""
_PAIRS: Final = ({"L", "R"}, {"P", "A"}, {"I", "S"})
_WAY_OUT: Final = "Train with nnU-Net's own default, or predict with nnU-Net."


@dataclass(frozen=True, kw_only=True)
class PlannedInput:
    """What the card says about a network's input; axes as in `orientation`."""

    orientation: str
    spacing_mm: Spacing
    window: Shape3
    normalisation: Literal["zscore-brain", "zscore-box"]
    assumed: bool
    """Nobody told how the training files were stored: neither the caller nor the reader."""


def read_plans(
    plans: Mapping[str, Any], configuration: str, *, stored: str | None = None
) -> PlannedInput:
    """Translate one configuration of the plans.

    Args:
        plans: the content of ``plans.json``.
        configuration: its name, e.g. ``3d_fullres``.
        stored: how the training files were stored, e.g. ``"LPS"``; None takes what the reader
            turns to, else `BRATS_STORED`.

    Raises:
        OptionError: the plans ask for something that a bundle cannot do.
    """
    settings = resolve(plans, configuration)
    _refuse_others(plans, settings)
    patch = _three("patch_size", settings.get("patch_size"))
    spacing = _three("spacing", settings.get("spacing"))
    order = _transpose(plans)
    turned = _turned(plans)
    axes = _stored(turned, stored)[::-1]
    return PlannedInput(
        orientation="".join(axes[source] for source in order),
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        window=(int(patch[0]), int(patch[1]), int(patch[2])),
        normalisation=_normalisation(settings),
        assumed=turned is None and stored is None,
    )


def resolve(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """The settings of a configuration with everything that it inherits.

    Raises:
        OptionError: there is no such configuration, or it inherits from itself.
    """
    known = plans.get("configurations", {})
    settings: dict[str, Any] = {}
    name, visited = configuration, set[str]()
    while True:
        if name not in known or name in visited:
            raise OptionError(
                "plans.json",
                expected=f"the configuration {name}",
                got=", ".join(known) or "none",
                way_out="Copy the plans.json that this network was trained with.",
            )
        visited.add(name)
        settings = {**known[name], **settings}
        if "inherits_from" not in known[name]:
            return settings
        name = known[name]["inherits_from"]


def _refuse_others(plans: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse what would silently be done in another way here."""
    if settings.get("previous_stage"):
        raise _refused("previous_stage", "a network of its own", "a stage of a cascade")
    if len(settings.get("patch_size", ())) == 2:
        raise _refused("patch_size", "a 3-D configuration: a bundle segments volumes", "a 2-D one")
    for key, usual in (
        ("preprocessor_name", "DefaultPreprocessor"),
        ("label_manager", "LabelManager"),
    ):
        got = settings.get(key, plans.get(key, usual))
        if got != usual:
            raise _refused(key, usual, str(got))


def _turned(plans: Mapping[str, Any]) -> str | None:
    """The orientation that the plans' reader turns every image to, if it does."""
    reader = str(plans.get("image_reader_writer", "SimpleITKIO"))
    if reader not in _READERS:
        raise _refused("image_reader_writer", f"one of {', '.join(_READERS)}", reader)
    return _READERS[reader]


def _stored(turned: str | None, stored: str | None) -> str:
    if turned is not None and stored not in (None, turned):
        raise OptionError(
            "stored",
            expected=f"{turned}, to which the plans' reader turns every image",
            got=repr(stored),
            way_out="Leave --stored out.",
        )
    letters = turned or stored or BRATS_STORED
    if len(letters) != 3 or not all(len(pair & set(letters)) == 1 for pair in _PAIRS):
        raise OptionError(
            "stored",
            expected='three letters, one of each pair L/R, P/A, I/S, for example "LPS"',
            got=repr(letters),
            way_out="docs/how-to/nnunet.md says how to look it up in a training file.",
        )
    return letters


def _transpose(plans: Mapping[str, Any]) -> tuple[int, int, int]:
    order = plans.get("transpose_forward", (0, 1, 2))
    if not isinstance(order, Sequence) or sorted(order) != [0, 1, 2]:
        raise _refused("transpose_forward", "a permutation of 0, 1, 2", str(order))
    return order[0], order[1], order[2]


def _normalisation(settings: Mapping[str, Any]) -> Literal["zscore-brain", "zscore-box"]:
    schemes = set(settings.get("normalization_schemes", ()))
    if schemes != {"ZScoreNormalization"}:
        got = ", ".join(sorted(schemes)) or "none"
        raise _refused("normalization_schemes", "ZScoreNormalization for every channel", got)
    masked = set(settings.get("use_mask_for_norm", ()))
    if masked not in ({True}, {False}):
        raise _refused("use_mask_for_norm", "one answer for all channels", f"{sorted(masked)}")
    return "zscore-brain" if masked == {True} else "zscore-box"


def _three(key: str, values: Any) -> Sequence[float]:
    numbers = values if isinstance(values, Sequence) and not isinstance(values, str) else ()
    if len(numbers) != 3 or not all(isinstance(v, int | float) and v > 0 for v in numbers):
        raise _refused(key, "three positive numbers", str(values))
    return numbers


def _refused(key: str, expected: str, got: str) -> OptionError:
    return OptionError(f"plans.json: {key}", expected=expected, got=got, way_out=_WAY_OUT)
