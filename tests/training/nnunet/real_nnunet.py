"""Train and predict with the real nnU-Net: run by `test_against_nnunet` in nnU-Net's environment.

``python -W ignore real_nnunet.py FOLDER TRAINER`` expects ``FOLDER/raw/Dataset…`` and
``FOLDER/studies/*_000?.nii.gz``. It plans and preprocesses as nnU-Net's commands do, trains for
two iterations through nnU-Net's own entry points, and predicts the studies with nnU-Net's predictor
into ``FOLDER/predicted``, with probabilities.

After two iterations logits lie close together, and then rounding decides a label. So the last
layer's weights are scaled before the prediction: logits get a standard deviation of 8 around a
median of 0, and only voxels where two scores really tie may differ between two programs.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

CONFIGURATION = "3d_small"
PATCH = (32, 32, 48)
SPREAD = 8.0


def main(folder: Path, trainer_name: str) -> None:
    prepare_environment(folder)
    dataset = next((folder / "raw").iterdir()).name
    plan(folder, dataset)
    output = train(dataset, trainer_name)
    spread_logits(output, folder, dataset)
    predict(output, folder)


def prepare_environment(folder: Path) -> None:
    """Where nnU-Net finds everything; one forked worker for each kind of work.

    nnU-Net spawns its workers, and each would import PyTorch and nnU-Net anew.
    """
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir(exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1"}
    forking = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: forking
    sys.modules["dynamic_network_architectures.architectures.primus"] = LeftOut("primus")


class LeftOut(ModuleType):
    """In the place of one of nnU-Net's networks whose libraries are not installed.

    nnU-Net looks for a trainer by importing all that it has.
    """

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def plan(folder: Path, dataset: str) -> None:
    """Fingerprint, plan, a configuration with a small patch, preprocessed data for it."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    number = int(dataset[7:10])
    api.extract_fingerprints([number], num_processes=1, show_progress_bar=False)
    api.plan_experiments([number])
    file = folder / "preprocessed" / dataset / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    small = {"inherits_from": "3d_fullres", "patch_size": list(PATCH), "batch_size": 1}
    plans["configurations"][CONFIGURATION] = small
    file.write_text(json.dumps(plans))
    api.preprocess([number], configurations=[CONFIGURATION], num_processes=[1])


def train(dataset: str, trainer_name: str) -> Path:
    """Two iterations of one epoch on all cases; gives the results folder."""
    import numpy as np
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    random.seed(0)
    np.random.seed(0)  # the generator that nnU-Net augments with
    torch.manual_seed(0)
    os.environ |= {"nnUNet_n_proc_DA": "0"}  # no augmentation workers
    trainer = get_trainer_from_args(
        dataset, CONFIGURATION, "all", trainer_name, device=torch.device("cpu")
    )
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 1
    trainer.run_training()
    report = {
        "class": type(trainer).__name__,
        "epochs": trainer.num_epochs,
        "optimiser": type(trainer.optimizer).__name__,
        "learning_rate": trainer.initial_lr,
        "weight_decay": trainer.optimizer.param_groups[0]["weight_decay"],
        "deep_supervision": trainer.enable_deep_supervision,
        "scaler": trainer.grad_scaler is not None,
        "compiled": trainer._do_i_compile(),
        "full_precision": stays_in_full_precision(trainer.network),
    }
    output = Path(trainer.output_folder_base)
    (output.parent.parent / "trainer.json").write_text(json.dumps(report))
    return output


def stays_in_full_precision(network: Any) -> bool:
    """Whether autocast, which nnU-Net uses on a GPU, changes nothing."""
    import torch

    image = torch.rand(1, 4, *PATCH)
    network.eval()
    with torch.no_grad():
        plain = network(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return torch.equal(network(image), plain)


def spread_logits(output: Path, folder: Path, dataset: str) -> None:
    """Scale the head in the checkpoint; see the module's first lines."""
    import torch

    made = predictor(output)
    case = sorted((folder / "preprocessed" / dataset / "nnUNetPlans_3d_fullres").glob("*.b2nd"))[0]
    import blosc2

    image = torch.from_numpy(blosc2.open(str(case))[:])
    made.use_mirroring = False
    logits = made.predict_logits_from_preprocessed_data(image).float().flatten(1)
    file = output / "fold_all" / "checkpoint_final.pth"
    content: dict[str, Any] = torch.load(file, weights_only=False)
    weights = content["network_weights"]
    last = [name for name in weights if name.startswith("head.")]
    weight = next(name for name in reversed(last) if name.endswith("weight"))
    bias = weight.removesuffix("weight") + "bias"
    shape = (-1, *[1] * (weights[weight].dim() - 1))
    factor = SPREAD / logits.std(1)
    weights[weight] *= factor.view(shape)
    weights[bias] = (weights[bias] - logits.median(1).values) * factor
    torch.save(content, file)


def predict(output: Path, folder: Path) -> None:
    files = sorted((folder / "studies").glob("*.nii.gz"))
    names = sorted({file.name.removesuffix(".nii.gz")[:-5] for file in files})
    images = [[str(f) for f in files if f.name.startswith(f"{name}_")] for name in names]
    target = folder / "predicted"
    target.mkdir()
    made = predictor(output)
    made.predict_from_files_sequential(
        images, [str(target / name) for name in names], save_probabilities=True
    )


def predictor(output: Path) -> Any:
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    made = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    made.initialize_from_trained_model_folder(str(output), use_folds=("all",))
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
