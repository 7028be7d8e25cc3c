"""Which labels a data set declares, for scoring maps that are not BraTS glioma.

A *label set* names regions and says which values of a file make up each: one value (``blob``: 1) or
several (``whole``: 1, 2). It comes from an nnU-Net or Medical Segmentation Decathlon
``dataset.json``, or from the command line: ``1=blob,2=core,1+2=whole``. A value that is not
declared is an error of the file, never guessed at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_core.errors import ImageError, OptionError
from model_core.imaging.nifti import read_nifti
from model_core.imaging.volume import Volume
from model_core.labels import Mask

_BACKGROUND: Final = "background"
_SHOWN_VALUES: Final = 5


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """Regions by name, each with the file values that make it up; 0 is the background."""

    regions: Mapping[str, tuple[int, ...]]

    @property
    def values(self) -> frozenset[int]:
        """Every declared value, the background's too."""
        return frozenset({0, *(value for values in self.regions.values() for value in values)})

    def masks(self, array: NDArray[Any], argument: str) -> dict[str, Mask]:
        """The mask of every region in a label map of any numeric type.

        Raises:
            ImageError: a value that is not declared; the message names the values.
        """
        strange = sorted(set(np.unique(array).tolist()) - self.values)
        if strange:
            shown = ", ".join(f"{value:g}" for value in strange[:_SHOWN_VALUES])
            raise ImageError(
                argument,
                expected=f"only the declared values {', '.join(map(str, sorted(self.values)))}",
                got=f"also {shown}" + (", …" if len(strange) > _SHOWN_VALUES else ""),
                way_out="Declare every label of the files, or score maps of the same data set.",
            )
        return {name: np.isin(array, values) for name, values in self.regions.items()}


def parse_labels(text: str) -> LabelSet:
    """The label set of ``1=blob,2=core,1+2=whole``.

    Raises:
        OptionError: not in this form, the background, or a name twice.
    """
    regions: dict[str, tuple[int, ...]] = {}
    for part in text.split(","):
        values, _, name = (piece.strip() for piece in part.partition("="))
        numbers = values.split("+")
        if not name or name in regions or not all(_is_label(number) for number in numbers):
            raise OptionError(
                "labels",
                expected="VALUE=NAME pairs with values 1 to 255 and each name once",
                got=repr(part.strip()),
                way_out="For example --labels 1=blob,2=core,1+2=whole.",
            )
        regions[name] = tuple(int(number) for number in numbers)
    return LabelSet(regions=regions)


def read_dataset_json(path: Path) -> LabelSet:
    """The label set of an nnU-Net (names → values) or Decathlon (values → names) description.

    Raises:
        OptionError: not such a file, no label in it, or nnU-Net's ignore label.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels = content["labels"]
        pairs = list(_pairs(labels))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _bad_description("none that can be read") from error
    if any(name == "ignore" for name, _ in pairs):
        raise _bad_description("an ignore label, which cannot be scored")
    regions = {name: values for name, values in pairs if set(values) != {0}}
    if not regions or len(regions) != sum(set(values) != {0} for _, values in pairs):
        raise _bad_description("no label but the background, or a name twice")
    if not all(1 <= value <= 255 for values in regions.values() for value in values):
        raise _bad_description("a value outside 1 to 255")
    return LabelSet(regions=regions)


def read_map(path: Path, *, argument: str) -> Volume:
    """A NIfTI label map, or a PNG one as a volume of shape (1, height, width).

    Raises:
        ImageError: not an image that can be read, or a colour picture.
    """
    if path.suffix.lower() == ".png":
        return _read_png(path, argument)
    return read_nifti(path, argument=argument)


def _read_png(path: Path, argument: str) -> Volume:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=("PNG",)) as picture:
            array = np.asarray(picture)  # of a palette its indices, which are the labels
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise _bad_picture(argument, "a file that cannot be read as one") from error
    if array.ndim != 2:
        raise _bad_picture(argument, f"{array.shape[-1]} channels")
    return Volume(array[np.newaxis], np.eye(4))


def _pairs(labels: Mapping[str, Any]) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Name and values of every entry, whichever of the two ways round it is written."""
    for key, value in labels.items():
        if isinstance(value, str):
            yield value, (int(key),)
        else:
            yield key, tuple(int(v) for v in (value if isinstance(value, list) else [value]))


def _is_label(text: str) -> bool:
    return text.strip().isdecimal() and 1 <= int(text) <= 255


def _bad_description(got: str) -> OptionError:
    return OptionError(
        "dataset-json",
        expected='an nnU-Net dataset.json with "labels" (names and values, or regions)',
        got=got,
        way_out="Correct the file, or name the labels with --labels 1=blob,2=core.",
    )


def _bad_picture(argument: str, got: str) -> ImageError:
    return ImageError(
        argument,
        expected="a grey or palette PNG whose values are the labels",
        got=got,
        way_out="Export the label map with one value per pixel.",
    )
