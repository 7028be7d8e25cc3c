"""In which arithmetic a network runs: which precision is chosen, and how it is switched on.

``float32`` is exact to about seven digits. ``bfloat16`` keeps two to three, halves the memory of
the images between the convolutions and is faster on processors with instructions for it; sums
within a convolution are float32 still. Only convolutions and plain linear layers change. Mamba
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

Precision = Literal["float32", "bfloat16"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)
PRECISION_VARIABLE: Final = "SEGMAMBA_PRECISION"
AUTO: Final = "auto"

FAST_BFLOAT16: Final = ("amx_bf16", "avx512_bf16")
"""Instructions that make bfloat16 faster than float32 on a CPU, the faster ones first."""


def resolve_precision(device: str | torch.device, requested: str | None = None) -> Precision:
    """The precision that a network runs in on `device`.

    Who decides, in this order: `requested`, the variable ``SEGMAMBA_PRECISION``, then the machine:
    bfloat16 on a CPU with instructions for it, else float32. ``auto`` (or None) passes the choice
    on. A name is followed even where bfloat16 is emulated, which is slow and computes the same.

    Args:
        device: where the network runs; elsewhere than on a CPU the machine's choice is float32.
        requested: ``auto``, ``float32``, ``bfloat16`` or None.

    Raises:
        OptionError: another name, as the argument or in the variable.
    """
    named = _named("precision", requested)
    named = named or _named(PRECISION_VARIABLE, os.environ.get(PRECISION_VARIABLE))
    if named is not None:
        return named
    return "bfloat16" if _kind(device) == "cpu" and fast_bfloat16() else "float32"


def fast_bfloat16(features: Mapping[str, bool] | None = None) -> str | None:
    """The instructions that compute bfloat16 here, e.g. ``"amx_bf16"``; None: it is emulated."""
    features = cpu_features() if features is None else features
    return next((name for name in FAST_BFLOAT16 if features.get(name)), None)


def describe_precision(device: str | torch.device, precision: Precision) -> str:
    """`precision` with what a person should know about it on `device`.

    For example ``"bfloat16 (avx512_bf16)"`` or ``"bfloat16 (emulated: slower)"``.
    """
    if precision == "float32" or _kind(device) != "cpu":
        return precision
    return f"bfloat16 ({fast_bfloat16() or 'emulated: slower'})"


def at_precision(
    device: str | torch.device, precision: Precision
) -> AbstractContextManager[object]:
    """A context in which networks compute in `precision`, for the calling thread.

    In bfloat16 convolutions and linear layers round their inputs and results, so logits leave the
    network as bfloat16: turn them to float32 before they are added up or judged. Enter it once for
    each forward pass; a backward pass belongs outside and follows the forward pass by itself.
    """
    import torch

    return torch.autocast(_kind(device), dtype=torch.bfloat16, enabled=precision == "bfloat16")


def _named(argument: str, value: str | None) -> Precision | None:
    """The precision that was named, or None where the choice is passed on."""
    name = (value or AUTO).lower()
    if name == AUTO:
        return None
    if name in PRECISIONS:
        return name
    raise OptionError(
        argument,
        expected=f"one of {', '.join((AUTO, *PRECISIONS))}",
        got=repr(value),
        way_out="Leave it out to take what is fast on this machine.",
    )


def _kind(device: str | torch.device) -> str:
    """``cpu``, ``cuda`` …, without an index."""
    return str(device).partition(":")[0]
