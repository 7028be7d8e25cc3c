"""Makes a function on tensors an operator of PyTorch, ``segmamba::NAME``, opaque to its compiler.

The face is that of ``torch.library.custom_op``. That one imports the whole of torch's compiler at
the first call, a second or more that a program that only segments should not pay, and costs some
20 µs a call; the functions it is made of do neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch

_LIBRARY: Final = torch.library.Library("segmamba", "FRAGMENT")  # type: ignore[no-untyped-call]


class Operator:
    """An operator; see `operator`."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        changes: tuple[str, ...] = (),
        devices: tuple[str, ...] = ("CPU",),
    ) -> None:
        schema = torch.library.infer_schema(function, mutates_args=changes)
        _LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
        for device in devices:
            _LIBRARY.impl(name, function, device)  # type: ignore[no-untyped-call]
        self._name = f"segmamba::{name}"
        self._call = getattr(torch.ops.segmamba, name).default

    def __call__(self, *arguments: Any) -> Any:
        """Run it as any operator: through autograd and whatever traces or records."""
        return self._call(*arguments)

    def register_fake(self, function: Callable[..., Any]) -> None:
        """Say what the results look like; used as a decorator."""
        torch.library.register_fake(self._name, function, lib=_LIBRARY)

    def register_autograd(
        self, backward: Callable[..., Any], *, setup_context: Callable[..., Any] | None = None
    ) -> None:
        """Say how gradients are computed, as ``torch.library.register_autograd``."""
        torch.library.register_autograd(
            self._name, backward, setup_context=setup_context, lib=_LIBRARY
        )


def operator(
    name: str, *, changes: tuple[str, ...] = (), devices: tuple[str, ...] = ("CPU",)
) -> Callable[[Callable[..., Any]], Operator]:
    """Decorate a typed function whose results share no memory with its arguments.

    Args:
        name: the operator's name behind ``segmamba::``.
        changes: arguments that it writes to. Autograd is not told: call such an operator only
            where no gradient needs what they held.
        devices: PyTorch's dispatch keys of the devices whose tensors it takes.
    """
    return lambda function: Operator(name, function, changes, devices)
