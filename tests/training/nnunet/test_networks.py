"""The network that our trainers give nnU-Net for a plan, and the line that makes them known."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from model_core.errors import OptionError
from training.nnunet import TRAINERS_FOLDER
from training.nnunet.__main__ import export_line
from training.nnunet.networks import build_for_plan


@pytest.mark.parametrize(
    ("recipe", "patch", "channels", "parameters"),
    [
        ("published-segmamba", (128, 160, 112), (4, 4), 67_416_196),
        ("small-segmamba", (128, 160, 112), (4, 3), 7_614_067),
        ("lightm-unet-3d", (40, 48, 56), (4, 4), 5_015_976),
        ("lightm-unet-3d", (512, 512), (1, 2), 5_011_683),
    ],
)
def test_a_plan_gives_the_recipes_network_with_the_data_sets_channels(
    recipe: str, patch: tuple[int, ...], channels: tuple[int, int], parameters: int
) -> None:
    """The counts are those of the networks that the authors released."""
    into, out = channels
    with torch.device("meta"):
        network = build_for_plan(recipe, patch, in_channels=into, out_channels=out)
    assert sum(tensor.numel() for tensor in network.parameters()) == parameters


def test_segmamba_scans_along_the_patchs_own_axis() -> None:
    """The published slices are those of a 128³ patch; a plan's patch is any."""
    network = build_for_plan("small-segmamba", (32, 32, 48), in_channels=2, out_channels=2)
    assert network.num_slices is None
    with torch.no_grad():
        assert network(torch.rand(1, 2, 32, 32, 48)).shape == (1, 2, 32, 32, 48)


@pytest.mark.parametrize(
    ("recipe", "patch", "named"),
    [
        ("small-segmamba", (128, 120, 128), r"multiples of 16 in P.*\[128, 112, 128\]"),
        ("small-segmamba", (16, 16, 16), r"multiples of 16 in P.*\[32, 32, 32\]"),
        ("small-segmamba", (512, 512), "3-D network"),
        ("lightm-unet-3d", (20, 320, 320), r"multiples of 8 in P.*\[16, 320, 320\]"),
        ("lightm-unet-3d", (500, 512), r"\[496, 512\]"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused_with_one_that_does(
    recipe: str, patch: tuple[int, ...], named: str
) -> None:
    with pytest.raises(OptionError, match=named) as refused:
        build_for_plan(recipe, patch, in_channels=4, out_channels=3, plan="P")
    assert str(list(patch)) in str(refused.value)


def test_the_line_adds_our_folder_to_those_that_are_named_already() -> None:
    ours = str(TRAINERS_FOLDER)
    assert (TRAINERS_FOLDER / "segmamba_trainers.py").is_file()
    assert export_line({}) == f"export nnUNet_extTrainer={ours}"
    both = export_line({"nnUNet_extTrainer": "/their trainers"})
    assert both == f"export nnUNet_extTrainer='/their trainers{os.pathsep}{ours}'"
    assert export_line({"nnUNet_extTrainer": ours}) == f"export nnUNet_extTrainer={ours}"


def test_the_command_needs_neither_nnunet_nor_torch() -> None:
    code = (
        "import sys; from training.nnunet.__main__ import export_line; export_line({}); "
        "sys.exit('torch' in sys.modules or 'nnunetv2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
