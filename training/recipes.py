"""Recipes: functions that return a whole `TrainConfig`.

A new experiment is a new function, derived from another in a few lines; what it taught is written
in ``training/LOG.md``. Where a recipe follows a publication's released code, its docstring says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from model_core.errors import OptionError
from training.config import Augmentation, PatchMix, TrainConfig
from training.task import BRATS


def small_segmamba() -> TrainConfig:
    """SegMamba V1 at a third of its published width: what two CPU cores can train (the default)."""
    return TrainConfig(
        recipe="small-segmamba",
        network="segmamba",
        network_args={
            "depths": (2, 2, 2, 2),
            "features": (16, 32, 64, 128),
            "hidden": 256,
        },
    )


def mixed_segmamba() -> TrainConfig:
    """SegMamba as `small_segmamba`, on patches of three sizes and with synthetic studies.

    The largest patch nearly holds a brain, so that the network learns what a large window does to
    instance norm: one window over the brain is then as good as eight. About a third of the patches
    are real, and cases without enhancement are drawn less than the others, as among patients;
    training/LOG.md has what was tried.
    """
    return dataclasses.replace(
        small_segmamba(),
        recipe="mixed-segmamba",
        patch=(64, 64, 64),
        batch=1,
        mixed_patches=(
            PatchMix(patch=(96, 96, 96), batch=1, share=0.25),
            PatchMix(patch=(128, 160, 128), batch=1, share=0.1),
        ),
        lacking_weight=0.4,
        synthetic=120,
        synthetic_weight=0.12,
        learning_rate=8e-4,
        warmup_steps=60,
        window=(128, 128, 128),
    )


def published_segmamba() -> TrainConfig:
    """SegMamba V1 at its published size and patch, by our own rule; wants a GPU with 24 GB."""
    return dataclasses.replace(
        small_segmamba(),
        recipe="published-segmamba",
        network_args={},
        patch=(128, 128, 128),
        steps=100_000,
        learning_rate=3e-4,
        warmup_steps=1000,
        ema_decay=0.999,
        precision="bfloat16",
        channels_last=False,
        validate_minutes=60.0,
    )


def paper_segmamba() -> TrainConfig:
    """SegMamba V1 as its authors train it: 1000 epochs of 250 steps, SGD, cross-entropy alone.

    Source: the training script released with Xing et al., "SegMamba" (MICCAI 2024): patch 128³,
    batch 2, SGD 1e-2 with Nesterov momentum 0.99, weight decay 3e-5 on all weights, polynomial
    decay 0.9, fp16 with a scaler, clipping at 12, a third of the patches on foreground, z-score
    over the cropped box. The authors keep no average of the weights; ``ema_decay=0`` is that.
    """
    return dataclasses.replace(
        published_segmamba(),
        recipe="paper-segmamba",
        task=dataclasses.replace(BRATS, channels=("t2", "flair", "t1", "t1ce"), heads="labels"),
        normalisation="zscore-box",
        steps=250_000,
        loss="ce",
        optimiser="sgd",
        learning_rate=1e-2,
        schedule="poly",
        warmup_steps=0,
        weight_decay=3e-5,
        decay="all",
        clip_norm=12.0,
        ema_decay=0.0,
        foreground_share=1 / 3,
        precision="float16",
        augmentation=Augmentation.nnunet(),
    )


def brtm_segmamba() -> TrainConfig:
    """BRTM SegMamba (Conv, Conv, Mamba, Mamba encoder) as its authors configure it.

    Source: the configuration released with it: patch 128×128×64, batch 2, two micro-batches a step,
    AdamW 1e-4 with weight decay 1e-5, cosine to 1e-6, Dice + cross-entropy in equal parts, half of
    the patches on tumour, label heads, early stopping, 1 mm, z-score of the non-zero voxels. 300
    epochs of the 1000 training cases of its split are 75 000 steps.
    """
    return dataclasses.replace(
        published_segmamba(),
        recipe="brtm-segmamba",
        network="segmamba-brtm",
        task=dataclasses.replace(BRATS, heads="labels"),
        orientation="RAS",
        patch=(128, 128, 64),
        accumulate=2,
        steps=75_000,
        learning_rate=1e-4,
        warmup_steps=500,
        foreground_share=0.5,
        precision="float16",
        patience=50,
        seed=42,
    )


def lightm_unet_3d() -> TrainConfig:
    """LightM-UNet 3D as in the trainer released with it, on any data set.

    Source: ``nnUNetTrainerLightMUNet``: Adam 1e-4, weight decay 1e-5 on all weights, polynomial
    decay 0.9, clipping at 12, no mixed precision, Dice + cross-entropy, no deep supervision,
    nnU-Net's augmentation and a third of the patches on foreground. Patch and batch are the plan's.
    """
    return TrainConfig(
        recipe="lightm-unet-3d",
        network="lightm-unet",
        network_args={"init_filters": 32, "blocks_down": (1, 2, 2, 4), "blocks_up": (1, 1, 1)},
        task=dataclasses.replace(BRATS, heads="labels"),
        patch=(128, 128, 128),
        steps=250_000,
        optimiser="adam",
        learning_rate=1e-4,
        schedule="poly",
        warmup_steps=0,
        weight_decay=1e-5,
        decay="all",
        clip_norm=12.0,
        ema_decay=0.0,
        foreground_share=1 / 3,
        augmentation=Augmentation.nnunet(),
        channels_last=False,
    )


def lightm_unet_2d() -> TrainConfig:
    """LightM-UNet 2D: `lightm_unet_3d`'s rule on slices, or on pictures."""
    config = lightm_unet_3d()
    return dataclasses.replace(
        config,
        recipe="lightm-unet-2d",
        task=dataclasses.replace(config.task, dims=2),
        patch=(1, 512, 512),
        batch=2,
    )


RECIPES: Mapping[str, Callable[[], TrainConfig]] = {
    "small-segmamba": small_segmamba,
    "mixed-segmamba": mixed_segmamba,
    "published-segmamba": published_segmamba,
    "paper-segmamba": paper_segmamba,
    "brtm-segmamba": brtm_segmamba,
    "lightm-unet-3d": lightm_unet_3d,
    "lightm-unet-2d": lightm_unet_2d,
}


def recipe(name: str) -> TrainConfig:
    """The config of a named recipe; an unknown name raises `OptionError`."""
    if name not in RECIPES:
        raise OptionError(
            "recipe", expected=f"one of {', '.join(RECIPES)}", got=repr(name), way_out="Choose one."
        )
    return RECIPES[name]()
