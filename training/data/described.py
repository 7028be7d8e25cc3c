"""Data sets with a ``dataset.json``: nnU-Net's raw format and the Medical Segmentation Decathlon.

nnU-Net (version 2, and version 1's naming of files): ``imagesTr/CASE_0000.nii.gz`` with one file
a channel, ``labelsTr/CASE.nii.gz``, ``imagesTs``; pictures (``.png``, ``.bmp``, ``.tif``) may hold
all colour channels in one file. Decathlon: one 4-D file a case, listed under ``training``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from training.data.dataset import CaseFiles, Dataset
from training.data.declared import bad_description, declared_task, read_description
from training.data.problem import Problem
from training.task import Task

DESCRIPTION: Final = "dataset.json"
PICTURES: Final = (".png", ".bmp", ".tif", ".tiff")
_NIFTI: Final = (".nii.gz", ".nii")


def find_described(root: Path) -> Dataset | None:
    """The data set of a folder with a ``dataset.json``, or None without one.

    Raises:
        StudyError: the description cannot be used; says what it lacks.
        OptionError: labels that this project does not train with (``ignore``).
    """
    if not (root / DESCRIPTION).is_file():
        return None
    content = read_description(root / DESCRIPTION)
    task, values = declared_task(content)
    decathlon = "channel_names" not in content and _is_decathlon(root, content)
    found = _decathlon(root, content, task) if decathlon else _nnunet(root, content, task)
    training, test, problems = found
    return Dataset(
        name=root.resolve().name,
        layout="msd" if decathlon else "nnunet",
        task=task,
        values=values,
        training=training,
        test=test,
        problems=(*problems, *_count(content, training)),
    )


def numbered_cases(folder: Path, ending: str, channels: Sequence[str]) -> list[CaseFiles]:
    """Cases of ``CASE_0000…`` files in one folder, without truth, sorted by name.

    A channel that is missing is named where it should be; a single picture may hold them all.
    """
    pattern = re.compile(rf"^(?P<case>.+)_(?P<number>\d{{4}}){re.escape(ending)}$")
    files = folder.iterdir() if folder.is_dir() else ()
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(files):
        named = pattern.match(path.name)
        if named and not path.name.startswith("."):
            found.setdefault(named["case"], {})[int(named["number"])] = path
    return [
        CaseFiles(
            name=name,
            images=_images(folder, name, numbers, ending, len(channels)),
            channels=tuple(channels),
        )
        for name, numbers in sorted(found.items())
    ]


def _images(
    folder: Path, name: str, numbers: Mapping[int, Path], ending: str, channels: int
) -> tuple[Path, ...]:
    if ending in PICTURES and list(numbers) == [0]:
        return (numbers[0],)
    count = max(channels, max(numbers) + 1)
    return tuple(folder / f"{name}_{number:04d}{ending}" for number in range(count))


# ---------------------------------------------------------------- files


_Found = tuple[tuple[CaseFiles, ...], tuple[CaseFiles, ...], list[Problem]]
"""Training cases, test cases and what is wrong."""


def _nnunet(root: Path, content: Mapping[str, Any], task: Task) -> _Found:
    ending = str(content.get("file_ending", ".nii.gz"))
    if ending not in (*_NIFTI, *PICTURES):
        raise bad_description(
            "file_ending", f"one of {', '.join((*_NIFTI, *PICTURES))}", repr(ending)
        )
    if isinstance(content.get("dataset"), dict):
        return _listed(root, content["dataset"], task), _tests(root, ending, task), []
    images = numbered_cases(root / "imagesTr", ending, task.channels)
    training = tuple(_labelled(case, root / "labelsTr", ending) for case in images)
    names = {case.name for case in training}
    problems = [
        Problem(case=name, kind="missing-channel", text="a label map, but no image in imagesTr")
        for name in _names_in(root / "labelsTr", ending)
        if name not in names
    ]
    test = _tests(root, ending, task)
    problems += [
        Problem(case=case.name, kind="duplicate", text="in imagesTr and in imagesTs")
        for case in test
        if case.name in names
    ]
    return training, test, problems


def _tests(root: Path, ending: str, task: Task) -> tuple[CaseFiles, ...]:
    cases = numbered_cases(root / "imagesTs", ending, task.channels)
    known = set(_names_in(root / "labelsTs", ending))
    return tuple(
        _labelled(case, root / "labelsTs", ending) if case.name in known else case for case in cases
    )


def _labelled(case: CaseFiles, folder: Path, ending: str) -> CaseFiles:
    label = folder / f"{case.name}{ending}"
    return CaseFiles(name=case.name, images=case.images, label=label, channels=case.channels)


def _names_in(folder: Path, ending: str) -> list[str]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [
        path.name.removesuffix(ending)
        for path in files
        if path.name.endswith(ending) and not path.name.startswith(".")
    ]


def _listed(root: Path, entries: Mapping[str, Any], task: Task) -> tuple[CaseFiles, ...]:
    """Cases that the description lists one by one (nnU-Net's ``dataset`` entry)."""
    try:
        return tuple(
            CaseFiles(
                name=name,
                images=tuple(root / image for image in entries[name]["images"]),
                label=root / entries[name]["label"],
                channels=task.channels,
            )
            for name in sorted(entries)
        )
    except (KeyError, TypeError) as error:
        raise bad_description(
            "dataset", '{"CASE": {"images": [files], "label": file}}', "another"
        ) from error


def _is_decathlon(root: Path, content: Mapping[str, Any]) -> bool:
    """Whether the listed files are there; nnU-Net 1 lists names without the channel's number."""
    listed = content.get("training")
    if not isinstance(listed, list) or not listed:
        return False
    return (root / str(dict(listed[0]).get("image", ""))).is_file()


def _decathlon(root: Path, content: Mapping[str, Any], task: Task) -> _Found:
    try:
        pairs = [(Path(one["image"]), Path(one["label"])) for one in content["training"]]
        tests = [Path(one) for one in content.get("test", [])]
    except (KeyError, TypeError) as error:
        raise bad_description(
            "training", '[{"image": file, "label": file}]', "another form"
        ) from error
    training = [_four_d(root, image, label, task) for image, label in pairs]
    test = [_four_d(root, image, None, task) for image in tests]
    return _by_name(training), _by_name(test), _twice([*training, *test])


def _four_d(root: Path, image: Path, label: Path | None, task: Task) -> CaseFiles:
    name = image.name.removesuffix(".gz").removesuffix(".nii")
    truth = root / label if label else None
    return CaseFiles(name=name, images=(root / image,), label=truth, channels=task.channels)


def _by_name(cases: Sequence[CaseFiles]) -> tuple[CaseFiles, ...]:
    return tuple(sorted(cases, key=lambda case: case.name))


def _twice(cases: Sequence[CaseFiles]) -> list[Problem]:
    names = [case.name for case in cases]
    return [
        Problem(case=name, kind="duplicate", text=f"listed {names.count(name)} times")
        for name in sorted(set(names))
        if names.count(name) > 1
    ]


def _count(content: Mapping[str, Any], training: Sequence[CaseFiles]) -> list[Problem]:
    said = content.get("numTraining")
    if not isinstance(said, int) or said == len(training):
        return []
    text = f"numTraining is {said}, but there are {len(training)} training cases"
    return [Problem(case="", kind="description", text=text, error=False)]
