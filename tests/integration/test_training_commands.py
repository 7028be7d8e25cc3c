"""LightM-UNet from data in nnU-Net's layout to corrected pictures, by the documented commands."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from tests.training.tiny import write_nifti_dataset, write_png_dataset

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FOLDS = 3
FEW_FILTERS = ("--set", "network_args.init_filters=8", "--set", "learning_rate=0.003")
QUIET = ("--threads", "1", "--workers", "0")


@dataclass(frozen=True)
class Lesson:
    """A data set, the recipe that suits it, and what a picture of it ends in."""

    data: Path
    recipe: str
    patch: str
    ending: str

    @property
    def label_sets(self) -> tuple[str, str]:
        return "--dataset-json", str(self.data / "dataset.json")


@pytest.fixture(scope="module", params=["2d", "3d"])
def lesson(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    raw = tmp_path_factory.mktemp("raw")
    if request.param == "2d":
        return Lesson(write_png_dataset(raw), "lightm-unet-2d", "[1,64,64]", ".png")
    return Lesson(write_nifti_dataset(raw), "lightm-unet-3d", "[16,24,24]", ".nii.gz")


@pytest.fixture(scope="module")
def place(lesson: Lesson, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where everything happens: three folds trained, then continued."""
    place = tmp_path_factory.mktemp("lesson")
    data = str(lesson.data)
    segmamba(place, "data", "verify", data)
    segmamba(place, "data", "plan", data, "--recipe", lesson.recipe, "-o", "plan.json")
    segmamba(
        place, "train", lesson.recipe, "--data", data, "--name", "lesson", "--plan", "plan.json",
        "--fold", "all", "--folds", str(FOLDS), "--steps", "20", "--set", f"patch={lesson.patch}",
        *FEW_FILTERS, *QUIET,
    )  # fmt: skip
    segmamba(place, "train", "--name", "lesson", "--resume", "--steps", "30", *QUIET)
    return place


def segmamba(place: Path, *words: str) -> str:
    program = Path(sys.executable).with_name("segmamba")
    done = subprocess.run(
        [str(program), *words], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def values_of(path: Path) -> np.ndarray:
    if path.suffix == ".png":
        return np.asarray(Image.open(path))
    return np.asarray(nib.load(path).dataobj)


def test_every_fold_was_continued_and_judged(lesson: Lesson, place: Path) -> None:
    summary = json.loads((place / "results" / "lesson" / "cross_validation.json").read_text())
    for fold in range(FOLDS):
        run = place / "results" / "lesson" / f"fold_{fold}"
        lines = (run / "logs" / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line) for line in lines]
        assert max(line.get("step", 0) for line in steps) == 30
        for kept in ("plots/training_curves.png", "metrics/final_metrics.json", "report.html"):
            assert (run / kept).is_file()
        assert len(list((run / "predictions" / "raw").glob(f"*{lesson.ending}"))) == 2
    assert "nan" not in json.dumps(summary).lower()


def test_the_network_has_learnt_something(lesson: Lesson, place: Path) -> None:
    table = place / "scores.json"
    segmamba(
        place, "evaluate", "results/lesson/fold_0/predictions/raw", str(lesson.data / "labelsTr"),
        *lesson.label_sets, "--json", str(table),
    )  # fmt: skip
    scores = json.loads(table.read_text())["summary"]
    assert max(region["dice"]["mean"] for region in scores.values()) > 0.5


def test_corrections_are_found_on_cases_that_no_network_saw(place: Path, lesson: Lesson) -> None:
    segmamba(place, "postprocess", "find", "results/lesson", "--data", str(lesson.data))
    found = json.loads((place / "results" / "lesson" / "corrections.json").read_text())
    report = (place / "results" / "lesson" / "corrections_report.html").read_text()
    assert isinstance(found["steps"], list)
    assert "case 6" in report


def test_one_command_predicts_corrects_and_draws(lesson: Lesson, place: Path) -> None:
    data = str(lesson.data)
    segmamba(place, "postprocess", "find", "results/lesson", "--data", data)
    segmamba(place, "predict", "results/lesson", data, "--out", "answers", "--pictures", "2",
             "--tta", "none")  # fmt: skip
    raw = sorted((place / "answers" / "raw").glob(f"*{lesson.ending}"))
    assert len(raw) == 2
    for path in raw:
        corrected = place / "answers" / "postprocessed" / path.name
        assert values_of(corrected).shape == values_of(path).shape
        assert values_of(path).any()
    assert len(list((place / "answers" / "pictures").glob("*.png"))) >= 2
    summary = json.loads((place / "answers" / "summary.json").read_text())
    assert len(summary["cases"]) == 2


def test_sheets_show_prediction_and_truth(lesson: Lesson, place: Path) -> None:
    segmamba(
        place, "visualize", "--images", str(lesson.data), "--prediction",
        "results/lesson/fold_0/predictions/raw", "--truth", str(lesson.data / "labelsTr"),
        "-o", "sheets",
    )  # fmt: skip
    sheets = list((place / "sheets").glob("*.png"))
    assert len(sheets) == 3  # two cases and their index
    for sheet in sheets:
        assert np.asarray(Image.open(sheet)).std() > 10
