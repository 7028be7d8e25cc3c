"""Single values out of a data set, each of the type that was asked for or absent.

pydicom converts a value when it is first touched, and what is stored under a tag is a stranger's:
text where a number belongs, a thousand numbers for one, a sequence for a name. A value that is not
what its tag promises counts as absent; only want of memory is raised. Call it within
`quiet_pydicom`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from pydicom.dataset import Dataset

LONGEST_TEXT: Final = 256
"""Characters of a text that are kept; the standard allows 64 in most."""
MOST_TEXTS: Final = 32


def value_of(dataset: Dataset | None, keyword: str) -> Any:
    """Give the value of a tag, None where it is absent, empty or cannot be converted."""
    if dataset is None:
        return None
    try:
        value = dataset.get(keyword)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - conversion runs into anything that bytes can provoke
        return None
    return None if value == "" else value


def is_said(dataset: Dataset | None, keyword: str) -> bool:
    """Tell whether a tag is there and not empty, readable or not."""
    if dataset is None or keyword not in dataset:
        return False
    try:
        return not dataset[keyword].is_empty
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - as above: it is there, whatever it is
        return True


def text(dataset: Dataset | None, keyword: str) -> str:
    """Give a text, ``""`` where there is none; several are joined as DICOM does."""
    return "\\".join(texts(dataset, keyword))[:LONGEST_TEXT]


def texts(dataset: Dataset | None, keyword: str) -> tuple[str, ...]:
    """Give all texts of a tag."""
    values = _as_list(value_of(dataset, keyword))[:MOST_TEXTS]
    return tuple(str(value)[:LONGEST_TEXT].strip() for value in values if _is_plain(value))


def number(dataset: Dataset | None, keyword: str) -> float | None:
    """Give a single finite number."""
    found = numbers(dataset, keyword, 1)
    return found[0] if found else None


def whole(dataset: Dataset | None, keyword: str) -> int | None:
    """Give a single whole number."""
    found = number(dataset, keyword)
    return int(found) if found is not None and found == int(found) else None


def numbers(dataset: Dataset | None, keyword: str, count: int) -> tuple[float, ...] | None:
    """Give exactly so many finite numbers."""
    values = _as_list(value_of(dataset, keyword))
    if len(values) != count:
        return None
    try:
        found = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if all(map(math.isfinite, found)) else None


def items(dataset: Dataset | None, keyword: str) -> Sequence[Dataset]:
    """Give the items of a sequence, none where it is absent or no sequence."""
    value = value_of(dataset, keyword)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return ()
    return value if all(isinstance(item, Dataset) for item in value) else ()


def first_item(dataset: Dataset | None, keyword: str) -> Dataset | None:
    """Give the first item of a sequence."""
    found = items(dataset, keyword)
    return found[0] if found else None


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return list(value)
    return [value]


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float) and str(value) != ""
