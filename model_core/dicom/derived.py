"""What all objects written here share: who made them, UIDs made of content alone, their bytes.

The same run gives the same bytes: every UID is made of what went into the object
(`uid_of`, RFC 9562 version 5 under the root 2.25, PS3.5, B.2), and every time is the caller's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib.metadata import version
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

from model_core.dicom.codes import ARTIFICIAL_INTELLIGENCE, StructureName
from model_core.dicom.quiet import quiet_pydicom
from model_core.errors import ImageError, OptionError, SegMambaError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from model_core.dicom.sources import Sources

MANUFACTURER: Final = "segmamba-service"
LONGEST_TEXT: Final = 64
"""Characters of a short text (PS3.5, VR LO)."""
_NAMESPACE: Final = UUID("5d9c7d3e-6c0f-4f6a-9a53-3f0f7d1c5b42")


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """The model that drew a label map (Algorithm Identification Macro, PS3.3, 10.16).

    Attributes:
        name: of the model, e.g. ``"segmamba-small"``.
        version: of the model.
        weights_sha256: hash of its weights, hexadecimal; part of every UID.
        parameters: how it was run, e.g. ``{"tta": "full"}``.

    Raises:
        OptionError: an empty or too long text, or a hash that is none.
    """

    name: str
    version: str
    weights_sha256: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_text("algorithm.name", self.name)
        _check_text("algorithm.version", self.version)
        if len(self.weights_sha256) != 64 or set(self.weights_sha256) - set("0123456789abcdef"):
            raise OptionError(
                "algorithm.weights_sha256",
                expected="64 hexadecimal digits",
                got=f"{len(self.weights_sha256)} characters",
                way_out="Hand over the SHA-256 of the model's weights.",
            )

    @property
    def identity(self) -> str:
        """All that makes this algorithm what it is, as one text."""
        parameters = ",".join(f"{key}={self.parameters[key]}" for key in sorted(self.parameters))
        return "|".join((self.name, self.version, self.weights_sha256, parameters))

    def texts(self) -> list[str]:
        """Give each parameter as ``key=value``."""
        return [f"{key}={value}" for key, value in self.parameters.items()]


@dataclass(frozen=True, kw_only=True)
class Output:
    """How a new series is to be called and dated.

    Attributes:
        created: when the result was made, in the local time of the archive (DICOM's dates and
            times are local, PS3.5, 6.2).
        series_number: SeriesNumber (0020,0011), at least 1.
        series_description: SeriesDescription (0008,103E).

    Raises:
        OptionError: an empty or too long text, or a number below 1.
    """

    created: datetime
    series_number: int
    series_description: str

    def __post_init__(self) -> None:
        _check_text("series_description", self.series_description)
        if self.series_number < 1:
            raise OptionError(
                "series_number",
                expected="1 or more",
                got=str(self.series_number),
                way_out="Choose a number that no series of the study has.",
            )


def _check_text(argument: str, text: str) -> None:
    if not 0 < len(text) <= LONGEST_TEXT or "\\" in text or not text.isprintable():
        raise OptionError(
            argument,
            expected=f"1 to {LONGEST_TEXT} printable characters without a backslash",
            got=f"{len(text)} characters",
            way_out="Choose another text.",
        )


def uid_of(*parts: str) -> str:
    """Give a UID that depends on the texts alone."""
    return f"2.25.{uuid5(_NAMESPACE, chr(0).join(parts)).int}"


def tracking_uid(sources: Sources, algorithm: Algorithm, name: StructureName) -> str:
    """Give the UID by which a structure is followed through SEG and SR of one source series.

    The same weights looking at the same series track the same thing, whenever they are run.
    """
    return uid_of("tracking", sources.series_uid, algorithm.weights_sha256, name)


@cache
def software_version() -> str:
    """Give the version of this package."""
    return version("segmamba-service")


def common_arguments(algorithm: Algorithm, output: Output, uids: tuple[str, str]) -> dict[str, Any]:
    """Give what the constructors of all highdicom objects take: series, equipment, dates.

    Args:
        algorithm: the model.
        output: name, number and date.
        uids: of the new series and of the new instance.
    """
    date, time = output.created.date(), output.created.time()
    return {
        "series_instance_uid": uids[0],
        "sop_instance_uid": uids[1],
        "series_number": output.series_number,
        "instance_number": 1,
        "series_description": output.series_description,
        "series_date": date,
        "series_time": time,
        "content_date": date,
        "content_time": time,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": algorithm.name,
        "device_serial_number": algorithm.weights_sha256[:16],
        "software_versions": software_version(),
        "specific_character_set": None,
    }


def algorithm_family() -> Any:
    """Give the coded family of every model here (CID 7162)."""
    return ARTIFICIAL_INTELLIGENCE.code()


@contextmanager
def quiet_writing() -> Iterator[None]:
    """Let nothing of a header out of the writing libraries: no warning, no log line, no message.

    Their warnings and messages quote values, and so might name a patient.

    Raises:
        ImageError: the library refused the headers.
    """
    logger = logging.getLogger("highdicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with quiet_pydicom():
            yield
    except (SegMambaError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - values out of headers can provoke anything
        raise ImageError(
            "dicom",
            expected="headers of a valid MR series",
            got=f"headers that cannot be written from ({type(error).__name__})",
            way_out="Export the series again, or leave the DICOM output out.",
        ) from None
    finally:
        logger.setLevel(level)


def finished(derived: Dataset, sources: Sources, output: Output) -> bytes:
    """Put in patient, study and the caller's time, and give the bytes of the file (PS3.10)."""
    from pydicom import dcmwrite
    from pydicom.valuerep import DA, DT, TM

    created = output.created.replace(tzinfo=None)
    derived.InstanceCreationDate = DA(created.date())
    derived.InstanceCreationTime = TM(created.time())
    # highdicom names itself in the last item, with the time of the call
    derived.ContributingEquipmentSequence[-1].ContributionDateTime = DT(created)
    for element in sources.identity:
        derived[element.tag] = element
    derived.ContentQualification = "RESEARCH"
    buffer = BytesIO()
    dcmwrite(buffer, derived, enforce_file_format=True)
    return buffer.getvalue()
