"""Which predicted label map belongs to which truth: by *case name*.

That is the file's name without its ending (``.nii``, ``.nii.gz``, ``.png``) and without a final
``_seg`` or ``-seg`` (BraTS 2021, BraTS 2023, nnU-Net); a file called only ``seg`` takes the name of
its folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_core.errors import InputError

NIFTI: Final = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
NIFTI_OR_PNG: Final = re.compile(r"\.(nii(\.gz)?|png)$", re.IGNORECASE)
_TRUTH_MARK: Final = re.compile(r"(^|[-_])seg$", re.IGNORECASE)
_CONTRAST: Final = re.compile(r"[-_](t1|t1ce|t2|flair|t1n|t1c|t2w|t2f)$", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """One case: its name and its two files."""

    name: str
    prediction: Path
    truth: Path


def find_pairs(
    prediction: Path, truth: Path, endings: re.Pattern[str] = NIFTI
) -> tuple[list[Pair], dict[str, list[str]]]:
    """Match predictions and truths by case name; two files are a pair whatever their names.

    Args:
        prediction: a label map, or a folder of them.
        truth: likewise.
        endings: what label maps' names end in, `NIFTI` or `NIFTI_OR_PNG`.

    Returns:
        pairs: in the order of their names.
        unmatched: the case names left over, under ``predictions`` and ``truths``.

    Raises:
        InputError: a path is missing, a case occurs twice, or nothing matches.
    """
    predictions = label_files(prediction, "prediction", endings)
    truths = label_files(truth, "truth", endings)
    if prediction.is_file() and truth.is_file():
        return [Pair(next(iter(truths)), prediction, truth)], {}
    common = sorted(predictions.keys() & truths.keys())
    if not common:
        raise InputError(
            "prediction",
            expected="label maps whose case names occur among the truths",
            got=f"none in common (predictions: {len(predictions)}, truths: {len(truths)})",
            way_out="Name both after the case: CASE_seg.nii.gz, CASE-seg.nii.gz or CASE.nii.gz.",
        )
    unmatched = {
        "predictions": sorted(predictions.keys() - truths.keys()),
        "truths": sorted(truths.keys() - predictions.keys()),
    }
    return [Pair(name, predictions[name], truths[name]) for name in common], unmatched


def label_files(path: Path, argument: str, endings: re.Pattern[str]) -> dict[str, Path]:
    """Label maps by case name: the file itself, or those of a folder and its direct subfolders."""
    if path.is_file():
        return {_case_name(path): path}
    if not path.is_dir():
        raise InputError(
            argument,
            expected="a label map or a folder",
            got="neither",
            way_out="Check the path.",
        )
    files = [file for file in (*path.glob("*"), *path.glob("*/*")) if _may_be_labels(file, endings)]
    if not files:
        raise InputError(
            argument,
            expected="a folder with label maps (.nii, .nii.gz)",
            got="none in it or in its direct subfolders",
            way_out="Hand over the folder that holds the label maps or the case folders.",
        )
    return _by_case(files, argument)


def _by_case(files: list[Path], argument: str) -> dict[str, Path]:
    """One file per case; one marked ``_seg`` goes before one that only bears the case's name."""
    marked = [file for file in files if _TRUTH_MARK.search(_stem(file))]
    chosen: dict[str, Path] = {}
    for group in (marked, [file for file in files if file not in set(marked)]):
        found: dict[str, Path] = {}
        for file in sorted(group):
            if found.setdefault(_case_name(file), file) is not file:
                raise InputError(
                    argument,
                    expected="one label map per case",
                    got="two for the same case name",
                    way_out="Keep one of them in the folder, or hand over a more specific folder.",
                )
        chosen = found | chosen
    return chosen


def _may_be_labels(file: Path, endings: re.Pattern[str]) -> bool:
    if file.name.startswith(".") or not endings.search(file.name) or not file.is_file():
        return False
    # nnU-Net keeps its contrasts (CASE_0000 …) in imagesTr and imagesTs
    return not (_CONTRAST.search(_stem(file)) or file.parent.name.startswith("images"))


def _case_name(file: Path) -> str:
    return _TRUTH_MARK.sub("", _stem(file)) or file.absolute().parent.name


def _stem(file: Path) -> str:
    return NIFTI_OR_PNG.sub("", file.name)
