"""The network that a plan of nnU-Net asks for, in our classes; needs no nnU-Net.

nnU-Net decides patch, spacing and batch; its plans' own architecture is ignored. Our networks halve
their input a fixed number of times, so the patch must fit them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from model_core.errors import OptionError
from model_core.networks import Network, build_network
from training.recipes import recipe

_CHANNELS = ("in_channels", "out_channels", "spatial_dims")
"""What the plan decides, not the recipe."""


def build_for_plan(
    recipe_name: str,
    patch: Sequence[int],
    *,
    in_channels: int,
    out_channels: int,
    plan: str = "the plan",
) -> Network:
    """A network with fresh weights and a recipe's sizes.

    Args:
        recipe_name: a name of `training.recipes.RECIPES`.
        patch: the plan's patch, two or three sides; LightM-UNet takes both.
        in_channels: of the data set.
        out_channels: segmentation heads of the data set.
        plan: name of the plan and its configuration, for the message.

    Raises:
        OptionError: the patch does not fit the network.
    """
    config = recipe(recipe_name)
    sizes = {key: value for key, value in config.network_args.items() if key not in _CHANNELS}
    if config.network == "lightm-unet":
        sizes["spatial_dims"] = len(patch)
    elif len(patch) != 3:
        raise _refused(patch, plan, f"three sides: {config.network} is a 3-D network", "3d_fullres")
    network = build_network(
        config.network, in_channels=in_channels, out_channels=out_channels, **sizes
    )
    multiple = int(network.size_multiple)
    deepest = [side // multiple for side in patch]
    if any(side % multiple for side in patch) or prod(deepest) < 2:
        fitting = [max(side // multiple, 2) * multiple for side in patch]
        raise _refused(
            patch, plan, f"sides that are multiples of {multiple}", f"for example {fitting}"
        )
    return network


def _refused(patch: Sequence[int], plan: str, expected: str, instead: str) -> OptionError:
    return OptionError(
        "patch_size",
        expected=f"{expected} in {plan}",
        got=f"{list(patch)}",
        way_out=f"Write another configuration into the plans file, {instead}, and train with it "
        "(docs/how-to/nnunet.md shows how).",
    )
