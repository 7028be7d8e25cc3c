"""The folder that predictions go to: taken over safely, its summary always whole.

Label maps of one folder have one origin. Results of the same weights and passes are kept and added
to; anything else is refused, or replaced where that is asked for and the folder is one of ours. A
label map is kept only for the images that it was made from: ``sources`` in the summary tells.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from model_core.errors import OptionError
from model_core.imaging.atomic import write_atomically
from training.data.dataset import CaseFiles, Dataset
from training.judge.results import CORRECTED, RAW, SCHEMA, Results

PICTURES_FOLDER: Final = "pictures"
SUMMARY: Final = "summary.json"
_NETWORK: Final = ("weights", "tta", "passes")
"""The settings that decide the raw label maps."""


def take_folder(out: Path, settings: Mapping[str, Any], *, overwrite: bool) -> dict[str, str]:
    """Make the folder ready for results of these settings.

    Args:
        out: may be missing, empty, or hold earlier results.
        settings: of `training.judge.results.Results`.
        overwrite: remove earlier label maps instead of keeping them.

    Returns:
        the `Results.sources` of the label maps that are kept.

    Raises:
        OptionError: label maps of other settings (without `overwrite`), or of unknown origin.
    """
    before = read_summary(out)
    earlier = (before or {}).get("settings", {})
    other = any(earlier.get(name) != settings[name] for name in _NETWORK)
    if other and _holds_files(out / RAW) and (before is None or not overwrite):
        raise _taken(ours=before is not None)
    if before is not None and overwrite:
        for folder in (RAW, CORRECTED, PICTURES_FOLDER):
            shutil.rmtree(out / folder, ignore_errors=True)
    if before is not None and earlier.get("corrections") != settings["corrections"]:
        shutil.rmtree(out / CORRECTED, ignore_errors=True)  # those of other steps
    (out / RAW).mkdir(parents=True, exist_ok=True)
    return {} if other or overwrite else dict((before or {}).get("sources", {}))


def source_of(case: CaseFiles, dataset: Dataset) -> str:
    """What a case's raw label map is made from: its images' content, and how they are read.

    Raises:
        OSError: an image that cannot be read.
    """
    digests = []
    for path in case.images:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    channels = case.channels or dataset.task.channels
    described = json.dumps([digests, channels, sorted(dataset.values.items())])
    return hashlib.sha256(described.encode()).hexdigest()


def read_summary(out: Path) -> dict[str, Any] | None:
    """The summary of earlier results; None where there is none of ours."""
    try:
        content = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("schema") == SCHEMA else None


def write_summary(out: Path, results: Results) -> None:
    """Write ``summary.json``: whole, or not at all."""
    text = json.dumps(results.to_json(), indent=2, allow_nan=False)
    write_atomically(out / SUMMARY, f"{text}\n".encode())


def _holds_files(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _taken(*, ours: bool) -> OptionError:
    return OptionError(
        "out",
        expected="an empty folder, or results of the same weights and --tta",
        got="results of other settings" if ours else "label maps of unknown origin",
        way_out="Choose another folder" + (", or replace all in it: --overwrite." if ours else "."),
    )
