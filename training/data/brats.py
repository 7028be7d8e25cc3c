"""BraTS folders: cases told by the names of their files, convention and split by the layout.

========================  ==================================  =================
naming                    one case                            values of the truth
========================  ==================================  =================
BraTS 2021 and before     ``CASE_{t1,t1ce,t2,flair,seg}``     1 NCR, 2 ED, 4 ET
BraTS 2023                ``CASE-{t1n,t1c,t2w,t2f,seg}``      1 NCR, 2 ED, 3 ET
========================  ==================================  =================

``.nii`` or ``.nii.gz``, in folders of their own or side by side. ``train/`` and ``val/`` (and
``test/``) are the split; so is ``split.json`` with the lists ``training`` and ``validation``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from model_core.errors import OptionError, StudyError
from model_core.imaging.declared import SPELLED
from model_core.imaging.study_files import CONTRAST_NAMES
from model_core.types import CONTRASTS
from training.data.dataset import CaseFiles, Dataset
from training.data.problem import Problem
from training.task import BRATS

Convention = Literal["brats2021", "brats2023"]
VALUES: Final[Mapping[Convention, Mapping[int, int]]] = {
    "brats2021": {0: 0, 1: 1, 2: 2, 4: 3},
    "brats2023": {0: 0, 1: 1, 2: 2, 3: 3},
}
_TRUTH: Final = "seg"
_FILE: Final = re.compile(
    rf"^(?:(?P<case>.+)[_-])?(?P<part>{'|'.join(CONTRAST_NAMES)}|{_TRUTH})\.nii(?:\.gz)?$",
    re.IGNORECASE,
)


@dataclass
class _Group:
    """Files of one case: part (a contrast or ``seg``) → its files."""

    files: dict[str, list[Path]] = field(default_factory=dict)
    spelled: set[str] = field(default_factory=set)


def find_brats(folder: Path, labels: Convention | None = None) -> Dataset | None:
    """The data set in a folder of BraTS cases, or None if there is no such file.

    Args:
        folder: cases, or ``train`` and ``val`` folders of cases.
        labels: the numbering of the truth; None: by the naming of the files.

    Raises:
        OptionError: the names follow no convention and `labels` is not given.
        StudyError: ``split.json`` names what is not there.
    """
    split = (folder / "train").is_dir() and (folder / "val").is_dir()
    parts = ("train", "val", "test") if split else (".",)
    groups = {part: _grouped(folder / part) for part in parts}
    if not any(groups.values()):
        return None
    convention = labels or _convention(groups.values())
    cases = {
        part: [_case(name, group, convention, part) for name, group in sorted(found.items())]
        for part, found in groups.items()
    }
    problems = [
        *(problem for found in groups.values() for problem in _twice_a_file(found)),
        *_twice_a_case(cases),
    ]
    training, validation, test = _divided(folder, cases)
    return Dataset(
        name=folder.resolve().name,
        layout="brats",
        task=BRATS,
        values=VALUES[convention],
        training=training,
        validation=validation,
        test=test,
        problems=tuple(problems),
    )


def _grouped(folder: Path) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    if not folder.is_dir():
        return groups
    inner = (entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    for place in (folder, *sorted(inner)):
        for path in sorted(place.iterdir()):
            named = _FILE.match(path.name)
            if named and path.is_file() and not path.name.startswith("."):
                part = named["part"].lower()
                group = groups.setdefault(named["case"] or place.name, _Group())
                group.files.setdefault(CONTRAST_NAMES.get(part, part), []).append(path)
                group.spelled.add(part)
    return {name: group for name, group in groups.items() if set(group.files) != {_TRUTH}}


def _convention(groups: Iterable[Mapping[str, _Group]]) -> Convention:
    every = [group for found in groups for group in found.values()]
    spelled = {part for group in every for part in group.spelled} - {_TRUTH}
    for convention, names in SPELLED.items():
        if spelled <= set(names):
            return convention
    raise OptionError(
        "labels",
        expected="files named t1, t1ce, t2, flair (BraTS 2021) or t1n, t1c, t2w, t2f (BraTS 2023)",
        got=f"{', '.join(sorted(spelled))}",
        way_out="Say how the label maps number enhancing tumour: --labels brats2021 (as 4) or "
        "--labels brats2023 (as 3).",
    )


def _case(name: str, group: _Group, convention: Convention, part: str) -> CaseFiles:
    sibling = next(iter(next(iter(group.files.values()))))
    images = (
        group.files[contrast][0] if contrast in group.files else _expected(sibling, spelled)
        for contrast, spelled in zip(CONTRASTS, SPELLED[convention], strict=True)
    )
    label = group.files[_TRUTH][0] if _TRUTH in group.files else None
    if label is None and part in ("train", "val"):
        label = _expected(sibling, _TRUTH)
    return CaseFiles(name=name, images=tuple(images), label=label, channels=CONTRASTS)


def _expected(sibling: Path, part: str) -> Path:
    """Where the missing file of a case would be."""
    named = _FILE.match(sibling.name)
    assert named, "only files that match are grouped"
    start, end = named.span("part")
    return sibling.with_name(sibling.name[:start] + part + sibling.name[end:])


def _twice_a_file(groups: Mapping[str, _Group]) -> list[Problem]:
    return [
        Problem(case=name, kind="duplicate", text=f"{len(paths)} files for {part}")
        for name, group in groups.items()
        for part, paths in group.files.items()
        if len(paths) > 1
    ]


def _twice_a_case(cases: Mapping[str, Sequence[CaseFiles]]) -> list[Problem]:
    seen: dict[str, str] = {}
    problems = []
    for part, found in cases.items():
        for case in found:
            if case.name in seen:
                text = f"in {seen[case.name]} and in {part}"
                problems.append(Problem(case=case.name, kind="duplicate", text=text))
            seen.setdefault(case.name, part)
    return problems


_Cases = tuple[CaseFiles, ...]


def _divided(
    folder: Path, cases: Mapping[str, Sequence[CaseFiles]]
) -> tuple[_Cases, _Cases, _Cases]:
    """Training, validation and test cases."""
    if "train" in cases:
        return tuple(cases["train"]), tuple(cases["val"]), tuple(cases["test"])
    labelled = tuple(case for case in cases["."] if case.label is not None)
    test = tuple(case for case in cases["."] if case.label is None)
    if not (folder / "split.json").is_file():
        return labelled, (), test
    training, validation = _listed(folder / "split.json")
    by_name = {case.name: case for case in labelled}
    unknown = [name for name in (*training, *validation) if name not in by_name]
    both = set(training) & set(validation)
    if unknown or both:
        raise StudyError(
            "split.json",
            expected="names of labelled cases in this folder, each in one list",
            got=f"{len(unknown)} others, {len(both)} in both lists",
            way_out="Name the cases as their files are named, in one list each.",
        )
    return (
        tuple(by_name[name] for name in sorted(training)),
        tuple(by_name[name] for name in sorted(validation)),
        test,
    )


def _listed(path: Path) -> tuple[list[str], list[str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        training, validation = content["training"], content["validation"]
        if all(isinstance(name, str) for name in (*training, *validation)):
            return list(training), list(validation)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise StudyError(
        "split.json",
        expected='{"training": [names], "validation": [names]}',
        got="something else",
        way_out="Write the two lists, or remove the file to have the cases split by fold.",
    )
