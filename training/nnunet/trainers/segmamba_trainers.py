"""Trainers for nnU-Net v2.8 and later, one for each of our networks.

============================ ==================== ==================================================
trainer                      network              rule
============================ ==================== ==================================================
nnUNetTrainerSegMamba        SegMamba, 67 M       nnU-Net's own, which SegMamba's authors took over:
nnUNetTrainerSegMambaSmall   SegMamba, 7.6 M      SGD 1e-2 with Nesterov momentum, polynomial decay
nnUNetTrainerLightMUNet      LightM-UNet, 2D, 3D  its authors' trainer: Adam 1e-4, no half precision
============================ ==================== ==================================================

All train without deep supervision, as both networks' authors do. ``_Nepochs`` behind a name changes
the number of epochs: ``nnUNetTrainerSegMamba_100epochs``.

nnU-Net imports this module by its bare name and forgets it again, so everything that should last
lies elsewhere (`training.nnunet.networks`).
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from training.nnunet.networks import build_for_plan

_VARIANTS = "nnunetv2.training.nnUNetTrainer.variants"
# By name, so that this module type-checks where nnU-Net is not installed.
_Base: Any = import_module(
    f"{_VARIANTS}.network_architecture.nnUNetTrainerNoDeepSupervision"
).nnUNetTrainerNoDeepSupervision
_PolyLRScheduler: Any = import_module("nnunetv2.training.lr_scheduler.polylr").PolyLRScheduler


class nnUNetTrainerSegMamba(_Base):  # type: ignore[misc]  # noqa: N801 - the name nnU-Net is given
    """SegMamba at its published size."""

    recipe = "published-segmamba"

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = False,
    ) -> nn.Module:
        """Build the network; called for training and for prediction alike.

        Raises:
            OptionError: the plan's patch does not fit the network.
        """
        assert not enable_deep_supervision, "these networks have one output"
        return build_for_plan(
            cls.recipe,
            configuration_manager.patch_size,
            in_channels=num_input_channels,
            out_channels=num_output_channels,
            plan=f"{plans_manager.plans_name} of {plans_manager.dataset_name}",
        )

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Nothing to switch: nnU-Net would look for its own decoder here."""

    def _do_i_compile(self) -> bool:
        """Only where asked for: the scan is one kernel already, and compiling takes long."""
        return "nnUNet_compile" in os.environ and bool(super()._do_i_compile())


class nnUNetTrainerSegMambaSmall(nnUNetTrainerSegMamba):  # noqa: N801 - likewise
    """SegMamba at a third of its published width."""

    recipe = "small-segmamba"


class nnUNetTrainerLightMUNet(nnUNetTrainerSegMamba):  # noqa: N801 - likewise
    """LightM-UNet in 2D or 3D, by the rule of the trainer released with it."""

    recipe = "lightm-unet-3d"

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = 1e-4
        self.weight_decay = 1e-5
        self.grad_scaler = None  # gradients are not scaled where nothing is half precision

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = False,
    ) -> nn.Module:
        """Build the network, in full precision whatever nnU-Net wraps around it."""
        network = super().build_network_architecture(
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )
        return _outside_autocast(network)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Adam, and nnU-Net's polynomial decay over its epochs."""
        optimiser = torch.optim.Adam(
            self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay, eps=1e-5
        )
        return optimiser, _PolyLRScheduler(optimiser, self.initial_lr, self.num_epochs)


def _outside_autocast(network: nn.Module) -> nn.Module:
    """The same network, its forward in float32 even inside nnU-Net's autocast on a GPU."""
    forward = network.forward

    def in_float32(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = forward(x.float())
        return logits

    network.forward = in_float32  # no wrapping module, so that the tensors keep their names
    return network


def __getattr__(name: str) -> type:
    """A trainer with ``_Nepochs`` behind its name, made when nnU-Net asks for it."""
    asked = re.fullmatch(r"(nnUNetTrainer\w+)_(\d+)epochs?", name)
    base: Any = globals().get(asked[1]) if asked else None
    if asked is None or base is None:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    epochs = int(asked[2])

    class Shorter(base):  # type: ignore[misc]
        # nnU-Net reads the names of these arguments to store them.
        def __init__(
            self,
            plans: dict[str, Any],
            configuration: str,
            fold: int | str,
            dataset_json: dict[str, Any],
            device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature
        ) -> None:
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs = epochs

    Shorter.__name__ = Shorter.__qualname__ = name
    return Shorter
