"""One case as nnU-Net predicts it: its own reading, cropping, z-score, windows and writing.

nnU-Net builds its predictor from a trained model folder; here it is given a network of any kind by
`manual_initialization`, with the plans that describe BraTS-like input: 1 mm, z-score inside the
brain, half-overlapping windows with Gaussian weights, no mirroring. Needs the peers
(benchmarks/setup.sh).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

ENDING: Final = ".nii.gz"
_REGIONS: Final = {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
_LABELS: Final = {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
_RESAMPLING: Final = "resample_data_or_seg_to_shape"


def predictor(network: nn.Module, *, window: Sequence[int], heads: str) -> Any:
    """An ``nnUNetPredictor`` around a network.

    Args:
        network: (1, 4, *window) to logits (1, K, *window).
        window: in the order of the file's axes reversed, as nnU-Net reads them (z, y, x).
        heads: ``"regions"`` (WT, TC, ET) or ``"labels"`` (background, NCR, ED, ET).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicting: Any = import_module("nnunetv2.inference.predict_from_raw_data")
        planning: Any = import_module("nnunetv2.utilities.plans_handling.plans_handler")
    made = predicting.nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    plans = planning.PlansManager(_plans(window))
    made.manual_initialization(
        network,
        plans,
        plans.get_configuration("3d_fullres"),
        [network.state_dict()],
        _dataset(heads),
        "benchmark",
        None,
    )
    return made


def predict_case(made: Any, images: Sequence[Path], label_map: Path) -> None:
    """Files to a label map file, in one process."""
    base = str(label_map).removesuffix(ENDING)
    made.predict_from_files_sequential([[str(path) for path in images]], [base])


def _dataset(heads: str) -> dict[str, Any]:
    regions = {"labels": _REGIONS, "regions_class_order": [2, 1, 3]}
    names = {str(i): name for i, name in enumerate(("T1", "T1ce", "T2", "FLAIR"))}
    chosen = regions if heads == "regions" else {"labels": _LABELS}
    return chosen | {"channel_names": names, "file_ending": ENDING}


def _plans(window: Sequence[int]) -> dict[str, Any]:
    sides, channels = list(window), 4
    image = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    scores = image | {"order": 1}
    labels = scores | {"is_seg": True}
    configuration = {
        "data_identifier": "benchmark",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 1,
        "patch_size": sides,
        "median_image_size_in_voxels": sides,
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"] * channels,
        "use_mask_for_norm": [True] * channels,
        "resampling_fn_data": _RESAMPLING,
        "resampling_fn_seg": _RESAMPLING,
        "resampling_fn_probabilities": _RESAMPLING,
        "resampling_fn_data_kwargs": image,
        "resampling_fn_seg_kwargs": labels,
        "resampling_fn_probabilities_kwargs": scores,
        "batch_dice": False,
        "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
    }
    return {
        "dataset_name": "benchmark",
        "plans_name": "benchmark",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(i): {} for i in range(channels)},
        "configurations": {"3d_fullres": configuration},
    }
