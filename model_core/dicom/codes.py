"""What a label, a region or a measurement is called in coded vocabularies: one table.

Labels and regions are *structures* (`STRUCTURES`). A structure is what a segment of a SEG shows and
what a measurement group of an SR speaks of. Types are distinct, so that a reader who knows codes
alone tells all five apart; the words in the project's own language stand beside them.

Sources: DICOM PS3.16, CID 7168 (brain lesion segmentation type with necrosis), 7194, 7150, 7162,
7470, 7472, 7464, 646; SNOMED CT, NCI Thesaurus, LOINC and UCUM through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, get_args

from model_core.labels import LABEL_COLOURS, LABEL_MEANINGS
from model_core.types import REGION_LABELS, Label

if TYPE_CHECKING:
    from highdicom.color import CIELabColor
    from pydicom.sr.coding import Code

StructureName = Literal["NCR", "ED", "ET", "TC", "WT"]
"""Labels and regions; ET is both."""
STRUCTURE_NAMES: Final[tuple[StructureName, ...]] = get_args(StructureName)

OWN_SCHEME: Final = "99SEGMAMBA"
"""Designator of the project's own codes (PS3.16, 8.2: local designators begin with 99)."""


@dataclass(frozen=True)
class Concept:
    """A coded concept (PS3.3, 8.8), without the weight of the library that knows them all.

    Attributes:
        value: code value.
        scheme: coding scheme designator, e.g. ``"SCT"``.
        meaning: code meaning, in the scheme's own words.
    """

    value: str
    scheme: str
    meaning: str

    def code(self) -> Code:
        """Give it as pydicom and highdicom want it."""
        from pydicom.sr.coding import Code

        return Code(self.value, self.scheme, self.meaning)


ABNORMAL_STRUCTURE: Final = Concept("49755003", "SCT", "Morphologically Abnormal Structure")
"""The category of every structure (CID 7150)."""
BRAIN: Final = Concept("12738006", "SCT", "Brain")
ARTIFICIAL_INTELLIGENCE: Final = Concept("123110", "DCM", "Artificial Intelligence")  # CID 7162
BRAIN_MRI: Final = Concept("24590-2", "LN", "Brain MRI")  # CID 646

VOLUME: Final = Concept("118565006", "SCT", "Volume")  # CID 7472
DIAMETER: Final = Concept("81827009", "SCT", "Diameter")  # CID 7470
MAXIMUM: Final = Concept("56851009", "SCT", "Maximum")  # CID 7464, a derivation
MAJOR_AXIS: Final = Concept("131187009", "SCT", "Major Axis")  # CID 7470
PERPENDICULAR_AXIS: Final = Concept("131189007", "SCT", "Perpendicular Axis")  # CID 7470
BIDIMENSIONAL_PRODUCT: Final = Concept(
    "BIDIM_PRODUCT", OWN_SCHEME, "Product of Major Axis and Perpendicular Axis"
)
"""The project's own code: the context groups of PS3.16 have none for the product of RANO."""

MILLILITRE: Final = Concept("mL", "UCUM", "milliliter")
MILLIMETRE: Final = Concept("mm", "UCUM", "millimeter")
SQUARE_MILLIMETRE: Final = Concept("mm2", "UCUM", "square millimeter")


@dataclass(frozen=True)
class Structure:
    """A label or a region, and what it is in codes.

    Attributes:
        name: short, as everywhere in the project.
        labels: the labels that make it up.
        kind: its segmented property type, and the finding in a report.
        meaning: in the project's words.
        rgb: 8-bit sRGB of a label; None for a region, which is no segment of its own.
    """

    name: StructureName
    labels: tuple[Label, ...]
    kind: Concept
    meaning: str
    rgb: tuple[int, int, int] | None = None

    @property
    def text(self) -> str:
        """Name and meaning, as a person sees them in a viewer; at most 64 characters (VR LO)."""
        return f"{self.name}: {self.meaning}"

    def colour(self) -> CIELabColor | None:
        """Give the colour for RecommendedDisplayCIELabValue (0062,000D)."""
        from highdicom.color import CIELabColor

        return None if self.rgb is None else CIELabColor.from_rgb(*self.rgb)


def _label(name: StructureName, label: Label, kind: Concept) -> Structure:
    return Structure(name, (label,), kind, LABEL_MEANINGS[label], LABEL_COLOURS[label])


STRUCTURES: Final[Mapping[StructureName, Structure]] = MappingProxyType(
    {
        "NCR": _label("NCR", Label.NCR, Concept("6574001", "SCT", "Necrosis")),  # CID 7168
        "ED": _label("ED", Label.ED, Concept("79654002", "SCT", "Edema")),  # CID 7168
        "ET": _label("ET", Label.ET, Concept("C113842", "NCIt", "Enhancing Lesion")),  # CID 7168
        "TC": Structure(
            "TC",
            REGION_LABELS["TC"],
            Concept("108369006", "SCT", "Neoplasm"),  # CID 7194
            "tumour core, NCR and ET",
        ),
        "WT": Structure(
            "WT",
            REGION_LABELS["WT"],
            Concept("301766008", "SCT", "Lesion of Brain"),  # CID 7194
            "whole tumour, NCR, ED and ET",
        ),
    }
)
"""TC is the mass itself, so a neoplasm; WT is the mass and what it does around it, so a lesion."""

SEGMENTS: Final[tuple[StructureName, ...]] = ("NCR", "ED", "ET")
"""Segment 1, 2, 3: the segment number is the internal label."""
