"""What the numbers in a label map mean: schemes at the border, regions and volumes inside.

Glossary. *Internal labels* are uint8 arrays in BraTS 2023 numbering (`model_core.types.Label`):
0 background, 1 NCR, 2 ED, 3 ET. A *scheme* is the numbering of a file: ``brats2021`` writes ET as
4, ``brats2023`` as 3; the other values agree. A *region* is a nested union of labels:
ET ⊂ TC = NCR ∪ ET ⊂ WT = NCR ∪ ED ∪ ET. *Scores* are raw network outputs, one channel per output.
Arrays here carry no frame; volumes are in millilitres.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from model_core.errors import ImageError, InputError, NumericalError, OptionError
from model_core.types import LABEL_SCHEMES, REGION_LABELS, Label, LabelScheme, Region

LabelArray = NDArray[np.uint8]
"""Internal labels, any shape."""
Mask = NDArray[np.bool_]
Heads = Literal["labels", "regions"]
"""What a network's channels compete for: one label per voxel, or each region on its own."""

LABEL_NAMES: Final[Mapping[Label, str]] = MappingProxyType(
    {Label.BACKGROUND: "background", Label.NCR: "NCR", Label.ED: "ED", Label.ET: "ET"}
)
LABEL_MEANINGS: Final[Mapping[Label, str]] = MappingProxyType(
    {
        Label.BACKGROUND: "background",
        Label.NCR: "necrotic and non-enhancing tumour core",
        Label.ED: "peritumoural oedema and infiltrated tissue",
        Label.ET: "enhancing tumour",
    }
)
LABEL_COLOURS: Final[Mapping[Label, tuple[int, int, int]]] = MappingProxyType(
    {
        Label.BACKGROUND: (0, 0, 0),
        Label.NCR: (213, 94, 0),
        Label.ED: (86, 180, 233),
        Label.ET: (240, 228, 66),
    }
)
"""8-bit sRGB from the palette of Okabe and Ito, told apart with any common colour vision."""

REGIONS: Final[tuple[Region, ...]] = ("WT", "TC", "ET")
"""From the outermost to the innermost."""

_REGION_COLOURS: Final[Mapping[Region, Label]] = MappingProxyType(
    {"WT": Label.ED, "TC": Label.NCR, "ET": Label.ET}
)
"""The label of a voxel that lies in this region and in none further in."""
_ET_VALUE: Final[Mapping[LabelScheme, int]] = MappingProxyType({"brats2021": 4, "brats2023": 3})
_SLAB_BYTES = 1 << 20  # of one channel: scores, best-so-far and labels then stay in the L2 cache


def scheme_values(scheme: LabelScheme) -> dict[str, int]:
    """The file value of every label name in `scheme`.

    Raises:
        OptionError: `scheme` is not one of `LABEL_SCHEMES`.
    """
    _require_scheme(scheme)
    values = {LABEL_NAMES[label]: int(label) for label in Label}
    values["ET"] = _ET_VALUE[scheme]
    return values


def to_scheme(labels: LabelArray, scheme: LabelScheme) -> LabelArray:
    """Internal labels in the numbering of a file: a new uint8 array.

    Raises:
        OptionError: `scheme` is not one of `LABEL_SCHEMES`.
        InputError: `labels` holds a value above 3.
    """
    _require_scheme(scheme)
    _require_internal(labels)
    values = np.array(labels, dtype=np.uint8)
    if _ET_VALUE[scheme] != Label.ET:
        np.copyto(values, np.uint8(_ET_VALUE[scheme]), where=values == Label.ET)
    return values


def from_scheme(
    values: NDArray[Any], scheme: LabelScheme | None = None, *, argument: str = "labels"
) -> LabelArray:
    """The numbering of a file as internal labels: a new uint8 array.

    Without a `scheme` only values on which all schemes agree are taken (0, 1, 2): a 4 is ET in
    BraTS 2021 and the resection cavity in BraTS 2024, a 3 is ET or another data set's label.
    Any numeric dtype is taken as long as every value is a whole number.

    Args:
        values: label values as read, any shape.
        scheme: the numbering, if it is known.
        argument: the field to name in an error.

    Raises:
        ImageError: a value that the numbering does not have, or that needs one; the message names
            the values.
        OptionError: `scheme` is not one of `LABEL_SCHEMES`.
    """
    if scheme is not None:
        _require_scheme(scheme)
    labels, present = _whole_numbers(values, argument)
    if scheme is None:
        _require_declared(present, argument)
        scheme = "brats2023"  # as good as any: only what all of them share is there
    allowed = {0, int(Label.NCR), int(Label.ED), _ET_VALUE[scheme]}
    if present - allowed:
        raise _bad_values(argument, sorted(present - allowed), scheme)
    if _ET_VALUE[scheme] != Label.ET:
        np.copyto(labels, np.uint8(Label.ET), where=labels == _ET_VALUE[scheme])
    return labels


def region_mask(labels: LabelArray, region: Region) -> Mask:
    """Where `labels` belongs to `region`; a new bool array of the same shape."""
    if region not in REGION_LABELS:
        raise OptionError(
            "region",
            expected=f"one of {', '.join(REGIONS)}",
            got=repr(region),
            way_out="WT is the whole tumour, TC the tumour core, ET the enhancing tumour.",
        )
    first, *others = REGION_LABELS[region]
    mask: Mask = labels == first
    for label in others:
        mask |= labels == label
    return mask


def label_counts(labels: LabelArray) -> dict[str, int]:
    """Voxels of NCR, ED and ET."""
    tumour = (Label.NCR, Label.ED, Label.ET)
    return {LABEL_NAMES[label]: int(np.count_nonzero(labels == label)) for label in tumour}


def labelled_box(labels: LabelArray) -> tuple[slice, ...]:
    """The smallest box around everything that is not background; one voxel if there is nothing."""
    box: list[slice] = []
    for axis in range(labels.ndim):
        others = tuple(other for other in range(labels.ndim) if other != axis)
        used = np.flatnonzero(labels.any(axis=others))
        if used.size == 0:
            return (slice(0, 1),) * labels.ndim
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)


def volumes_ml(labels: LabelArray, voxel_ml: float) -> dict[str, float]:
    """Millilitres of NCR, ED, ET and of the regions WT and TC (region ET is label ET).

    Args:
        labels: internal labels.
        voxel_ml: volume of one voxel in millilitres (mm³ / 1000).
    """
    counts = label_counts(labels)
    counts["WT"] = counts["NCR"] + counts["ED"] + counts["ET"]
    counts["TC"] = counts["NCR"] + counts["ET"]
    return {name: voxels * voxel_ml for name, voxels in counts.items()}


@dataclass(frozen=True)
class Reading:
    """How channels become labels, step by step.

    Attributes:
        channels: the channel looked at in each step.
        labels: the label that it stands for.
        nested: True: each channel above 0 paints its label inside the channel before it. False:
            the channel with the highest score gives the label, the earlier step on a tie.
    """

    channels: tuple[int, ...]
    labels: tuple[Label, ...]
    nested: bool


def reading(heads: Heads, outputs: Sequence[str]) -> Reading:
    """The rule by which `decode_scores` reads channels of these names.

    Raises:
        InputError: `outputs` does not fit `heads`.
    """
    _require_outputs(heads, outputs, len(outputs))
    if heads == "regions":
        order = tuple(list(outputs).index(region) for region in REGIONS)
        return Reading(order, tuple(_REGION_COLOURS[region] for region in REGIONS), nested=True)
    labels = {name: label for label, name in LABEL_NAMES.items()}
    return Reading(
        tuple(range(len(outputs))), tuple(labels[name] for name in outputs), nested=False
    )


def no_labels_for_nan() -> NumericalError:
    """The error for scores that are no numbers."""
    return NumericalError(
        "The network's scores hold NaN, so there is no label map. Half precision or damaged "
        "weights are the usual causes: run in float32, or check the model bundle."
    )


def decode_scores(
    scores: NDArray[np.floating[Any]], heads: Heads, outputs: Sequence[str]
) -> LabelArray:
    """Internal labels from raw network outputs (logits).

    ``labels`` heads: the output with the highest score wins, the earlier one on a tie (argmax).
    ``regions`` heads: a region is where its logit is above 0 (probability above one half); regions
    are painted from the outside in, WT → ED, TC → NCR, ET → ET, each later one over the earlier
    and only inside it, so the result always nests: a TC voxel outside WT stays background.

    Args:
        scores: (K, *spatial), any float dtype; not changed.
        heads: how the channels are to be read.
        outputs: the name of each channel: label names in any order, or WT, TC, ET in any order.

    Returns:
        uint8 labels (*spatial).

    Raises:
        InputError: `outputs` does not fit `heads` or the number of channels.
        NumericalError: a score is NaN.
    """
    _require_outputs(heads, outputs, len(scores))
    labels = np.empty(scores.shape[1:], dtype=np.uint8)
    how = reading(heads, outputs)
    paint = _paint_nested if how.nested else _paint_highest
    for slab in _slabs(scores):
        paint(scores[:, slab], how, labels[slab])
    return labels


# ---------------------------------------------------------------- decoding


def _slabs(scores: NDArray[Any]) -> Iterator[slice]:
    """Cuts of the first spatial axis, small enough to stay in cache over all channels."""
    length = scores.shape[1]
    row_bytes = max(1, scores[0].nbytes // max(1, length))
    step = max(1, _SLAB_BYTES // row_bytes)
    return (slice(start, start + step) for start in range(0, length, step))


def _paint_highest(scores: NDArray[Any], how: Reading, labels: LabelArray) -> None:
    """Running maximum over the channels: several times faster than argmax over a strided axis."""
    first, *others = how.channels
    best = scores[first].copy()
    labels[...] = how.labels[0]
    for channel, label in zip(others, how.labels[1:], strict=True):
        np.copyto(labels, np.uint8(label), where=scores[channel] > best)
        np.maximum(best, scores[channel], out=best)  # carries a NaN along, for the check below
    _refuse_nan(best)


def _paint_nested(scores: NDArray[Any], how: Reading, labels: LabelArray) -> None:
    _refuse_nan(scores)
    labels[...] = Label.BACKGROUND
    inside = np.ones(labels.shape, dtype=np.bool_)
    for channel, label in zip(how.channels, how.labels, strict=True):
        inside &= scores[channel] > 0
        np.copyto(labels, np.uint8(label), where=inside)


def _refuse_nan(scores: NDArray[Any]) -> None:
    if scores.size and np.isnan(scores.max()):
        raise no_labels_for_nan()


def _require_outputs(heads: Heads, outputs: Sequence[str], channels: int) -> None:
    allowed = set(LABEL_NAMES.values()) if heads == "labels" else set(REGIONS)
    if heads not in ("labels", "regions"):
        raise OptionError(
            "heads", expected="'labels' or 'regions'", got=repr(heads), way_out="Fix the card."
        )
    if len(outputs) != channels or len(set(outputs)) != channels or set(outputs) != allowed:
        raise InputError(
            "outputs",
            expected=f"each of {', '.join(sorted(allowed))} once, one per score channel",
            got=f"{', '.join(outputs) or 'none'} for {channels} channels",
            way_out="The model card's heads and outputs must describe the network's channels.",
        )


# ---------------------------------------------------------------- reading values


def _whole_numbers(values: NDArray[Any], argument: str) -> tuple[LabelArray, set[int]]:
    """`values` as uint8, and the set of values present."""
    strange = _strange_values(values)
    if strange:
        raise ImageError(
            argument,
            expected="whole label values between 0 and 255",
            got=f"values such as {', '.join(strange)}",
            way_out="Hand over a label map, not an image or a probability map, and resample "
            "label maps with nearest-neighbour interpolation only.",
        )
    labels = np.array(values, dtype=np.uint8)
    return labels, set(_present(labels))


def _strange_values(values: NDArray[Any]) -> list[str]:
    """A few of the values that no uint8 can hold, as text; empty when there are none."""
    if values.dtype.kind not in "biuf":
        return [f"dtype {values.dtype}"]
    if values.dtype.kind == "b" or values.dtype == np.uint8 or not values.size:
        return []
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 255):  # written so that NaN fails too
        return [f"{low:g}", f"{high:g}"]
    if values.dtype.kind == "f":
        return [f"{value:g}" for value in np.unique(values[values != np.rint(values)])[:5]]
    return []


def _present(labels: LabelArray) -> frozenset[int]:
    found: NDArray[np.bool_] = np.zeros(256, dtype=np.bool_)
    found[labels] = True  # one pass, no sort and no int64 copy
    return frozenset(int(value) for value in np.flatnonzero(found))


def _require_declared(present: set[int], argument: str) -> None:
    """Refuse values that mean something else in another numbering."""
    unclear = sorted(present & set(_ET_VALUE.values()))
    if unclear:
        got = "both 3 and 4" if len(unclear) > 1 else f"the value {unclear[0]}"
        raise ImageError(
            argument,
            expected="a map that declares how it numbers enhancing tumour",
            got=f"{got}, and no declaration",
            way_out="Name the scheme (--scheme, where the command has it), or the file as BraTS "
            "does: CASE_seg.nii.gz if ET is 4 (BraTS 2021), CASE-seg.nii.gz if it is 3 (2023). In "
            "BraTS 2024 the value 4 is the resection cavity: set it to 0 first.",
        )


def _bad_values(argument: str, values: list[int], scheme: LabelScheme) -> ImageError:
    allowed = ", ".join(f"{value} {name}" for name, value in scheme_values(scheme).items())
    shown = ", ".join(str(value) for value in values[:5]) + (", …" if len(values) > 5 else "")
    return ImageError(
        argument,
        expected=f"only the values of {scheme} ({allowed})",
        got=f"also {shown}",
        way_out="Name the other label scheme if the map follows it, or renumber the map.",
    )


def _require_scheme(scheme: str) -> None:
    if scheme not in LABEL_SCHEMES:
        raise OptionError(
            "label_scheme",
            expected=f"one of {', '.join(LABEL_SCHEMES)}",
            got=repr(scheme),
            way_out="brats2021 writes enhancing tumour as 4, brats2023 as 3.",
        )


def _require_internal(labels: LabelArray) -> None:
    if labels.size and labels.max() > max(Label):
        raise InputError(
            "labels",
            expected="internal labels 0 to 3",
            got=f"a value of {labels.max()}",
            way_out="Read file values with from_scheme first.",
        )
