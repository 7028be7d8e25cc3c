"""Looking at an input before anything is done with it: series, contrasts, images, what is missing.

`inspect_dicom` and `inspect_nifti` read headers, choose one series for each contrast, read those
four, and report (`model_core.recognition.report`). Nothing is changed and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from model_core.dicom.facts import SeriesFacts
from model_core.errors import ImageError
from model_core.imaging.nifti import ReadLimits, read_nifti
from model_core.imaging.skull import Skull, look_for_skull
from model_core.imaging.volume import Volume
from model_core.recognition.choose import Candidate, Choice, choose
from model_core.recognition.picture import suspect
from model_core.recognition.report import Inspection, SeriesReport, StudyReport
from model_core.recognition.rules import Verdict, judge
from model_core.recognition.select import candidate_of, select
from model_core.types import CONTRASTS, Contrast

if TYPE_CHECKING:
    from model_core.dicom.limits import DicomLimits
    from model_core.dicom.series import Series

_BY_CALLER = Verdict(None, 1.0, "named by the caller", uncertain=False)
_BY_FILE = Verdict(None, 1.0, "named by the file", uncertain=False)
_UNNAMED = Verdict(None, 0.0, "no name tells what it is", uncertain=True)


def inspect_dicom(
    files: Sequence[Path],
    *,
    override: Mapping[Contrast, str] | None = None,
    limits: DicomLimits | None = None,
) -> Inspection:
    """Look at DICOM files.

    Args:
        files: the files of one study, in any order; see `model_core.dicom.gather`.
        override: contrast → uid of the series that the caller wants for it.
        limits: what is still accepted of the files.

    Returns:
        The report; files of several studies are listed, and one study is chosen from.

    Raises:
        ImageError: a file is no usable DICOM file.
        OptionError: the override names a series that is not there.
    """
    from model_core.dicom.limits import DEFAULT_LIMITS
    from model_core.dicom.series import list_series
    from model_core.dicom.volume import read_series

    limits = limits or DEFAULT_LIMITS
    series = list_series(files, limits=limits)
    candidates = [candidate_of(entry) for entry in series]
    choice = select(series, override)
    read = _Reading({}, {})
    for contrast, uid in choice.chosen.items():
        entry = next(entry for entry in series if entry.uid == uid)
        read.take(contrast, uid, partial(read_series, entry, limits=limits))
    override = override or {}
    reports = tuple(
        _series_report(entry, candidate, choice, override, read)
        for entry, candidate in zip(series, candidates, strict=True)
    )
    studies = len({entry.study_uid for entry in series})
    return Inspection(kind="dicom", series=reports, study=_study_report(choice, read, studies))


def inspect_nifti(
    files: Mapping[Contrast, Path | bytes] | Mapping[int, Path | bytes],
    *,
    names: Mapping[int, str] | None = None,
    named_by_file: bool = False,
    limits: ReadLimits | None = None,
) -> Inspection:
    """Look at NIfTI files.

    Args:
        files: by contrast where the caller knows it, by any number where not.
        names: for numbers, the words of the file's name; they are judged, never repeated.
        named_by_file: the contrasts were read off the files' names, as `find_studies` does.
        limits: what is still accepted of each file.

    Returns:
        The report; the uid of a file is its position in ``files``, from 1.
    """
    read, limits = _Reading({}, {}), limits or ReadLimits()
    candidates, volumes = [], {}
    for position, (key, source) in enumerate(files.items(), start=1):
        uid = str(position)
        volume = read.attempt(uid, partial(read_nifti, source, argument=uid, limits=limits))
        if volume:
            volumes[uid] = volume
        verdict = _nifti_verdict(key, names or {}, _BY_FILE if named_by_file else _BY_CALLER)
        candidates.append(_nifti_candidate(uid, verdict, volume, read))
    choice = choose(candidates)
    read.volumes.update({contrast: volumes[uid] for contrast, uid in choice.chosen.items()})
    reports = tuple(
        _nifti_report(candidate, volumes.get(candidate.uid), choice, read)
        for candidate in candidates
    )
    return Inspection(kind="nifti", series=reports, study=_study_report(choice, read, 1))


@dataclass(frozen=True)
class _Reading:
    """The chosen volumes, and why others could not be read, by uid."""

    volumes: dict[Contrast, Volume]
    failures: dict[str, str]

    def take(self, contrast: Contrast, uid: str, reading: Callable[[], Volume]) -> None:
        volume = self.attempt(uid, reading)
        if volume:
            self.volumes[contrast] = volume

    def attempt(self, uid: str, reading: Callable[[], Volume]) -> Volume | None:
        try:
            return reading()
        except ImageError as error:
            self.failures[uid] = f"expected {error.expected}, got {error.got}"
            return None

    def problems(self, uid: str) -> tuple[str, ...]:
        return (self.failures[uid],) if uid in self.failures else ()


def _series_report(
    series: Series,
    candidate: Candidate,
    choice: Choice,
    override: Mapping[Contrast, str],
    read: _Reading,
) -> SeriesReport:
    verdict = candidate.verdict
    asked = next((c for c, uid in override.items() if uid == series.uid), None)
    if asked:
        verdict = replace(_BY_CALLER, contrast=asked)
    return SeriesReport(
        uid=series.uid,
        contrast=verdict.contrast,
        confidence=verdict.confidence,
        reason=verdict.reason,
        uncertain=verdict.uncertain,
        chosen=series.uid in choice.chosen.values(),
        shape=series.shape,
        spacing_mm=series.spacing_mm,
        orientation=series.axcodes,
        images=series.facts.images,
        problems=series.problems or read.problems(series.uid),
        warnings=series.warnings,
    )


def _nifti_verdict(key: Contrast | int, names: Mapping[int, str], named: Verdict) -> Verdict:
    if isinstance(key, str):
        return replace(named, contrast=key)
    return judge(SeriesFacts(description=names[key])) if names.get(key) else _UNNAMED


def _nifti_candidate(
    uid: str, verdict: Verdict, volume: Volume | None, read: _Reading
) -> Candidate:
    facts = SeriesFacts()
    if volume:
        facts = SeriesFacts(images=max(volume.shape), spacing_mm=volume.spacing_mm)
    return Candidate(uid=uid, facts=facts, verdict=verdict, problems=read.problems(uid))


def _nifti_report(
    candidate: Candidate, volume: Volume | None, choice: Choice, read: _Reading
) -> SeriesReport:
    verdict = candidate.verdict
    return SeriesReport(
        uid=candidate.uid,
        contrast=verdict.contrast,
        confidence=verdict.confidence,
        reason=verdict.reason,
        uncertain=verdict.uncertain,
        chosen=candidate.uid in choice.chosen.values(),
        shape=volume.shape if volume else None,
        spacing_mm=volume.spacing_mm if volume else None,
        orientation=volume.axcodes if volume else None,
        images=1 if volume else 0,
        problems=read.problems(candidate.uid),
        warnings=volume.warnings if volume else (),
    )


def _study_report(choice: Choice, read: _Reading, studies: int) -> StudyReport:
    volumes = {c: read.volumes[c] for c in CONTRASTS if c in read.volumes}
    complete = len(volumes) == len(CONTRASTS)
    steps = _steps(volumes) if complete else ("nothing: the study is not complete",)
    warnings = list(choice.warnings)
    if studies > 1:
        warnings.append(f"files of {studies} studies: the choice is from one of them")
    warnings += [f"{c}: {text}" for c, volume in volumes.items() for text in volume.warnings]
    return StudyReport(
        missing=choice.missing,
        uncertain=choice.uncertain,
        studies=studies,
        grids_equal=_grids_equal(volumes),
        skull=_skull(volumes),
        prepared=complete and steps == (_NOTHING,),
        suspicions=suspect(volumes).suspicions if len(volumes) > 1 else (),
        warnings=tuple(warnings),
        preparation=steps,
    )


_NOTHING = "nothing: one grid and no skull"


def _steps(volumes: Mapping[Contrast, Volume]) -> tuple[str, ...]:
    from model_core.preparation.needs import FIXED, needs

    lacks = needs(volumes)
    named = (
        (lacks.register, f"lay the contrasts on {FIXED} by rigid registration"),
        (lacks.resample, "bring the contrasts onto one grid of 1 mm"),
        (lacks.strip, "take the skull off"),
    )
    return tuple(words for needed, words in named if needed) or (_NOTHING,)


def _grids_equal(volumes: Mapping[Contrast, Volume]) -> bool | None:
    if len(volumes) < 2:
        return None
    first, *others = (volume.grid.reoriented("RAS") for volume in volumes.values())
    return all(first.matches(other) for other in others)


def _skull(volumes: Mapping[Contrast, Volume]) -> Skull:
    """Present where any shows it, stripped where all are; nothing else can be told."""
    seen = {look_for_skull(volume) for volume in volumes.values()}
    if "present" in seen:
        return "present"
    return "stripped" if seen == {"stripped"} else "unknown"
