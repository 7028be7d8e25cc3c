"""The two passes over every voxel between a network's scores and a label map.

`add_weighted` adds a window's scores to an image's sums; `labels_of` reads labels from sums. On a
CPU the native kernels do each in one pass, straight from the layout and the type that the network
left its scores in; elsewhere PyTorch does the same work.

A weighted mean is a sum divided by a positive weight, and a division by a positive number changes
neither which channel is the highest nor which is above 0. So labels are read from the sums.

Shape suffix legend: K channels, XYZ the spatial axes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Final, Literal

import torch
from torch import Tensor

from model_core.ops.backends import native_beside_scan
from model_core.ops.layout import call

Rule = Literal["highest", "nested"]
"""``highest``: the channel with the highest sum gives the label, the earlier one on a tie.
``nested``: each channel above 0 paints its label, but only inside the channel before it."""

_AXES: Final = 3


def add_weighted(sums: Tensor, scores: Tensor, weights: Tensor) -> bool:
    """Add ``scores × weights`` to `sums` in place.

    Args:
        sums: float32 (K, *spatial), a view of the image's sums where the window lies.
        scores: (K, *spatial) of any floating type and strides; left as it is.
        weights: float32 (*spatial), contiguous.

    Returns:
        Whether every score was finite; if not, `sums` is of no further use.
    """
    scores = scores.detach()
    if _native_takes(sums, scores, weights):
        return _add_native(sums, scores, weights)
    low, high = torch.aminmax(scores)  # NaN wins in both: no mask in memory
    sums.addcmul_(scores.float(), weights)
    return bool(torch.isfinite(low) & torch.isfinite(high))


def labels_of(
    sums: Tensor, rule: Rule, order: Sequence[int], values: Sequence[int]
) -> Tensor | None:
    """Labels from weighted sums (or from scores).

    Args:
        sums: float32 (K, X, Y, Z).
        rule: how channels become labels.
        order: channels in the order they are looked at.
        values: the label of each, in that order.

    Returns:
        uint8 (X, Y, Z) on the device of `sums`; None if a sum is NaN.
    """
    assert sorted(order) == list(range(len(sums))), "every channel once"
    if _native_takes(sums):
        return _labels_native(sums, rule, order, values)
    if bool(torch.isnan(sums).any()):
        return None
    labels = torch.zeros(sums.shape[1:], dtype=torch.uint8, device=sums.device)
    if rule == "nested":
        inside = torch.ones_like(labels, dtype=torch.bool)
        for channel, value in zip(order, values, strict=True):
            inside &= sums[channel] > 0
            labels.masked_fill_(inside, value)
        return labels
    best = sums[order[0]].clone()
    labels.fill_(values[0])
    for channel, value in zip(order[1:], values[1:], strict=True):
        labels.masked_fill_(sums[channel] > best, value)
        torch.maximum(best, sums[channel], out=best)
    return labels


# ---------------------------------------------------------------- native


class _BlendArguments(ctypes.Structure):
    """Mirror of ``BlendArguments`` in blend.cpp, field by field."""

    _fields_ = (
        ("channels", ctypes.c_int64),
        ("extent", ctypes.c_int64 * _AXES),
        ("scores", ctypes.c_void_p),
        ("scores_stride", ctypes.c_int64 * (_AXES + 1)),
        ("sums", ctypes.c_void_p),
        ("sums_stride", ctypes.c_int64 * (_AXES + 1)),
        ("weights", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("bfloat16", "threads", "finite")),
    )


class _DecodeArguments(ctypes.Structure):
    """Mirror of ``DecodeArguments`` in blend.cpp, field by field."""

    _fields_ = (
        ("channels", ctypes.c_int64),
        ("extent", ctypes.c_int64 * _AXES),
        ("sums", ctypes.c_void_p),
        ("sums_stride", ctypes.c_int64 * (_AXES + 1)),
        ("order", ctypes.POINTER(ctypes.c_int64)),
        ("values", ctypes.POINTER(ctypes.c_uint8)),
        ("labels", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("nested", "threads", "nan")),
    )


def _native_takes(
    sums: Tensor, scores: Tensor | None = None, weights: Tensor | None = None
) -> bool:
    if sums.device.type != "cpu" or sums.dtype != torch.float32 or sums.dim() != _AXES + 1:
        return False
    if 0 in sums.shape or sums.stride(-1) != 1:
        return False
    if scores is not None and scores.dtype not in (torch.float32, torch.bfloat16):
        return False
    if weights is not None and not weights.is_contiguous():
        return False
    return native_beside_scan()


def _add_native(sums: Tensor, scores: Tensor, weights: Tensor) -> bool:
    assert sums.shape == scores.shape
    assert sums.shape[1:] == weights.shape
    arguments = _BlendArguments(
        channels=len(sums),
        extent=tuple(sums.shape[1:]),
        scores=scores.data_ptr(),
        scores_stride=scores.stride(),
        sums=sums.data_ptr(),
        sums_stride=sums.stride(),
        weights=weights.data_ptr(),
        bfloat16=scores.dtype == torch.bfloat16,
        threads=torch.get_num_threads(),
    )
    call("segmamba_blend_add", arguments)
    return bool(arguments.finite)


def _labels_native(
    sums: Tensor, rule: Rule, order: Sequence[int], values: Sequence[int]
) -> Tensor | None:
    labels = torch.empty(sums.shape[1:], dtype=torch.uint8)
    arguments = _DecodeArguments(
        channels=len(sums),
        extent=tuple(sums.shape[1:]),
        sums=sums.data_ptr(),
        sums_stride=sums.stride(),
        order=(ctypes.c_int64 * len(order))(*order),
        values=(ctypes.c_uint8 * len(values))(*values),
        labels=labels.data_ptr(),
        nested=rule == "nested",
        threads=torch.get_num_threads(),
    )
    call("segmamba_decode", arguments)
    return None if arguments.nan else labels
