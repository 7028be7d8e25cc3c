"""One case as a MONAI program predicts it: its transforms, and its sliding-window inferer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers.inferer import SlidingWindowInferer
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import CropForegroundd
from monai.transforms.intensity.dictionary import NormalizeIntensityd
from monai.transforms.io.dictionary import LoadImaged
from monai.transforms.spatial.dictionary import Orientationd
from torch import Tensor, nn

_KEY: Final = "image"
_REGION_LABELS: Final = (2, 1, 3)
"""What WT, TC and ET write, in this order: later regions lie inside earlier ones."""


def not_zero(x: Tensor) -> Tensor:
    """Where a contrast has signal."""
    return x != 0


def read_case(images: Sequence[Path], orientation: str) -> Mapping[str, Any]:
    """The four contrasts, turned, normalised inside the brain and cropped to it."""
    read = Compose(
        [
            LoadImaged(keys=_KEY, reader="NibabelReader", ensure_channel_first=True),
            Orientationd(
                keys=_KEY, axcodes=orientation, labels=(("L", "R"), ("P", "A"), ("I", "S"))
            ),
            NormalizeIntensityd(keys=_KEY, nonzero=True, channel_wise=True),
            CropForegroundd(keys=_KEY, source_key=_KEY, select_fn=not_zero),
        ]
    )
    case: Mapping[str, Any] = read({_KEY: [str(path) for path in images]})
    return case


@torch.inference_mode()
def predict_case(
    network: nn.Module,
    images: Sequence[Path],
    label_map: Path,
    *,
    window: Sequence[int],
    orientation: str,
    heads: str,
) -> None:
    """Files to a label map file on the grid of the first image.

    Args:
        network: (1, 4, *window) to logits (1, K, *window).
        images: one file per contrast, in the network's order.
        label_map: the file to write.
        window: sides in the axes of ``orientation``.
        orientation: in which the network sees the head, e.g. ``"SPL"``.
        heads: ``"regions"`` (WT, TC, ET) or ``"labels"`` (background, NCR, ED, ET).
    """
    case = read_case(images, orientation)
    infer = SlidingWindowInferer(window, sw_batch_size=1, overlap=0.5, mode="gaussian")
    box = case[_KEY]
    scores: Tensor = infer(box[None].as_tensor(), network)[0]
    _write(_labels(scores, heads), case, images[0], label_map, orientation)


def _labels(scores: Tensor, heads: str) -> npt.NDArray[np.uint8]:
    if heads == "labels":
        return scores.argmax(0).to(torch.uint8).numpy()
    labels = torch.zeros(scores.shape[1:], dtype=torch.uint8)
    for score, label in zip(scores, _REGION_LABELS, strict=True):
        labels[score > 0] = label
    return labels.numpy()


def _write(
    labels: npt.NDArray[np.uint8],
    case: Mapping[str, Any],
    native: Path,
    label_map: Path,
    orientation: str,
) -> None:
    """Undo the crop and the turn, and write on the native grid."""
    nib: Any = import_module("nibabel")  # its functions are partly typed
    reference = nib.load(native)
    axes = nib.orientations
    there = axes.axcodes2ornt(tuple(orientation))
    here = axes.io_orientation(reference.affine)
    blank = np.zeros(reference.shape[:3], np.uint8)
    turned = axes.apply_orientation(blank, axes.ornt_transform(here, there))
    start = [int(i) for i in case["foreground_start_coord"]]
    end = [low + size for low, size in zip(start, labels.shape, strict=True)]
    turned[tuple(slice(low, high) for low, high in zip(start, end, strict=True))] = labels
    whole = axes.apply_orientation(turned, axes.ornt_transform(there, here))
    nib.save(nib.Nifti1Image(whole, reference.affine), label_map)
