"""What becomes of one element of a DICOM image that is de-identified: the rules, one by one.

The table of PS3.15 E.1-1 comes from the library dicom-anonymizer, as do its dummies. What the table
leaves alone is judged here: numbers may stay, and of texts those that
`model_core.dicom.deidentify_texts` finds harmless.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

Rule = Literal["remove", "empty", "dummy", "uid", "clean", "keep"]
"""X, Z, D, U and U* of PS3.15 table E.1-1, and what the table does not name."""

TABLE: Final = "dicomfields_2026c"
"""The edition of table E.1-1 that dicom-anonymizer is asked for."""
DUMMY: Final = "ANONYMIZED"
"""The word that dicom-anonymizer writes where a text must not be empty."""
DUMMY_TIMES: Final[Mapping[str, str]] = MappingProxyType(
    {"DA": "19000101", "TM": "000000", "DT": "19000101000000"}
)
"""What stands for a date or time that must not be empty, by value representation."""
MACHINE_WORDS: Final = frozenset(
    {
        "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "SequenceName",
        "PulseSequenceName", "ReceiveCoilName", "TransmitCoilName", "ImagedNucleus", "RescaleType",
        "StackID",
    }
)  # fmt: skip
"""Texts that scanners write and nobody types; the profile leaves them, and so do these rules."""
NUMBERS: Final = frozenset({"AT", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
"""Value representations that hold numbers, as bits or as texts."""
TEXTS: Final = frozenset(
    {"AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"}
)
"""Value representations that hold texts, UIDs aside."""
UNREADABLE: Final = (
    ValueError, TypeError, KeyError, AttributeError, IndexError, NotImplementedError,
    OverflowError, struct.error,
)  # fmt: skip
"""What pydicom raises, at first sight of an element, where its bytes do not fit its VR."""

_NO_AGENT: Final = re.compile(
    r"[-.]*|0|N|N/?A|NON|NULL|NIL|NEIN|(?:NO|NON[- ]?CONTRAST|NONE|NOT (?:GIVEN|ADMINISTERED|USED)"
    r"|WITHOUT|OHNE|KEINE?|SANS|SIN|SENZA|SEM|ZONDER|BEZ)\b.*"
)
_UNKNOWN_AGENT: Final = re.compile(r"(?:UNKNOWN|NOT KNOWN|UNK|UNBEKANNT|INCONNU|\?)\W*")
_CONTRAST_AGENT: Final = 0x00180010
_CODING_SCHEMES: Final = 0x00080110
_LONGEST_SHORTS: Final = 4  # AcquisitionMatrix
_LONGEST_NUMBERS: Final = 16  # a 4 x 4 matrix
_CODE_VALUES: Final = ("CodeValue", "LongCodeValue", "URNCodeValue")
_CODE_TEXTS: Final = ("CodingSchemeDesignator", "CodeMeaning")
TIDIED: Final = frozenset({0x00080100, 0x00080102, 0x00080104})
"""What `tidy_code` has written."""
_LOOKUP_TABLES: Final = frozenset({0x00283000, 0x00283010, 0x20500010})


def rule_of(tag: int) -> Rule:
    """Give the profile's rule for a tag, e.g. ``0x00100010``; ``keep`` if the table has none."""
    return _rules().get((tag >> 16, tag & 0xFFFF), "keep")


def never_kept(tag: int, *, nested: bool) -> bool:
    """Tell private tags, group lengths, curves, overlays, lookup tables and pixels of nested items.

    Tables lay out values for a screen; what has one in front of its values is refused before.
    """
    group, element = tag >> 16, tag & 0xFFFF
    repeated = group & 0xFF00 in (0x5000, 0x6000)
    odd = bool(group % 2) or element == 0 or tag == _CODING_SCHEMES or tag in _LOOKUP_TABLES
    return odd or repeated or (group == 0x7FE0 and nested)


def write_dummy(element: DataElement) -> None:
    """Let the library write a dummy; what is empty says nothing and stays empty.

    Not so for dates, where its dummy is in a year that validators refuse.
    """
    from dicomanonymizer.simpledicomanonymizer import (  # type: ignore[import-untyped]
        replace_element,
    )

    values = {str(value).strip().upper() for value in values_of(element)}
    if element.tag == _CONTRAST_AGENT and all(_NO_AGENT.fullmatch(value) for value in values):
        element.value = ""  # a dummy would say that there was an agent
    elif element.tag == _CONTRAST_AGENT and all(map(_UNKNOWN_AGENT.fullmatch, values)):
        element.value = "UNKNOWN"
    elif values and element.VR in DUMMY_TIMES:
        element.value = DUMMY_TIMES[element.VR]
    elif values:
        replace_element(element)


def tidy_code(item: Dataset) -> None:
    """Give a coded item the standard's own words, or dummies where the standard has none."""
    if not any(name in item for name in (*_CODE_VALUES, *_CODE_TEXTS)):
        return
    value = next((str(item[name].value) for name in _CODE_VALUES if name in item), "")
    scheme = str(item.get("CodingSchemeDesignator", ""))
    meaning = _meanings().get((scheme, value))
    for name in _CODE_VALUES:
        if name in item:
            del item[name]
    item.CodeValue = value if meaning else DUMMY
    item.CodingSchemeDesignator = scheme if meaning else "99ANON"
    item.CodeMeaning = meaning or DUMMY


def readable(dataset: Dataset, tag: int) -> DataElement | None:
    """Give the element with its value decoded, None if its bytes are not what they should be.

    Where bytes do not fit their VR, pydicom may decode them as another one, e.g. as a text.
    """
    from pydicom.sequence import Sequence

    try:
        element = dataset[tag]
    except UNREADABLE:
        return None
    if element.VR in NUMBERS:
        fits = all(isinstance(value, int | float) for value in values_of(element))
    else:
        fits = element.VR != "SQ" or isinstance(element.value, Sequence)
    return element if fits else None


def is_long(element: DataElement) -> bool:
    """Tell a list of binary numbers that is longer than any of geometry or timing."""
    most = _LONGEST_SHORTS if element.VR in ("US", "SS") else _LONGEST_NUMBERS
    return element.VR in NUMBERS - {"DS", "IS"} and len(values_of(element)) > most


def values_of(element: DataElement) -> list[object]:
    """Give the values of an element, none if it is empty."""
    from pydicom.multival import MultiValue

    value = element.value
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | MultiValue) else [value]


@cache
def _rules() -> Mapping[tuple[int, ...], Rule]:
    """Read the library's table; repeating groups, which have masks, are in `never_kept`."""
    from dicomanonymizer import (  # type: ignore[import-untyped]
        simpledicomanonymizer as library,
    )

    names: dict[object, Rule] = {
        library.delete: "remove",
        library.empty: "empty",
        library.delete_or_empty: "empty",
        library.replace: "dummy",
        library.empty_or_replace: "dummy",
        library.delete_or_replace: "dummy",
        library.delete_or_empty_or_replace: "dummy",
        library.replace_UID: "uid",
        library.delete_or_empty_or_replace_UID: "clean",
    }
    actions = library.initialize_actions(TABLE)
    return {tuple(tag): names[action] for tag, action in actions.items()}


@cache
def _meanings() -> Mapping[tuple[str, str], str]:
    """Give the meaning of every code of the context groups of PS3.16, by scheme and value."""
    from pydicom.sr import _concepts_dict

    schemes: Any = _concepts_dict.concepts
    return {
        (scheme, value): meaning
        for scheme, entries in schemes.items()
        for codes in entries.values()
        for value, (meaning, _) in codes.items()
    }
