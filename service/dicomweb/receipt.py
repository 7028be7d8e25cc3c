"""What an archive said to each object that was handed to it, as data and as JSON.

Reasons are a fixed vocabulary (PS3.18, table I.2-2; PS3.4, annex B.2.3): an archive's own words are
never repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

NO_FILE: Final = "this file cannot be read"
NOT_DICOM: Final = "this is no DICOM file, or one without its UIDs"
TOO_LARGE: Final = "it is larger than the archive takes"
UNCONFIRMED: Final = "the archive did not say that it stored it"
UNLISTED: Final = "the archive says that it stored it, and does not list it"

_REASONS: Final[Mapping[int, str]] = {
    0x0106: "an attribute has a value that the archive does not take",
    0x0110: "processing failed in the archive",
    0x0111: "the archive has an object of this UID already",
    0x0117: "its SOPInstanceUID is not valid",
    0x0122: "the archive does not store this kind of object",
    0x0124: "the archive does not allow it",
    0xC122: "the archive does not store this transfer syntax",
}
_RANGES: Final[tuple[tuple[int, int, str], ...]] = (
    (0xA700, 0xA7FF, "the archive is out of resources"),
    (0xA900, 0xA9FF, "its content does not match its kind, or belongs to another study"),
    (0xC000, 0xCFFF, "the archive cannot understand it"),
)
_OTHER: Final = "the archive refused it"


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One object and what became of it.

    Attributes:
        number: its place among those handed over, from 1.
        stored: whether the archive has it now.
        sop_class_uid: of the object; empty where it is no DICOM.
        sop_instance_uid: likewise.
        reason: why it is not stored, or what the archive changed; else empty.
        code: FailureReason (0008,1197) or WarningReason (0008,1196), where the archive gave one.
    """

    number: int
    stored: bool
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    reason: str = ""
    code: int | None = None


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of everything that was handed over in one push.

    Attributes:
        archive: configured name of the archive.
        deliveries: one for each object, in the order in which they were handed over.
    """

    archive: str
    deliveries: tuple[Delivery, ...]

    @property
    def stored(self) -> tuple[Delivery, ...]:
        """Those that the archive has."""
        return tuple(one for one in self.deliveries if one.stored)

    @property
    def refused(self) -> tuple[Delivery, ...]:
        """Those that it has not, each with its reason."""
        return tuple(one for one in self.deliveries if not one.stored)

    @property
    def complete(self) -> bool:
        """Whether the archive has everything."""
        return not self.refused

    def as_dict(self) -> dict[str, Any]:
        """The receipt as plain JSON: the counts, then every object with what is known of it."""
        return {
            "archive": self.archive,
            "stored": len(self.stored),
            "refused": len(self.refused),
            "objects": [_plain(one) for one in self.deliveries],
        }


def failure_in_words(code: int | None) -> str:
    """Say a FailureReason (0008,1197) in words."""
    if code is None:
        return _OTHER
    if code in _REASONS:
        return _REASONS[code]
    return next((words for least, most, words in _RANGES if least <= code <= most), _OTHER)


def _plain(delivery: Delivery) -> dict[str, Any]:
    fields = {
        "number": delivery.number,
        "stored": delivery.stored,
        "sop_class_uid": delivery.sop_class_uid,
        "sop_instance_uid": delivery.sop_instance_uid,
        "reason": delivery.reason,
        "code": None if delivery.code is None else f"{delivery.code:04X}",
    }
    return {name: value for name, value in fields.items() if value not in ("", None)}
