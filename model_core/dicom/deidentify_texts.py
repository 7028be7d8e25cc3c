"""Which texts of a DICOM header may stay when its patient goes.

The profile of PS3.15 leaves code strings and what scanners write. Those too may repeat whom they
show: every text is held against the names and IDs in its header, and against the forms of a date.
A name that stands in no attribute for names or IDs cannot be told from a machine's word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from model_core.dicom.deidentify_rules import MACHINE_WORDS, TIDIED, readable, values_of

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

_CHARACTER_SETS: Final = (6, 13, 58, 87, 100, 101, 109, 110, 126, 127, 138, 144, 148, 149, 159, 166,
    192, 203,
)  # fmt: skip
_IMAGE_TYPES: Final = frozenset(
    {
        "ORIGINAL", "DERIVED", "MIXED", "PRIMARY", "SECONDARY", "LOCALIZER", "MPR", "MIP", "MNIP",
        "M", "P", "R", "I", "ND", "NORM", "DIS2D", "DIS3D", "FM", "FS", "ADC", "FA", "SUB", "OTHER",
        "M_SE", "M_FFE", "M_IR", "T1", "T2", "DIFFUSION", "PERFUSION", "REFORMATTED",
    }
)  # fmt: skip
COMMON_TERMS: Final = frozenset({"YES", "NO", "NONE", "ON", "OFF"})
DEFINED_TERMS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "SpecificCharacterSet": frozenset(
            f"{form} {number}" for form in ("ISO_IR", "ISO 2022 IR") for number in _CHARACTER_SETS
        ),
        "Modality": frozenset({"MR"}),
        "ImageType": _IMAGE_TYPES,
        "FrameType": _IMAGE_TYPES,
        "BodyPartExamined": frozenset({"HEAD", "BRAIN", "SKULL", "HEADNECK", "NECK"}),
        "ScanningSequence": frozenset({"SE", "IR", "GR", "EP", "RM"}),
        "SequenceVariant": frozenset({"SK", "MTC", "SS", "TRSS", "SP", "MP", "OSP"}),
        "ScanOptions": frozenset(
            {"PER", "RG", "CG", "PPG", "FC", "PFF", "PFP", "SP", "FS", "IR", "DB", "SAT"}
        ),
        "MRAcquisitionType": frozenset({"2D", "3D"}),
        "PatientPosition": frozenset({"HFS", "HFP", "HFDR", "HFDL", "FFS", "FFP", "FFDR", "FFDL"}),
        "PhotometricInterpretation": frozenset({"MONOCHROME1", "MONOCHROME2"}),
        "InPlanePhaseEncodingDirection": frozenset({"ROW", "COL", "COLUMN", "OTHER"}),
        "AcquisitionContrast": frozenset(
            {"T1", "T2", "T2_STAR", "FLUID_ATTENUATED", "PROTON_DENSITY", "DIFFUSION", "STIR"}
        ),
    }
)  # fmt: skip
"""Values of PS3.3 and of vendors that say nothing of a patient, even of one called Se or No."""

_CODE_STRING: Final = re.compile(r"[A-Z0-9 _]{0,16}")
_MACHINE_TEXT: Final = re.compile(r"[A-Za-z0-9 *#+_./:;,()\-]{0,64}")
_SEQUENCE_NAME: Final = re.compile(r"(?:[*_A-Za-z0-9][A-Za-z0-9*#+_./:;,()\-]{0,63})?")
_SHAPES: Final = MappingProxyType(
    {"SequenceName": _SEQUENCE_NAME, "PulseSequenceName": _SEQUENCE_NAME}
)
"""Scanners write names of sequences without a blank."""
_MONTHS: Final = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE: Final = re.compile(
    r"(?<!\d)(?:"
    r"(?:19|20)\d\d(?:(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|[-./_ ]\d{1,2}[-./_ ]\d{1,2})"
    r"|(?:0[1-9]|[12]\d|3[01])(?:0[1-9]|1[0-2])(?:19|20)\d\d"
    r"|\d{1,2}[-./_ ]\d{1,2}[-./_ ](?:19|20)\d\d|\d{1,2}([-/])\d{1,2}\1\d\d"
    rf"|\d{{1,2}}[-./_ ]?{_MONTHS}[-./_ ]?(?:19|20)?\d\d"
    r")(?!\d)"
)
_IDS: Final = frozenset({0x00100020, 0x00101000})  # PatientID, OtherPatientIDs
_OTHER_IDS: Final = 0x00101002
_UMLAUTS: Final = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "æ": "ae"})
_SHORT: Final = 2
"""Characters of a word that stands for a person only where it stands alone."""
_LONGEST: Final = 1024
"""Characters of a name that are looked for; the standard allows 64 in each of its three forms."""
_NOBODY: Final = "(?!)"


def is_harmless(element: DataElement, names: re.Pattern[str]) -> bool:
    """Tell whether a text that the table leaves alone is a standard's word or a machine's.

    Args:
        element: of one of the `TEXTS`.
        names: of the patient, from `names_of_patient`; a text that has one is not harmless.
    """
    if element.tag in TIDIED:
        return True
    if element.VR != "CS" and element.keyword not in MACHINE_WORDS:
        return False
    shape = _CODE_STRING if element.VR == "CS" else _SHAPES.get(element.keyword, _MACHINE_TEXT)
    terms = DEFINED_TERMS.get(element.keyword, frozenset()) | COMMON_TERMS
    texts = [str(value) for value in values_of(element)]
    return all(
        (element.VR == "CS" and text in terms)
        or (
            shape.fullmatch(text)
            and not names.search(text.lower())
            and not _DATE.search(text.lower())
        )
        for text in texts
    )


def names_of_patient(dataset: Dataset) -> re.Pattern[str]:
    """Give what finds, in a text in lower case, any name or ID by which a header calls a person.

    Parts of three letters or digits are found within words too, shorter ones as words; of an ID's
    parts two digits alone are no trace, of a name or an ID one letter is none.
    """
    found: set[str] = set()
    for text in _calls(dataset):
        for spelt in (text, text.translate(_UMLAUTS)):
            found.update(_traces(re.findall(r"[^\W_]+", _plain(spelt))))
    return re.compile("|".join(sorted(found)) or _NOBODY)


def _calls(dataset: Dataset) -> Iterator[str]:
    """Every name and ID, in lower case."""
    others = readable(dataset, _OTHER_IDS) if _OTHER_IDS in dataset else None
    for item in (dataset, *(others.value if others is not None and others.VR == "SQ" else ())):
        for tag in list(item.keys()):
            element = readable(item, tag)
            if element is not None and (element.VR == "PN" or tag in _IDS):
                yield from (str(one).casefold()[:_LONGEST] for one in values_of(element))


def _plain(text: str) -> str:
    bare = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in bare if not unicodedata.combining(letter))


def _traces(parts: list[str]) -> Iterator[str]:
    for part in parts:
        if len(part) > _SHORT:
            yield re.escape(part)
        elif len(part) == _SHORT and (len(parts) == 1 or not part.isdigit()):
            yield _alone(re.escape(part))
    if len(parts) > 1 and sum(map(len, parts)) >= _SHORT:
        for order in (parts, parts[::-1]):
            whole = r"[\W_]*".join(map(re.escape, order))
            yield whole if sum(map(len, parts)) > _SHORT + 1 else _alone(whole)


def _alone(pattern: str) -> str:
    return rf"(?<![^\W_]){pattern}(?![^\W_])"
