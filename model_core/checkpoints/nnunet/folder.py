"""Where the parts of a trained nnU-Net lie on disk.

::

    Dataset137_BraTS2021/                                the parent, one folder for each training
        nnUNetTrainerSegMamba__nnUNetPlans__3d_fullres/  the results folder
            dataset.json  plans.json
            fold_0/ … fold_4/ fold_all/
                checkpoint_final.pth  checkpoint_best.pth  validation/summary.json
            crossval_results_folds_0_1_2_3_4/postprocessing.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from model_core.errors import OptionError

Which = Literal["final", "best"]

_DEFAULT_FOLDS: Final = ("all", "0")
"""A bundle holds one set of weights: those of all cases if there are any, else the first fold's."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """A results folder and the one checkpoint that is to be taken from it."""

    folder: Path
    fold: str
    """``all`` or a number."""
    which: Which
    checkpoint: Path
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]

    @property
    def postprocessing(self) -> tuple[Path, ...]:
        """Every description of corrections that cross-validation left here, most folds last."""
        found = self.folder.glob("crossval_results_folds_*/postprocessing.json")
        return tuple(sorted(found, key=lambda path: (path.parent.name.count("_"), str(path))))

    @property
    def summary(self) -> Path:
        """nnU-Net's own scores of this fold's validation cases."""
        return self.folder / f"fold_{self.fold}" / "validation" / "summary.json"


def find_results(path: Path, *, fold: str | None = None, which: Which | None = None) -> Results:
    """The results folder at `path` (or the only one in it) and its checkpoint.

    Args:
        path: the results folder or its parent.
        fold: ``all`` or a number; None takes ``all`` if it was trained, else 0.
        which: None takes the final checkpoint if the training has ended, else the best one so far.

    Raises:
        OptionError: no trained network there, several of them, or no such fold or checkpoint.
    """
    folder = _results_folder(path)
    found = _checkpoints(folder, which)
    if not found:
        raise OptionError(
            "results",
            expected=f"a fold with {' or '.join(f'checkpoint_{w}.pth' for w in _order(which))}",
            got="none",
            way_out="Train a fold with nnUNetv2_train first, or name the other --checkpoint.",
        )
    wanted = (fold.removeprefix("fold_"),) if fold is not None else _DEFAULT_FOLDS
    chosen = next((name for name in wanted if name in found), None)
    if chosen is None:
        raise OptionError(
            "fold",
            expected=f"one that was trained: {', '.join(sorted(found))}",
            got=" or ".join(wanted),
            way_out="Name a fold: --fold N. A bundle holds the weights of one fold.",
        )
    taken = next(w for w in _order(which) if (folder / f"fold_{chosen}" / _file(w)).is_file())
    return Results(
        folder=folder,
        fold=chosen,
        which=taken,
        checkpoint=folder / f"fold_{chosen}" / _file(taken),
        plans=read_json(folder / "plans.json"),
        dataset=read_json(folder / "dataset.json"),
    )


def read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object.

    Raises:
        OptionError: the file is missing or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _bad_file(path, error.strerror or "a file that cannot be read") from error
    except (ValueError, RecursionError) as error:
        raise _bad_file(path, f"something else ({error})") from error
    if not isinstance(content, dict):
        raise _bad_file(path, f"a {type(content).__name__}")
    return content


def _bad_file(path: Path, got: str) -> OptionError:
    return OptionError(
        path.name, expected="a JSON object", got=got, way_out="Copy the whole results folder again."
    )


def _results_folder(path: Path) -> Path:
    if _is_results(path):
        return path
    inside = [folder for folder in sorted(path.iterdir()) if _is_results(folder)]
    if len(inside) == 1:
        return inside[0]
    raise OptionError(
        "results",
        expected="a results folder of nnU-Net (with plans.json and dataset.json) or its parent",
        got=f"{len(inside)} of them: {', '.join(f.name for f in inside)}" if inside else "another",
        way_out="Name one of them."
        if inside
        else "It is called …/nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION.",
    )


def _is_results(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("plans.json", "dataset.json"))


def _checkpoints(folder: Path, which: Which | None) -> set[str]:
    """The folds that hold a checkpoint to take."""
    files = {_file(w) for w in _order(which)}
    return {
        fold.name.removeprefix("fold_")
        for fold in folder.glob("fold_*")
        if any((fold / name).is_file() for name in files)
    }


def _order(which: Which | None) -> tuple[Which, ...]:
    return ("final", "best") if which is None else (which,)


def _file(which: Which) -> str:
    return f"checkpoint_{which}.pth"
