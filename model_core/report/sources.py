"""What a report is made of, found on the disk: a result's folder, its zip archive, or named files.

Names are those that a result's files have (`model_core.pipeline.files`): ``segmentation.nii.gz``,
``run.json``, ``report.json``, and ``t1.nii.gz`` to ``flair.nii.gz`` where images were kept.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from model_core.catalogue import find_versions
from model_core.errors import InputError
from model_core.imaging.nifti import read_label_map, read_nifti
from model_core.imaging.orientation import turn
from model_core.imaging.resample import LINEAR, resample
from model_core.imaging.volume import Volume
from model_core.labels import volumes_ml
from model_core.provenance.digests import voxels_sha256
from model_core.provenance.manifest import RunManifest, read_manifest
from model_core.report.account import Account
from model_core.types import CONTRASTS, Contrast

LABEL_MAP: Final = "segmentation.nii.gz"
RUN: Final = "run.json"
REPORT: Final = "report.json"
_LARGEST: Final = 2 * 2**30
"""Bytes of one file of an archive."""
_SAME_VOLUME: Final = 1e-4
"""Relative; headers keep spacings in single precision."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """Files that are named one by one; each takes the place of the one in the folder.

    Attributes:
        labels: the label map.
        images: contrasts.
        run: ``run.json``.
    """

    labels: Path | None = None
    images: Mapping[Contrast, Path] = field(default_factory=dict)
    run: Path | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """What was found of one result.

    Attributes:
        labels: internal labels, uint8.
        images: contrasts on the grid of the labels.
        account: of the run.
    """

    labels: Volume
    images: Mapping[Contrast, Volume]
    account: Account


def find(place: Path | None, named: Named, *, argument: str = "RESULT") -> Found:
    """Read a result.

    A ``report.json`` is used where it is known to be of the label map: beside a ``run.json`` of
    that map, or, for the folder's own map, where its volumes are those of the map. Otherwise it is
    left out, and a note says so.

    Args:
        place: its folder, its zip archive or its ``run.json``; None: only named files.
        named: files that are named one by one.
        argument: what the caller calls the place; used in errors.

    Raises:
        InputError: there is no label map, a file is unusable, or ``run.json`` is of another one.
        OSError: a file cannot be read.
    """
    if place is not None and place.suffix.lower() == ".json":
        named = Named(labels=named.labels, images=named.images, run=named.run or place)
        place = place.absolute().parent
    shelf = _shelf(place, argument)
    data = named.labels or shelf.get(LABEL_MAP)
    if data is None:
        raise InputError(
            argument,
            expected=f"a folder or zip archive that holds {LABEL_MAP}",
            got="none",
            way_out="Name the label map with --labels, or the folder of a result.",
        )
    array, volume = read_label_map(data, argument="labels")
    labels = Volume(array, volume.affine)
    images, notes = _images(shelf, named, labels)
    account = _account(named.run or shelf.get(RUN), array)
    if (source := shelf.get(REPORT)) is not None:
        report = _report(source)
        if account.run or (named.labels is None and _tells_of(report, labels)):
            account = replace(account, report=report)
        else:
            notes.append(f"{REPORT}: left out, as it may be of another label map.")
    return Found(labels=labels, images=images, account=replace(account, notes=tuple(notes)))


def _shelf(place: Path | None, argument: str) -> Mapping[str, Path | bytes]:
    """The files of a place that a report uses, by name."""
    wanted = (LABEL_MAP, RUN, REPORT, *(f"{contrast}.nii.gz" for contrast in CONTRASTS))
    if place is None:
        return {}
    if place.is_dir():
        return {name: place / name for name in wanted if (place / name).is_file()}
    try:
        with zipfile.ZipFile(place) as archive:
            listed = {one.filename: one for one in archive.infolist()}
            return {
                name: archive.read(name)
                for name in wanted
                if name in listed and listed[name].file_size <= _LARGEST
            }
    except zipfile.BadZipFile:
        raise InputError(
            argument,
            expected="a folder, a zip archive or a run.json",
            got="another file",
            way_out="Hand over the folder or the archive of a result.",
        ) from None


def _images(
    shelf: Mapping[str, Path | bytes], named: Named, labels: Volume
) -> tuple[dict[Contrast, Volume], list[str]]:
    found: dict[Contrast, Volume] = {}
    notes = []
    for contrast in CONTRASTS:
        source = named.images.get(contrast) or shelf.get(f"{contrast}.nii.gz")
        if source is None:
            continue
        image = read_nifti(source, argument=contrast)
        found[contrast], interpolated = _on_grid_of(labels, image)
        if interpolated:
            notes.append(
                f"{contrast}: laid on the grid of the label map by its header alone; if it was "
                "registered for the run, it may be out of place in the pictures."
            )
    return found, notes


def _on_grid_of(labels: Volume, image: Volume) -> tuple[Volume, bool]:
    turned = image.grid.reoriented(labels.axcodes)
    if turned.matches(labels.grid):
        return Volume(turn(image.array, image.axcodes, labels.axcodes), labels.affine), False
    return Volume(resample(image.array, image.grid, labels.grid, order=LINEAR), labels.affine), True


def _account(run: Path | bytes | None, labels: Any) -> Account:
    manifest = None if run is None else read_manifest(run)
    if manifest is not None and manifest.result.voxels_sha256 != voxels_sha256(labels):
        raise InputError(
            RUN,
            expected="the account of this label map",
            got="that of another one, or the label map was changed since",
            way_out="Hand over the run.json that lies beside the label map, or leave it out.",
        )
    return Account(
        run={} if manifest is None else manifest.model_dump(mode="json"),
        card={} if manifest is None else _card(manifest),
    )


def _tells_of(report: Mapping[str, Any], labels: Volume) -> bool:
    """Whether a report has the volumes of a label map."""
    said = report.get("volumes_ml")
    return isinstance(said, dict) and all(
        isinstance(said.get(name), int | float)
        and math.isclose(said[name], ml, rel_tol=_SAME_VOLUME)
        for name, ml in volumes_ml(labels.array, labels.grid.voxel_ml).items()
    )


def _report(source: Path | bytes) -> Mapping[str, Any]:
    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(
            REPORT,
            expected="the report of a run",
            got="something else",
            way_out="Hand over the report.json that a run wrote, or remove it from the folder.",
        )
    return content


def _card(manifest: RunManifest) -> Mapping[str, Any]:
    """The card of the model, if it is installed here in the very version that ran."""
    for one in find_versions().get(manifest.model.name, ()):
        if not one.fault and one.card["weights"]["sha256"] == manifest.model.weights_sha256:
            return one.card
    return {}
