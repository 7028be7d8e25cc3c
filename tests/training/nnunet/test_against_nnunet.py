"""Our bundle and the real nnU-Net's predictor, on one trained folder: the same label maps.

Needs nnU-Net's own environment, `scripts/nnunet.sh`. Two trainings of two iterations on the CPU:
SegMamba on regions, LightM-UNet on labels, their channels in different orders.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model_core.checkpoints import load_bundle
from model_core.checkpoints.nnunet import NnunetOptions, import_nnunet
from model_core.imaging import Volume, read_nifti, write_nifti
from model_core.imaging.preprocess import Preprocessing, prepare
from model_core.imaging.study import Study, load_study, make_study
from model_core.inference.blending import gaussian_weights
from model_core.inference.segmenter import Segmenter, SegmentOptions
from model_core.inference.windows import padding_to, plan_windows
from model_core.postprocess import keep_largest_of
from model_core.types import Contrast
from tests.training.tiny import LPS, brats_case, oblique
from training.nnunet import TRAINERS_FOLDER

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-nnunet" / "bin" / "python"
SHAPE = (44, 40, 36)
MARGIN = ((3, 9), (8, 4), (5, 7))
"""Zeros around the head: enough for nnU-Net to normalise inside the brain, as it does for BraTS."""
AFFINES = {"regions": oblique((1.0, 1.0, 1.0), degrees=12.0), "labels": LPS}
NAMES = {"t1": "T1", "t1ce": "T1ce", "t2": "T2", "flair": "FLAIR"}
ORDERS: dict[str, tuple[Contrast, ...]] = {
    "regions": ("t1", "t1ce", "t2", "flair"),
    "labels": ("flair", "t1", "t1ce", "t2"),
}
FILE_VALUES = np.array([0, 2, 1, 3], np.uint8)
"""Of background, NCR, ED and ET, as nnU-Net's conversion of BraTS numbers them."""
DESCRIPTIONS: dict[str, dict[str, Any]] = {
    "regions": {
        "labels": {
            "background": 0,
            "whole tumor": [1, 2, 3],
            "tumor core": [2, 3],
            "enhancing tumor": [3],
        },
        "regions_class_order": [1, 2, 3],
    },
    "labels": {
        "labels": {
            "background": 0,
            "edema": 1,
            "non-enhancing tumor core": 2,
            "enhancing tumor": 3,
        }
    },
}
TRAINERS = {"regions": "nnUNetTrainerSegMambaSmall", "labels": "nnUNetTrainerLightMUNet"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # two trainings with all that nnU-Net imports, on a busy machine too
    pytest.mark.skipif(
        not (ROOT / ".venv-nnunet" / "ready").is_file(),
        reason="nnU-Net's environment is missing: scripts/nnunet.sh makes it",
    ),
]


@dataclass(frozen=True)
class Trained:
    """A folder after `real_nnunet.py` has run in it."""

    root: Path
    heads: str
    segmenter: Segmenter

    def study(self) -> Study:
        files = {
            contrast: self.root / "studies" / f"study_{number:04d}.nii.gz"
            for number, contrast in enumerate(ORDERS[self.heads])
        }
        return load_study(files)

    def theirs(self) -> npt.NDArray[np.uint8]:
        """nnU-Net's label map (X, Y, Z) in internal labels."""
        file = self.root / "predicted" / "study.nii.gz"
        values = read_nifti(file, argument="seg").array.astype(int)
        labels: npt.NDArray[np.uint8] = np.argsort(FILE_VALUES).astype(np.uint8)[values]
        return labels

    def underflowing(self) -> npt.NDArray[np.bool_]:
        """Where nnU-Net's weights, ten times ours, add up to no normal half-precision number."""
        card = self.segmenter.card
        prepared = prepare(
            self.study(),
            Preprocessing(
                channels=card.channels,
                orientation=card.orientation,
                spacing_mm=card.spacing_mm,
                normalisation=card.normalisation,
            ),
        )
        box = prepared.box_grid.shape
        padding = padding_to(box, card.window)
        whole = [size + low + high for size, (low, high) in zip(box, padding, strict=True)]
        total = torch.zeros(whole)
        for where in plan_windows(whole, card.window, card.overlap, "nnunet"):
            total[where] += 10 * gaussian_weights(card.window, tiling="nnunet")
        inside = tuple(slice(low, low + size) for size, (low, _) in zip(box, padding, strict=True))
        low = total[inside].numpy() < np.finfo(np.float16).smallest_normal
        return prepared.paste(low.astype(np.uint8)).astype(bool)

    def margin(self) -> npt.NDArray[np.float64]:
        """How far nnU-Net's decision was from another, in probability (X, Y, Z)."""
        stored = np.load(self.root / "predicted" / "study.npz")["probabilities"]
        probabilities = stored.transpose(0, 3, 2, 1)
        if self.heads == "regions":
            nearest: npt.NDArray[np.float64] = abs(probabilities - 0.5).min(axis=0)
            return nearest
        first, second = np.sort(probabilities, axis=0)[:-3:-1]
        between: npt.NDArray[np.float64] = first - second
        return between


@pytest.fixture(scope="module", params=list(TRAINERS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    heads = str(request.param)
    root = tmp_path_factory.mktemp(heads)
    write_data_set(root, heads)
    write_study(root, heads)
    script = Path(__file__).with_name("real_nnunet.py")
    done = subprocess.run(
        [PYTHON, "-W", "ignore", script, root, f"{TRAINERS[heads]}_1epoch"],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"nnUNet_extTrainer": str(TRAINERS_FOLDER)},
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    parent = root / "results" / "Dataset137_TinyBraTS"
    imported = import_nnunet(parent, root / "bundle", NnunetOptions(postprocess="none"))
    assert imported.fold == "all"
    return Trained(root, heads, Segmenter(load_bundle(root / "bundle"), precision="float32"))


def write_data_set(root: Path, heads: str) -> None:
    folder = root / "raw" / "Dataset137_TinyBraTS"
    for number in range(2):
        images, labels = brats_case(SHAPE, number)
        for channel, contrast in enumerate(ORDERS[heads]):
            file = folder / "imagesTr" / f"case_{number}_{channel:04d}.nii.gz"
            save(file, np.pad(images[contrast], MARGIN))
        save(folder / "labelsTr" / f"case_{number}.nii.gz", FILE_VALUES[np.pad(labels, MARGIN)])
    channels = {str(n): NAMES[contrast] for n, contrast in enumerate(ORDERS[heads])}
    described = {"channel_names": channels, "numTraining": 2, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(described | DESCRIPTIONS[heads]))


def write_study(root: Path, heads: str) -> None:
    images, _ = brats_case(SHAPE, 7)
    for channel, contrast in enumerate(ORDERS[heads]):
        file = root / "studies" / f"study_{channel:04d}.nii.gz"
        save(file, np.pad(images[contrast], MARGIN), AFFINES[heads])


def save(path: Path, array: npt.NDArray[Any], affine: npt.NDArray[np.float64] = LPS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(path, Volume(array, affine))


def test_nnunet_trained_by_the_rule_of_the_trainers_name(trained: Trained) -> None:
    report = json.loads((trained.root / "results" / "trainer.json").read_text())
    rules = {
        "nnUNetTrainerSegMambaSmall": ("SGD", 1e-2, 3e-5),
        "nnUNetTrainerLightMUNet": ("Adam", 1e-4, 1e-5),
    }
    name = TRAINERS[trained.heads]
    assert report["class"] == f"{name}_1epoch"
    assert (report["optimiser"], report["learning_rate"], report["weight_decay"]) == rules[name]
    assert report["epochs"] == 1
    assert not report["deep_supervision"]
    assert not report["compiled"]
    assert report["full_precision"] == (trained.heads == "labels")


def test_the_card_says_what_nnunet_planned(trained: Trained) -> None:
    card = trained.segmenter.card
    assert card.channels == ORDERS[trained.heads]
    assert (card.heads, card.orientation, card.window) == (trained.heads, "SPL", (32, 32, 48))
    assert card.normalisation == "zscore-brain"
    assert card.mirror_axes == (0, 1, 2)


def test_both_programs_give_the_same_label_map(trained: Trained) -> None:
    """Every voxel but those that nnU-Net's half precision cannot tell.

    It adds its windows up in half precision: two scores that lie within a thousandth of each other
    may change places, and at the corners of the brain box, where its weights are no longer normal
    numbers, scores are rounded to a few steps. All four labels occur, so that agreement says
    something.
    """
    theirs = trained.theirs()
    ours = trained.segmenter.segment(trained.study()).labels
    assert set(np.unique(theirs)) == {0, 1, 2, 3}
    differing = ours != theirs
    assert differing.mean() < 5e-4
    assert (trained.underflowing() | (trained.margin() < 2e-3))[differing].all()


@pytest.mark.parametrize(("values", "names"), [([3], ["ET"]), ([2, 3], ["NCR", "ET"])])
def test_both_programs_keep_the_same_components(
    tmp_path: Path, values: list[int], names: list[str]
) -> None:
    shape = (20, 20, 20)
    labels = np.random.default_rng(0).choice(4, shape, p=(0.7, 0.1, 0.1, 0.1)).astype(np.uint8)
    np.save(tmp_path / "labels.npy", FILE_VALUES[labels])
    script = (
        "import numpy as np; from nnunetv2.postprocessing.remove_connected_components import "
        "remove_all_but_largest_component_from_segmentation as keep; "
        f"np.save('kept.npy', keep(np.load('labels.npy'), {values}))"
    )
    subprocess.run([PYTHON, "-W", "ignore", "-c", script], cwd=tmp_path, check=True)
    theirs = np.argsort(FILE_VALUES)[np.load(tmp_path / "kept.npy")]
    assert np.array_equal(keep_largest_of(labels, (1.0, 1.0, 1.0), names=names), theirs)


def test_a_study_stored_the_other_way_round_gives_the_same_map(trained: Trained) -> None:
    """nnU-Net would see it mirrored; a bundle turns every study to the training's orientation."""
    study = trained.study()
    options = SegmentOptions(tta="none")  # mirrored passes would hide a mirrored input
    straight = trained.segmenter.segment(study, options)
    turned = make_study({c: volume.reoriented("RAI") for c, volume in study.volumes.items()})
    other = trained.segmenter.segment(turned, options)
    back = Volume(other.labels, turned.native.affine).reoriented(study.native.axcodes)
    assert np.array_equal(back.array, straight.labels)
