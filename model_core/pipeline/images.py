"""Four images, each on its own grid, whatever they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from model_core.errors import StudyError
from model_core.imaging.nifti import ReadLimits, read_nifti
from model_core.imaging.study import check_complete, read_images
from model_core.imaging.volume import Volume
from model_core.types import CONTRASTS, Contrast

if TYPE_CHECKING:
    from model_core.dicom.limits import DicomLimits
    from model_core.dicom.series import Series
    from model_core.recognition.choose import Choice

Begin = Callable[[Contrast], None]
"""Told which image is read from now on."""
_INSPECT: Final = "Inspect the study, which lists every series, and name the right one."


@dataclass(frozen=True, eq=False, kw_only=True)
class Images:
    """What was read of a study.

    Attributes:
        volumes: every contrast, on any grid.
        series: the DICOM series of each; empty for NIfTI.
        warnings: what was odd and tolerated, for people.
    """

    volumes: Mapping[Contrast, Volume]
    series: Mapping[Contrast, Series] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_complete(self.volumes)


def images_of_nifti(
    sources: Mapping[Contrast, Path | bytes],
    *,
    limits: ReadLimits | None = None,
    begin: Begin | None = None,
) -> Images:
    """Read four NIfTI files.

    Args:
        sources: a path or the file's bytes for each contrast.
        limits: what is still accepted of each file.
        begin: told before every image; they are then read one after the other, else side by side.

    Raises:
        StudyError: a contrast is missing.
        ImageError: a file is unusable; names the contrast.
    """
    check_complete(sources)
    limits = limits or ReadLimits()
    if begin is None:
        return Images(volumes=read_images(sources, limits))
    volumes: dict[Contrast, Volume] = {}
    for contrast in CONTRASTS:
        begin(contrast)
        volumes[contrast] = read_nifti(sources[contrast], argument=contrast, limits=limits)
    return Images(volumes=volumes)


def images_of_dicom(
    files: Sequence[Path],
    *,
    override: Mapping[Contrast, str] | None = None,
    limits: DicomLimits | None = None,
    begin: Begin = lambda _: None,
) -> Images:
    """Choose a series for every contrast among DICOM files, and read these four.

    Args:
        files: of one study, in any order; see `model_core.dicom.gather`.
        override: contrast → uid of the series that the caller wants for it.
        limits: what is still accepted.
        begin: told before every image.

    Raises:
        ImageError: a file, or a chosen series, is unusable; two series share one UID.
        StudyError: there is no series for a contrast; names it.
        OptionError: the override names a series that is not there.
    """
    from model_core.dicom.limits import DEFAULT_LIMITS
    from model_core.dicom.series import list_series
    from model_core.dicom.volume import read_series
    from model_core.recognition.picture import suspect
    from model_core.recognition.select import select

    limits = limits or DEFAULT_LIMITS
    listed = list_series(files, limits=limits)
    found = _by_uid(listed)
    choice = select(listed, override)
    _refuse_missing(choice)
    chosen = {contrast: found[uid] for contrast, uid in choice.chosen.items()}
    volumes: dict[Contrast, Volume] = {}
    for contrast in CONTRASTS:
        begin(contrast)
        volumes[contrast] = read_series(chosen[contrast], argument=contrast, limits=limits)
    warnings = (*choice.warnings, *_doubts(choice), *suspect(volumes).suspicions)
    return Images(volumes=volumes, series=chosen, warnings=warnings)


def _by_uid(listed: Sequence[Series]) -> dict[str, Series]:
    from model_core.dicom.limits import refuse

    found = {series.uid: series for series in listed}
    if len(found) < len(listed):
        raise refuse(
            "series whose UIDs are unique (PS3.3 C.7.3.1)",
            "one UID in two studies",
            "Hand over one study at a time.",
        )
    return found


def _refuse_missing(choice: Choice) -> None:
    if not choice.missing:
        return
    first = choice.missing[0]
    raise StudyError(
        first,
        expected="one series of every contrast",
        got=f"none that is recognised as {', '.join(choice.missing)}",
        way_out=f"{_INSPECT} None can be replaced by another.",
    )


def _doubts(choice: Choice) -> list[str]:
    return [
        f"{contrast}: which series this is was not certain. {_INSPECT}"
        for contrast in choice.uncertain
    ]
