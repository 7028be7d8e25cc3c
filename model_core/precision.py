"""In which arithmetic a network runs: which precision is chosen, and how it is switched on.

``float32`` is exact to about seven digits. ``bfloat16`` keeps two to three, halves the memory of
the images between the convolutions and is faster on processors with instructions for it; sums
within a convolution are float32 still. ``float16`` keeps three to four in the same space, but ends
at 65504, and runs on GPUs only. Only convolutions and plain linear layers change. Mamba
blocks, LayerNorm, the statistics of every norm, the loss and the blending of windows stay float32,
and so do the weights that are stored or trained.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Literal, get_args

from model_core.cpu import cpu_features
from model_core.errors import OptionError

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)
PRECISION_VARIABLE: Final = "SEGMAMBA_PRECISION"
AUTO: Final = "auto"

FAST_BFLOAT16: Final = ("amx_bf16", "avx512_bf16")
"""Instructions that make bfloat16 faster than float32 on a CPU, the faster ones first."""

Capability = tuple[int, int]
"""A CUDA device's compute capability, e.g. (8, 0)."""
_BFLOAT16_FROM: Final[Capability] = (8, 0)
_FLOAT16_FROM: Final[Capability] = (7, 0)
"""The first compute capabilities whose matrix units take these (CUDA C Programming Guide)."""


def resolve_precision(device: str | torch.device, requested: str | None = None) -> Precision:
    """The precision that a network runs in on `device`.

    Who decides, in this order: `requested`, the variable ``SEGMAMBA_PRECISION``, then the machine:
    on a CPU bfloat16 where it has instructions for it, on CUDA what its matrix units take
    (`precision_of_capability`), else float32. ``auto`` (or None) passes the choice on. A name is
    followed even where bfloat16 is emulated, which is slow and computes the same.

    Args:
        device: where the network runs.
        requested: ``auto``, ``float32``, ``bfloat16``, ``float16`` or None.

    Raises:
        OptionError: another name, or ``float16`` for a CPU, as the argument or in the variable.
    """
    kind = _kind(device)
    named = _named("precision", requested, kind)
    named = named or _named(PRECISION_VARIABLE, os.environ.get(PRECISION_VARIABLE), kind)
    if named is not None:
        return named
    if kind == "cpu":
        return "bfloat16" if fast_bfloat16() else "float32"
    return precision_of_capability(_capability(device)) if kind == "cuda" else "float32"


def precision_of_capability(capability: Capability | None) -> Precision:
    """bfloat16 from compute capability 8.0 on, float16 on 7.x, else float32; None: not known."""
    if capability is None or capability < _FLOAT16_FROM:
        return "float32"
    return "bfloat16" if capability >= _BFLOAT16_FROM else "float16"


def fast_bfloat16(features: Mapping[str, bool] | None = None) -> str | None:
    """The instructions that compute bfloat16 here, e.g. ``"amx_bf16"``; None: it is emulated."""
    features = cpu_features() if features is None else features
    return next((name for name in FAST_BFLOAT16 if features.get(name)), None)


def describe_precision(device: str | torch.device, precision: Precision) -> str:
    """`precision` with what a person should know about it on `device`.

    For example ``"bfloat16 (avx512_bf16)"`` or ``"bfloat16 (emulated: slower)"``.
    """
    if precision != "bfloat16" or _kind(device) != "cpu":
        return precision
    return f"bfloat16 ({fast_bfloat16() or 'emulated: slower'})"


def at_precision(
    device: str | torch.device, precision: Precision, *, cache: bool = True
) -> AbstractContextManager[object]:
    """A context in which networks compute in `precision`, for the calling thread.

    In half precision convolutions and linear layers round their inputs and results, so logits leave
    the network as bfloat16 or float16: turn them to float32 before they are added up or judged.
    Enter it once for each forward pass; a backward pass belongs outside and follows the forward
    pass by itself.

    Args:
        device: where the network runs.
        precision: as from `resolve_precision`.
        cache: whether weights that want a gradient are converted only once while the context
            lasts, which helps where a pass uses one several times.
    """
    import torch

    half = torch.float16 if precision == "float16" else torch.bfloat16
    return torch.autocast(
        _kind(device), dtype=half, enabled=precision != "float32", cache_enabled=cache
    )


def _named(argument: str, value: str | None, kind: str) -> Precision | None:
    """The precision that was named, or None where the choice is passed on."""
    name = (value or AUTO).lower()
    if name == AUTO:
        return None
    known = tuple(p for p in PRECISIONS if not (p == "float16" and kind == "cpu"))
    if name in known:
        return name
    raise OptionError(
        argument,
        expected=f"one of {', '.join((AUTO, *known))} on {kind}",
        got=repr(value),
        way_out="Leave it out to take what is fast on this machine.",
    )


def _kind(device: str | torch.device) -> str:
    """``cpu``, ``cuda`` …, without an index."""
    return str(device).partition(":")[0]


def _capability(device: str | torch.device) -> Capability | None:
    """The compute capability; None where PyTorch sees no such device."""
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.get_device_capability(torch.device(device))
