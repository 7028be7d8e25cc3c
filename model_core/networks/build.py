"""From a name and plain numbers to a network, and from a network back to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from torch import nn

from model_core.errors import OptionError, ShapeError
from model_core.networks.lightm_unet import LightMUNet
from model_core.networks.segmamba import SegMamba
from model_core.networks.segmamba_brtm import SegMambaBRTM

Network = SegMamba | SegMambaBRTM | LightMUNet
NetworkName = Literal["segmamba", "segmamba-brtm", "lightm-unet"]
NETWORK_NAMES: Final[tuple[NetworkName, ...]] = get_args(NetworkName)

NETWORKS: Final[Mapping[str, type[Network]]] = MappingProxyType(
    {"segmamba": SegMamba, "segmamba-brtm": SegMambaBRTM, "lightm-unet": LightMUNet}
)


def build_network(name: str, **config: Any) -> Network:
    """Build a network with fresh weights.

    Args:
        name: one of `NETWORKS`.
        config: its constructor's arguments by name; lists stand for tuples, so that a
            configuration read from JSON can be handed over as it is.

    Returns:
        A module whose forward takes ``(B, in_channels, *spatial)`` and returns one tensor of raw
        logits ``(B, out_channels, *spatial)``. It carries `size_multiple` and every constructor
        argument as an attribute.

    Raises:
        OptionError: for an unknown name or argument, or a value that makes no network.
    """
    if name not in NETWORKS:
        raise OptionError(
            "network", expected=f"one of {', '.join(NETWORKS)}", got=name, way_out="Check the name."
        )
    known = _parameters(NETWORKS[name])
    for argument in config.keys() - set(known):
        raise OptionError(
            argument,
            expected=f"an argument of {name}: {', '.join(known)}",
            got="an argument it does not have",
            way_out="Remove it or correct its name.",
        )
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}
    kind: Callable[..., Network] = NETWORKS[name]
    try:
        return kind(**values)
    except (TypeError, ValueError, ZeroDivisionError, IndexError, RuntimeError) as error:
        raise OptionError(
            "network",
            expected=f"numbers that make a {name}",
            got=", ".join(f"{key}={value}" for key, value in values.items()),
            way_out=f"The constructor says: {error}.",
        ) from error


def network_name(network: nn.Module) -> NetworkName:
    """The name under which `build_network` builds this network's class.

    Raises:
        OptionError: for a module of another class.
    """
    for name in NETWORK_NAMES:
        if type(network) is NETWORKS[name]:
            return name
    raise OptionError(
        "network",
        expected=f"a network that build_network makes: {', '.join(NETWORKS)}",
        got=f"a {type(network).__name__}",
        way_out="Unwrap it first (DistributedDataParallel and torch.compile hold it inside).",
    )


def network_config(network: nn.Module) -> dict[str, Any]:
    """The arguments that `build_network` needs to build this network again, JSON-able.

    Raises:
        OptionError: for a module that `build_network` does not make.
    """
    parameters = _parameters(NETWORKS[network_name(network)])
    values = {key: getattr(network, key) for key in parameters}
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


def check_window(network: nn.Module, window: Sequence[int]) -> None:
    """Refuse a window that this network could not take, before any image comes.

    Raises:
        ShapeError: stating the rule.
    """
    multiple = network.size_multiple
    assert isinstance(multiple, int)
    if any(side % multiple for side in window):
        raise ShapeError(
            f"{network_name(network)} takes windows with sides that are multiples of {multiple}, "
            f"got {tuple(window)}"
        )
    slices = network.num_slices if isinstance(network, SegMamba) else None
    for stage, count in enumerate(slices or ()):
        tokens = prod(side // 2 ** (stage + 1) for side in window)
        if tokens % count:
            raise ShapeError(
                f"a window of {tuple(window)} gives stage {stage} {tokens} tokens, which do not "
                f"divide into its {count} slices (num_slices); take a window with sides that are "
                f"multiples of {2 * multiple}"
            )


def _parameters(kind: type[Network]) -> tuple[str, ...]:
    return tuple(inspect.signature(kind).parameters)
