"""De-identification of MR images: the basic profile of PS3.15, and more than it asks for.

PS3.15 Annex E, Basic Application Level Confidentiality Profile. Every data set is walked, nested
ones too, under `model_core.dicom.deidentify_rules`. UIDs are replaced by a keyed hash wherever they
stand. Free texts, dates and binary values that the profile leaves alone are emptied or removed;
bits of a pixel beyond its value, overlays, curves, private groups, the preamble and the old file
meta are gone. What cannot be cleaned this way is refused.

Faces stay unless the caller brings what takes them out (`model_core.dicom.deface_series`): a head
can be recognised from its images.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from model_core.dicom.deidentify_rules import (
    NUMBERS,
    TEXTS,
    UNREADABLE,
    Rule,
    is_long,
    never_kept,
    readable,
    rule_of,
    tidy_code,
    values_of,
    write_dummy,
)
from model_core.dicom.deidentify_texts import is_harmless, names_of_patient
from model_core.dicom.quiet import quiet_pydicom
from model_core.errors import ImageError, OptionError

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset, FileMetaDataset

IMAGE_CLASSES: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.4",  # MR Image Storage
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image Storage
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image Storage
    }
)
METHOD: Final = "PS3.15 Basic Profile; free text and private data removed"
METHOD_CODE: Final = ("113100", "DCM", "Basic Application Confidentiality Profile")
FACE_METHOD: Final = "Faces removed in front of a plane below the brain"
FACE_CODE: Final = ("113102", "DCM", "Clean Recognizable Visual Features Option")
SHORTEST_KEY: Final = 16
"""Bytes of a key that nobody guesses."""
LARGEST_PIXELS: Final = 1 << 30
"""Bytes of pixel data that are still unpacked; an enhanced head has a tenth of it."""
DEEPEST: Final = 16
"""Sequences nested deeper hold nothing that an image needs."""

PixelChange = Callable[["Dataset"], None]
"""Takes a face out of unpacked pixels, before anything else of a data set is changed."""

_LITTLE_ENDIAN: Final = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
_REFUSED_SYNTAXES: Final = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")  # deflated, big endian
_PATIENT_ID: Final = 0x00100020
_PIXEL_DATA: Final = 0x7FE00010


@dataclass(frozen=True, kw_only=True)
class CleanImage:
    """One image without its patient.

    Attributes:
        data: a whole DICOM file, Explicit VR Little Endian.
        series_uid: its new SeriesInstanceUID.
        instance_uid: its new SOPInstanceUID.
    """

    data: bytes
    series_uid: str
    instance_uid: str


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A file that was not cleaned.

    Attributes:
        number: its place among those handed over, from 1.
        error: why.
    """

    number: int
    error: ImageError


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """What became of many files.

    Attributes:
        written: the new files.
        refused: those that could not be cleaned, and why.
    """

    written: tuple[Path, ...]
    refused: tuple[Refusal, ...]


class Deidentifier:
    """Cleans any number of images under one key: what belonged together still does.

    Args:
        key: at least 16 secret bytes. The same key gives the same UIDs and pseudonyms again, and
            whoever has it can link them to a patient; without one, a random key is made that dies
            with this object.

    Raises:
        OptionError: the key is too short.
    """

    def __init__(self, key: bytes | None = None) -> None:
        if key is not None and len(key) < SHORTEST_KEY:
            raise OptionError(
                "key",
                expected=f"at least {SHORTEST_KEY} bytes that nobody can guess",
                got=f"{len(key)}",
                way_out="Make one with: openssl rand -hex 32. Or give none.",
            )
        self._key = key or secrets.token_bytes(32)

    def clean(self, source: bytes | Path, *, deface: PixelChange | None = None) -> CleanImage:
        """Make a clean file of one DICOM file.

        Args:
            source: the file.
            deface: takes the face out of its pixels, or refuses; the header then says that no face
                can be recognised.

        Raises:
            ImageError: it is no MR image, text may be drawn into it, or it is damaged.
        """
        data = source if isinstance(source, bytes) else source.read_bytes()
        with quiet_pydicom():
            try:
                return self._clean_file(data, deface)
            except (*UNREADABLE, RecursionError, EOFError):
                raise _refused("data that cannot be read") from None

    def uid(self, old: str) -> str:
        """Give the UID that stands for an old one; registered ones, e.g. of a class, are kept."""
        from pydicom.uid import UID

        if not old or UID(old).name != old:
            return old
        return f"2.25.{int.from_bytes(self._digest('uid', old)[:16], 'big')}"

    def pseudonym(self, patient_id: str) -> str:
        """Give the word that stands for a PatientID; an empty one stays empty."""
        return f"anon-{self._digest('patient', patient_id).hex()[:16]}" if patient_id else ""

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.digest(self._key, f"{kind}:{text.strip()}".encode(), "sha256")

    def _clean_file(self, data: bytes, deface: PixelChange | None) -> CleanImage:
        dataset = _read(data)
        _check_kind(dataset)
        _tidy_pixels(dataset)
        if deface:
            deface(dataset)
        self._clean(dataset, names_of_patient(dataset), depth=0)
        _say_what_was_done(dataset, defaced=deface is not None)
        return CleanImage(
            data=_encode(dataset),
            series_uid=str(dataset.SeriesInstanceUID),
            instance_uid=str(dataset.SOPInstanceUID),
        )

    def _clean(self, dataset: Dataset, names: re.Pattern[str], *, depth: int) -> None:
        tidy_code(dataset)
        for tag in list(dataset.keys()):
            drop = never_kept(tag, nested=depth > 0) or rule_of(tag) == "remove"
            element = None if drop else readable(dataset, tag)
            if element is None:
                del dataset[tag]
            elif element.VR == "SQ":
                self._clean_items(element, names, depth)
            elif element.VR == "UI":
                self._replace_uids(element)
            elif tag == _PATIENT_ID:
                element.value = self.pseudonym(str(element.value or ""))
            elif not _clean_value(element, rule_of(tag), names):
                del dataset[tag]

    def _clean_items(self, element: DataElement, names: re.Pattern[str], depth: int) -> None:
        if depth >= DEEPEST or rule_of(element.tag) in ("empty", "dummy"):
            element.value = []
        for item in element.value:
            self._clean(item, names, depth=depth + 1)

    def _replace_uids(self, element: DataElement) -> None:
        values = [self.uid(str(old)) for old in values_of(element)]
        element.value = values if len(values) > 1 else "".join(values)


def deidentify(
    files: Iterable[Path],
    folder: Path,
    *,
    deidentifier: Deidentifier | None = None,
    progress: Callable[[int], None] | None = None,
    deface: Callable[[Path], PixelChange] | None = None,
) -> Cleaning:
    """Clean files into a folder, one folder a series, under names made of their new UIDs.

    A file that is refused harms no other; what exists is never replaced.

    Args:
        files: DICOM files; those of one patient should come in one call, or under one key.
        folder: where the new files go; made if need be.
        deidentifier: with a key of the caller's; one with a random key when not given.
        progress: called after each file with the number of those done.
        deface: gives for each file what takes the face out of it.
    """
    deidentifier = deidentifier or Deidentifier()
    written, refused = [], []
    for number, path in enumerate(files, 1):
        try:
            change = deface(path) if deface else None
            written.append(_write(deidentifier.clean(path, deface=change), folder))
        except ImageError as error:
            refused.append(Refusal(number=number, error=error))
        if progress:
            progress(number)
    return Cleaning(written=tuple(written), refused=tuple(refused))


def _write(image: CleanImage, folder: Path) -> Path:
    series = folder / image.series_uid
    series.mkdir(parents=True, exist_ok=True)
    path = series / f"{image.instance_uid}.dcm"
    try:
        with path.open("xb") as file:
            file.write(image.data)
    except FileExistsError:
        raise _refused("an image that was cleaned before") from None
    return path


def _refused(got: str, way_out: str = "Leave the file out.") -> ImageError:
    return ImageError(
        "dicom", expected="an MR image that can be de-identified", got=got, way_out=way_out
    )


def _read(data: bytes) -> Dataset:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        dataset = dcmread(BytesIO(data))
    except InvalidDicomError:
        raise _refused("a file that is not DICOM") from None
    if dataset.file_meta.TransferSyntaxUID in _REFUSED_SYNTAXES:
        raise _refused(
            "a deflated or big-endian transfer syntax", "Convert it first, e.g. with dcmconv +te."
        )
    return dataset


def _check_kind(dataset: Dataset) -> None:
    """Refuse what may show or hide a text that this file cannot see."""
    if str(dataset.get("SOPClassUID", "")) not in IMAGE_CLASSES:
        raise _refused("another kind of object")
    if str(dataset.get("BurnedInAnnotation", "")).strip().upper() == "YES":
        raise _refused("an image with burned-in annotation")
    if dataset.get("ModalityLUTSequence"):
        raise _refused("values behind a lookup table (0028,3000)")
    if "SCREEN" in str(dataset.get("ImageType", "")).upper():
        raise _refused("a picture of a screen")
    if dataset.SamplesPerPixel != 1 or not str(dataset.PhotometricInterpretation).startswith(
        "MONO"
    ):
        raise _refused("a colour image, which may have texts drawn into it")


def _tidy_pixels(dataset: Dataset) -> None:
    """Leave the values of the pixels, unpacked, and nothing in the bits and bytes around them."""
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    count = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames", 1) or 1)
    size = count * allocated // 8
    if allocated not in (8, 16) or not 0 < stored <= allocated or dataset.HighBit != stored - 1:
        raise _refused("pixels of an unusual layout")
    if not 0 < size <= LARGEST_PIXELS:
        raise _refused("no pixel, or more than can be unpacked")
    if dataset.file_meta.TransferSyntaxUID not in _LITTLE_ENDIAN:
        _unpack(dataset)
    data = dataset["PixelData"].value
    if len(data) not in (size, size + size % 2):
        raise _refused("more or less pixel data than its header says")
    values = np.frombuffer(data, f"<u{allocated // 8}", count)
    kept = _without_spare_bits(values, stored, signed=bool(dataset.PixelRepresentation))
    dataset["PixelData"].value = kept.tobytes() + bytes(size % 2)


def _unpack(dataset: Dataset) -> None:
    """Decompress, since a compressed frame has room for comments."""
    try:
        dataset.decompress(generate_instance_uid=False)
    except RuntimeError:  # no decoder for it, or one that failed
        raise _refused(
            "a compression that cannot be undone here", "Decompress it first, e.g. with gdcmconv."
        ) from None


def _without_spare_bits(values: NDArray[Any], stored: int, *, signed: bool) -> NDArray[Any]:
    """Clear the bits above a pixel's value, where old overlays lie; a sign is written anew."""
    kind = values.dtype.type
    mask = kind((1 << stored) - 1)
    kept = values & mask
    if signed and stored < values.dtype.itemsize * 8:
        negative = (kept >> kind(stored - 1)) & kind(1) == 1
        kept = np.where(negative, kept | ~mask, kept)
    return np.asarray(kept, values.dtype)


def _clean_value(element: DataElement, rule: Rule, names: re.Pattern[str]) -> bool:
    """Clean a value that is no UID and no sequence; False if the whole element has to go."""
    if element.tag == _PIXEL_DATA:
        return True
    if element.VR not in TEXTS | NUMBERS or is_long(element):
        return False
    if rule == "dummy":
        write_dummy(element)
    elif element.VR in TEXTS and (rule == "empty" or not is_harmless(element, names)):
        element.value = ""
    return element.VR in TEXTS or rule != "empty"


def _say_what_was_done(dataset: Dataset, *, defaced: bool) -> None:
    """Fill in what PS3.15 E.1.1 and E.3.2 ask of a de-identified object."""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = [METHOD, FACE_METHOD] if defaced else METHOD
    codes = (METHOD_CODE, FACE_CODE) if defaced else (METHOD_CODE,)
    dataset.DeidentificationMethodCodeSequence = [_coded(*code) for code in codes]
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
    if defaced:
        dataset.RecognizableVisualFeatures = "NO"


def _coded(value: str, scheme: str, meaning: str) -> Dataset:
    from pydicom.dataset import Dataset as Item

    code = Item()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _encode(dataset: Dataset) -> bytes:
    from pydicom import dcmwrite

    dataset.preamble = bytes(128)
    dataset.file_meta = _new_meta(dataset)
    file = BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def _new_meta(dataset: Dataset) -> FileMetaDataset:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta
