"""nnU-Net's files written by hand, in the format of nnU-Net 2.8."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from model_core.networks import build_network

REGIONS: dict[str, Any] = {
    "channel_names": {"0": "T1", "1": "T1ce", "2": "T2", "3": "Flair"},
    "labels": {
        "background": 0,
        "whole tumor": [1, 2, 3],
        "tumor core": [2, 3],
        "enhancing tumor": [3],
    },
    "regions_class_order": [1, 2, 3],
    "numTraining": 1251,
    "file_ending": ".nii.gz",
}
"""As nnU-Net's own conversion of BraTS 2021 (Dataset137) writes it."""
LABELS: dict[str, Any] = {
    "channel_names": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
    "labels": {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3},
    "numTraining": 484,
    "file_ending": ".nii.gz",
}
"""As the Medical Segmentation Decathlon's Task01."""
PLANS: dict[str, Any] = {
    "dataset_name": "Dataset137_BraTS2021",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "label_manager": "LabelManager",
    "configurations": {
        "2d": {"patch_size": [192, 160], "spacing": [1.0, 1.0]},
        "3d_fullres": {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 2,
            "patch_size": [128, 128, 128],
            "spacing": [1.0, 1.0, 1.0],
            "normalization_schemes": ["ZScoreNormalization"] * 4,
            "use_mask_for_norm": [True] * 4,
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet."
                "PlainConvUNet",
                "arch_kwargs": {"n_stages": 6},
                "_kw_requires_import": [],
            },
        },
        "3d_small": {"inherits_from": "3d_fullres", "patch_size": [32, 48, 64]},
    },
}
SEGMAMBA = {"features": (4, 4, 8, 8), "hidden": 8, "depths": (1, 1, 1, 1)}
RESULTS = "nnUNetTrainerSegMamba__nnUNetPlans__3d_small"


def network(out_channels: int = 3, **sizes: Any) -> nn.Module:
    """A SegMamba of few weights, as our trainers build it."""
    torch.manual_seed(0)
    return build_network("segmamba", out_channels=out_channels, **(SEGMAMBA | sizes))


def checkpoint(
    weights: dict[str, torch.Tensor],
    *,
    trainer: str = "nnUNetTrainerSegMamba",
    configuration: str = "3d_small",
    mirror: tuple[int, ...] | None = (0, 1, 2),
) -> dict[str, Any]:
    """What nnU-Net's trainer saves, its NumPy numbers in the log included."""
    plans = copy.deepcopy(PLANS)
    return {
        "network_weights": weights,
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5)], "lrs": [0.01]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1000,
        "init_args": {
            "plans": plans,
            "configuration": configuration,
            "fold": 0,
            "dataset_json": REGIONS,
            "device": torch.device("cuda", 0),
        },
        "trainer_name": trainer,
        "inference_allowed_mirroring_axes": mirror,
    }


def write_results(
    parent: Path,
    *,
    folds: tuple[str, ...] = ("0",),
    dataset: dict[str, Any] | None = None,
    plans: dict[str, Any] | None = None,
    content: dict[str, Any] | None = None,
    name: str = RESULTS,
) -> Path:
    """A results folder; gives it back."""
    folder = parent / name
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(dataset or REGIONS))
    (folder / "plans.json").write_text(json.dumps(plans or PLANS))
    for fold in folds:
        (folder / f"fold_{fold}").mkdir()
        saved = checkpoint(dict(network().state_dict())) if content is None else content
        torch.save(saved, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def corrections(*labels: Any, function: str | None = None) -> dict[str, Any]:
    """A ``postprocessing.json`` that keeps the largest component of each of `labels`."""
    name = function or "remove_all_but_largest_component_from_segmentation"
    return {
        "input_folder": {"foreground_mean": {"Dice": 0.8}, "mean": {}},
        "postprocessed": {"foreground_mean": {"Dice": 0.81}, "mean": {}},
        "postprocessing_fns": [name] * len(labels),
        "postprocessing_kwargs": [{"labels_or_regions": one} for one in labels],
    }
