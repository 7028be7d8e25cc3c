"""Segment brain tumours in MRI studies: read four contrasts, run a network, write a label map.

::

    from model_core import Segmenter, load_bundle, load_study

    study = load_study({"t1": t1, "t1ce": t1ce, "t2": t2, "flair": flair})
    result = Segmenter(load_bundle("segmamba-small")).segment(study)
    path.write_bytes(result.encode())

This page is the door: the names below are the supported Python interface. They are imported when
first used, so that ``import model_core`` costs nothing and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version as _distribution_version
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from model_core.checkpoints import Bundle, ModelCard, load_bundle
    from model_core.errors import InputError, SegMambaError
    from model_core.imaging.study import Study, find_studies, load_study
    from model_core.imaging.volume import Volume
    from model_core.inference.segmenter import Segmentation, Segmenter, SegmentOptions
    from model_core.metrics.evaluate import evaluate_case

    __version__: str

__all__ = [
    "Bundle",
    "InputError",
    "ModelCard",
    "SegMambaError",
    "SegmentOptions",
    "Segmentation",
    "Segmenter",
    "Study",
    "Volume",
    "__version__",
    "evaluate_case",
    "find_studies",
    "load_bundle",
    "load_study",
]

_HOMES: Final = {
    "Bundle": "model_core.checkpoints",
    "InputError": "model_core.errors",
    "ModelCard": "model_core.checkpoints",
    "SegMambaError": "model_core.errors",
    "SegmentOptions": "model_core.inference.segmenter",
    "Segmentation": "model_core.inference.segmenter",
    "Segmenter": "model_core.inference.segmenter",
    "Study": "model_core.imaging.study",
    "Volume": "model_core.imaging.volume",
    "evaluate_case": "model_core.metrics.evaluate",
    "find_studies": "model_core.imaging.study",
    "load_bundle": "model_core.checkpoints",
    "load_study": "model_core.imaging.study",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _distribution_version("segmamba-service")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
