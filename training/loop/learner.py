"""What learns: the network, its average, the optimiser and the loss, through Lightning Fabric.

Fabric moves the module to its device, averages gradients over the processes, scales the loss of
``float16`` and steps the optimiser. With one process and ``float32`` it adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from model_core.precision import at_precision, resolve_precision
from training.config import TrainConfig
from training.loop.deep_supervision import SupervisedNetwork
from training.loop.ema import Ema
from training.loop.forward import memory_layout
from training.loop.losses import SegmentationLoss, supervised_loss
from training.loop.optim import build_optimiser
from training.loop.processes import total
from training.loop.pseudo_dice import PseudoDice
from training.loop.recompute import recomputed
from training.loop.sampler import Batch
from training.loop.share import Share

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Learner:
    """One network in training.

    Args:
        config: the run.
        network: fresh weights on the CPU.
        fabric: launched.
        share: what this process does of a step.
    """

    def __init__(
        self, config: TrainConfig, network: nn.Module, fabric: Fabric, share: Share
    ) -> None:
        self.config, self.fabric = config, fabric
        layout = memory_layout(config.task, channels_last=config.channels_last)
        network = network.to(fabric.device).to(memory_format=layout)  # type: ignore[call-overload]
        self.network: nn.Module = network
        self.ema = Ema(network, config.ema_decay)
        supervised: nn.Module = SupervisedNetwork(
            network, config.task, deep=config.deep_supervision
        ).to(fabric.device)
        if share.split and fabric.device.type == "cuda":
            supervised = nn.SyncBatchNorm.convert_sync_batchnorm(supervised)  # type: ignore[no-untyped-call]
        self.supervised = supervised
        self.optimiser = build_optimiser(supervised, config)
        self.module, self._stepper = fabric.setup(supervised, self.optimiser)
        self.loss: nn.Module = SegmentationLoss(
            config.task, config.loss, pool=self._pooled if share.split else None
        )
        self.pseudo_dice = PseudoDice(config.task)

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled, so that a step may be skipped when a gradient overflows."""
        return self.config.precision == "float16"

    def gradient(self, micro_batches: Sequence[Batch]) -> tuple[list[float], float]:
        """Losses of this process's micro-batches, and the norm of all processes' mean gradient.

        The gradient is left clipped in the parameters.
        """
        share, last = 1 / len(micro_batches), len(micro_batches) - 1
        losses = []
        for number, batch in enumerate(micro_batches):
            with self._unsynchronised(number != last):
                losses.append(self.backward(batch, share))
        norm = self.fabric.clip_gradients(
            self.module,
            self._stepper,
            max_norm=self.config.clip_norm,
            error_if_nonfinite=False,
        )
        assert norm is not None
        return torch.stack(losses).tolist(), float(norm)

    def backward(self, batch: Batch, share: float) -> Tensor:
        """Add `share` of one micro-batch's gradient; gives its loss, detached."""
        labels = batch.labels.to(self.fabric.device)
        outputs = self._forward(self._moved(batch.images))
        loss = supervised_loss(self.loss, outputs, labels)
        self.fabric.backward(loss * share)
        if self.config.pseudo_dice_patches == 0:
            self.pseudo_dice.add(outputs[0].detach(), labels)
        return loss.detach()

    @torch.no_grad()
    def judge(self, batch: Batch) -> None:
        """Add a batch of validation patches to the epoch's pseudo-Dice, by the raw weights."""
        self.supervised.eval()
        with self._arithmetic():
            # not through Fabric: under DDP only some processes may have a patch left
            outputs = self.supervised(self._moved(batch.images))
        self.supervised.train()
        self.pseudo_dice.add(outputs[0], batch.labels.to(self.fabric.device))

    def update(self, rate: float) -> None:
        """One optimiser step on the gradient that is there, and one of the average."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self._stepper.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.ema.update(self.network)

    def begin_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of another run or bundle, for the network and its average."""
        self.network.load_state_dict(dict(weights))
        self.ema.network.load_state_dict(dict(weights))

    def state(self) -> dict[str, Any]:
        """Everything that learns, for a checkpoint."""
        return {
            "network": self.network.state_dict(),
            "ema": self.ema.state(),
            "heads": self._heads().state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "pseudo_dice": self.pseudo_dice.state(lambda sums: total(self.fabric, sums)),
        }

    def load(self, content: Mapping[str, Any]) -> None:
        """Restore what `state` gave; the first process takes all counts of the running epoch."""
        self.network.load_state_dict(content["network"])
        self.ema.load(content["ema"])
        self.optimiser.load_state_dict(content["optimiser"])
        if "heads" not in content:  # a run that began before they were kept
            return
        self._heads().load_state_dict(content["heads"])
        if content["scaler"]:
            self.fabric.strategy.precision.load_state_dict(content["scaler"])
        self.pseudo_dice.load(content["pseudo_dice"], counts=self.fabric.is_global_zero)

    def _forward(self, images: Tensor) -> tuple[Tensor, ...]:
        with ExitStack() as contexts:
            contexts.enter_context(self._arithmetic())
            if self.config.checkpoint_activations:
                contexts.enter_context(recomputed(self.network))
            outputs: tuple[Tensor, ...] = self.module(images)
        return outputs

    def _moved(self, images: Tensor) -> Tensor:
        in_last = self.config.channels_last and self.config.task.dims == 3
        layout = torch.channels_last_3d if in_last else torch.contiguous_format
        return images.to(self.fabric.device, memory_format=layout)

    def _arithmetic(self) -> AbstractContextManager[object]:
        """Half precision is Fabric's where it scales the loss, else `model_core.precision`'s."""
        if self.scales:
            return self.fabric.autocast()
        device = self.fabric.device
        return at_precision(device, resolve_precision(device, self.config.precision))

    def _unsynchronised(self, enabled: bool) -> AbstractContextManager[Any]:
        """Gradients are averaged over the processes once a step, with the last micro-batch."""
        if self.fabric.world_size == 1:
            return ExitStack()
        return self.fabric.no_backward_sync(self.module, enabled=enabled)

    def _pooled(self, sums: Tensor) -> Tensor:
        """Sum over the processes, whose gradient is this process's part.

        Gradients are averaged over the processes afterwards, hence the factor.
        """
        together = total(self.fabric, sums.detach().clone())
        return together + self.fabric.world_size * (sums - sums.detach())

    def _heads(self) -> nn.Module:
        return self.supervised.get_submodule("heads")
