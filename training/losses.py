"""What a step is judged by: soft Dice plus cross-entropy, for region and for label heads.

Shapes: logits (B, K, *spatial) float, labels (B, *spatial) uint8 in the internal numbering
(0 background, 1 NCR, 2 ED, 3 ET).
"""

from __future__ import annotations

from typing import cast

import torch
from monai.losses.dice import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

from model_core.labels import REGIONS
from model_core.types import REGION_LABELS
from training.config import Heads


class SegmentationLoss(nn.Module):
    """Dice + cross-entropy, both averaged over channels and voxels, in float32.

    Dice is pooled over the batch: a patch without enhancing tumour would otherwise ask for a
    perfect zero and drown the patches that hold some. For region heads the cross-entropy is
    binary (regions are nested, not exclusive); for label heads the background takes part in the
    cross-entropy but not in Dice.
    """

    def __init__(self, heads: Heads) -> None:
        super().__init__()
        self.heads = heads
        self.dice = (
            DiceLoss(sigmoid=True, batch=True)
            if heads == "regions"
            else DiceLoss(softmax=True, to_onehot_y=True, include_background=False, batch=True)
        )

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss (scalar) of `logits` against the truth `labels`."""
        logits = logits.float()
        if self.heads == "regions":
            target = region_targets(labels)
            cross_entropy = F.binary_cross_entropy_with_logits(logits, target)
        else:
            target = labels[:, None]
            cross_entropy = F.cross_entropy(logits, labels.long())
        return cast(Tensor, self.dice(logits, target)) + cross_entropy


def region_targets(labels: Tensor) -> Tensor:
    """Float masks (B, 3, *spatial) of WT, TC and ET from labels (B, *spatial)."""
    masks = [
        torch.isin(labels, torch.tensor(REGION_LABELS[region], device=labels.device))
        for region in REGIONS
    ]
    return torch.stack(masks, dim=1).float()
