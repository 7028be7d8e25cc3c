"""All files of an answer under fixed names, and one archive of them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from model_core.pipeline.answer import Answer
    from model_core.pipeline.objects import DicomObjects
    from model_core.provenance.manifest import RunManifest

LABEL_MAP: Final = "segmentation.nii.gz"
SEG: Final = "segmentation.dcm"
SR: Final = "measurements.dcm"
REPORT: Final = "report.json"
TABLE: Final = "statistics.csv"
MANIFEST: Final = "run.json"
MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        LABEL_MAP: "application/gzip",
        SEG: "application/dicom",
        SR: "application/dicom",
        REPORT: "application/json",
        TABLE: "text/csv",
        MANIFEST: "application/json",
    }
)
OBJECT_NAMES: Final = tuple(MEDIA_TYPES)
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def result_files(
    answer: Answer, manifest: RunManifest, objects: DicomObjects | None
) -> dict[str, bytes]:
    """Every file of a run by its name; those of DICOM where it began from DICOM."""
    from model_core.findings import to_csv

    found = {
        LABEL_MAP: answer.label_map,
        REPORT: (json.dumps(answer.report(), indent=2) + "\n").encode(),
        TABLE: to_csv({"study": answer.statistics}).encode(),
        MANIFEST: manifest.to_json().encode(),
    }
    if objects is not None:
        found |= {SEG: objects.seg, SR: objects.sr}
    return found


def archive_of(files: Mapping[str, bytes]) -> bytes:
    """One zip archive; the same files give the same bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def file_of(archive: bytes, name: str) -> bytes | None:
    """One file of an archive made here; None where it holds no such file."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return opened.read(name) if name in opened.namelist() else None
