"""All files of an answer under fixed names, and one archive of them."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from model_core.types import CONTRASTS, Contrast

if TYPE_CHECKING:
    from model_core.imaging.volume import Volume
    from model_core.pipeline.answer import Answer
    from model_core.pipeline.objects import DicomObjects
    from model_core.preparation.prepared import PreparedStudy
    from model_core.provenance.manifest import RunManifest

LABEL_MAP: Final = "segmentation.nii.gz"
SEG: Final = "segmentation.dcm"
SR: Final = "measurements.dcm"
REPORT: Final = "report.json"
TABLE: Final = "statistics.csv"
MANIFEST: Final = "run.json"
PAGE: Final = "report.html"
DISAGREEMENT: Final = "disagreement.nii.gz"
IMAGES: Final[Mapping[Contrast, str]] = MappingProxyType(
    {contrast: f"{contrast}.nii.gz" for contrast in CONTRASTS}
)
MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        LABEL_MAP: "application/gzip",
        SEG: "application/dicom",
        SR: "application/dicom",
        REPORT: "application/json",
        TABLE: "text/csv",
        MANIFEST: "application/json",
        PAGE: "text/html",
        **dict.fromkeys((*IMAGES.values(), DISAGREEMENT), "application/gzip"),
    }
)
OBJECT_NAMES: Final = tuple(MEDIA_TYPES)
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def result_files(
    answer: Answer,
    manifest: RunManifest,
    objects: DicomObjects | None,
    *,
    prepared: PreparedStudy,
    card: Mapping[str, Any],
    images: bool = False,
) -> dict[str, bytes]:
    """Every file of a run by its name.

    Args:
        answer: of the run.
        manifest: its account.
        objects: of DICOM, where it began from DICOM.
        prepared: the study that was segmented, for pictures and images.
        card: of the model.
        images: whether the contrasts are kept beside the label map, and where several passes
            voted, how many voted otherwise.
    """
    from model_core.findings import to_csv
    from model_core.pipeline.image_files import image_files, on_label_map
    from model_core.report.pictures import SHOWN

    shown = on_label_map(prepared, CONTRASTS if images else SHOWN)
    found = {
        LABEL_MAP: answer.label_map,
        REPORT: (json.dumps(answer.report(), indent=2) + "\n").encode(),
        TABLE: to_csv({"study": answer.statistics}).encode(),
        MANIFEST: manifest.to_json().encode(),
        PAGE: _page(answer, manifest, shown, card).encode(),
    }
    if objects is not None:
        found |= {SEG: objects.seg, SR: objects.sr}
    if images:
        found |= image_files(shown, answer.segmentation)
    return found


def _page(
    answer: Answer,
    manifest: RunManifest,
    images: Mapping[Contrast, Volume],
    card: Mapping[str, Any],
) -> str:
    from model_core.imaging.volume import Volume
    from model_core.report.account import Account
    from model_core.report.study import study_report

    result = answer.segmentation
    account = Account(run=manifest.model_dump(mode="json"), report=answer.report(), card=card)
    labels = Volume(result.labels, result.native.affine)
    return study_report(labels, images, account, statistics=answer.statistics)


def archive_of(files: Mapping[str, bytes]) -> bytes:
    """One zip archive; the same files give the same bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            packing = zipfile.ZIP_STORED if name.endswith(".gz") else zipfile.ZIP_DEFLATED
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, packing)
    return packed.getvalue()


def file_of(archive: bytes, name: str) -> bytes | None:
    """One file of an archive made here; None where it holds no such file."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return opened.read(name) if name in opened.namelist() else None
