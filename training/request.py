"""What a user asks for besides the config: which data, which fold, and where results go.

The request is kept beside the runs as ``request.json`` so that ``--resume`` needs no second
``--data``. It holds folders of one machine; no report and no bundle takes anything from it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from model_core.errors import OptionError
from model_core.imaging.atomic import write_atomically
from training.data.dataset import Dataset
from training.data.find import PREPROCESSED_VARIABLE, Labels, load_dataset
from training.loop.options import RunOptions

Fold = int | Literal["all"]

REMEMBERED = ("data", "labels", "cache", "export", "synthesis", "fold", "folds")
"""What a continued run takes from ``request.json`` where the command does not say it again."""
_FOLDERS = ("data", "cache", "export", "synthesis")


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """Where the data is and where the results go."""

    data: Path
    results: Path
    name: str
    labels: Labels = "auto-declared"
    """How BraTS label maps number enhancing tumour, where the files' names do not say it."""
    validation: tuple[str, ...] = ()
    """Names or unique endings of the validation cases."""
    fold: Fold | None = None
    """Which fold of a cross-validation is validated on; ``all``: each in turn."""
    folds: int = 5
    plan: Path | None = None
    """File of `training.data.plan.Plan`."""
    initial: str | None = None
    """Run or bundle whose weights are the beginning (``--from``)."""
    synthesis: Path | None = None
    """Folder with ``labels/`` and ``masks/`` that synthetic studies are made from."""
    cache: Path | None = None
    """Folder of prepared cases, to be shared by runs; ``None``: inside the run."""
    export: Path | None = None
    """Where the bundle goes; ``None``: ``bundle`` inside the run."""
    options: RunOptions = field(default_factory=RunOptions)

    @property
    def root(self) -> Path:
        """Folder of the run, or of all its folds."""
        return self.results / self.name

    @property
    def place(self) -> tuple[Path, str]:
        """Results folder and name of the one run that this asks for."""
        if self.fold is None:
            return self.results, self.name
        return self.root, f"fold_{self.fold}"

    @property
    def title(self) -> str:
        """How the run is called while it runs: ``first`` or ``first/fold_2``."""
        return self.name if self.fold is None else f"{self.name}/{self.place[1]}"

    @property
    def shared_cache(self) -> Path:
        """Where prepared cases lie; the folds of one data set share them."""
        return self.cache or self.root / "cache"

    def dataset(self) -> Dataset:
        """The data set, found anew.

        Raises:
            StudyError: there is none.
        """
        return load_dataset(self.data, labels=self.labels)

    def at_home(self, dataset: Dataset) -> RunRequest:
        """The same request with the cache that ``nnUNet_preprocessed`` names, if none is given."""
        place = os.environ.get(PREPROCESSED_VARIABLE)
        if self.cache is not None or not place:
            return self
        return dataclasses.replace(self, cache=Path(place) / dataset.name / "segmamba")

    def of_fold(self, fold: int) -> RunRequest:
        """The same request for one of the folds."""
        return dataclasses.replace(self, fold=fold)

    def keep(self) -> None:
        """Write ``request.json`` into `root`; a fold of a whole cross-validation stays one."""
        values = {name: _plain(getattr(self, name)) for name in REMEMBERED}
        before = remembered(self.results, self.name)
        if (before.get("fold"), before.get("folds")) == ("all", self.folds):
            values["fold"] = "all"
        self.root.mkdir(parents=True, exist_ok=True)
        write_atomically(self.root / "request.json", (json.dumps(values, indent=2) + "\n").encode())


def remembered(results: Path, name: str) -> Mapping[str, Any]:
    """What `RunRequest.keep` wrote for a run, ready for `RunRequest`; empty if it is not there."""
    path = results / name / "request.json"
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise OptionError(
            "resume",
            expected="a readable request.json in the run's folder",
            got="a damaged one",
            way_out="Delete the file and name --data (and --fold) again.",
        ) from error
    known = {
        key: Path(value) if key in _FOLDERS else value
        for key, value in values.items()
        if key in REMEMBERED and value is not None
    }
    if "export" in known and known["export"].exists():
        del known["export"]  # written at the end of an earlier part: this one writes into the run
    return known


def _plain(value: object) -> object:
    return str(value.absolute()) if isinstance(value, Path) else value
