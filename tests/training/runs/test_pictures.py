"""Pictures of validation cases: the right slice, both maps, the Dice of the whole case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.training.runs.conftest import MakeRun
from training.runs import pictures as module
from training.runs.palette import label_colours
from training.runs.pictures import ValidationPictures, dice_in_words, shown_channels
from training.runs.run_folder import RunFolder, write_json
from training.runs.scene import Scene, draw_scene
from training.task import BRATS, Task

PNG = Task(channels=("photo",), labels=("lung",), dims=2)


def labels(shape: tuple[int, int, int] = (20, 24, 28), depth: int = 6) -> np.ndarray:
    """A tumour whose largest section is at `depth` along the first axis."""
    array = np.zeros(shape, np.uint8)
    array[3:9, 6:12, 6:12] = 2
    array[depth, 4:16, 4:18] = 2
    array[depth, 8:10, 8:10] = 3
    return array


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> list[Scene]:
    """What is drawn, to look into."""
    seen: list[Scene] = []

    def keep(scene: Scene, task: Task) -> Any:
        seen.append(scene)
        return draw_scene(scene, task)

    monkeypatch.setattr(module, "draw_scene", keep)
    return seen


def image_of(truth: np.ndarray, channels: int) -> np.ndarray:
    image = np.random.default_rng(0).normal(1, 0.1, (channels, *truth.shape)).astype(np.float32)
    image[:, :, :2] = 0
    return image


def test_one_png_an_evaluation_named_by_number_and_step(
    make_run: MakeRun, scenes: list[Scene]
) -> None:
    folder = make_run(scores=(0.5, 0.6), steps=100)  # evaluated after 50 and 100
    show = ValidationPictures(folder, 100, BRATS, limit=2)
    truth = labels()
    for name in ("case 1", "case 2", "case 3"):
        show(name, image_of(truth, 4), truth, np.roll(truth, 1, axis=1))
    assert [path.name for path in folder.validation_pictures()] == [
        "val_predictions_epoch_0002_step_000100.png"
    ]
    assert [scene.title.split("  ")[0] for scene in scenes] == ["case 1", "case 2"]
    with Image.open(show.path) as picture:
        assert picture.format == "PNG"
        two = picture.size
    ValidationPictures(folder, 100, BRATS, limit=1)("case 1", image_of(truth, 4), truth, truth)
    with Image.open(show.path) as picture:
        assert picture.size[0] == two[0]
        assert picture.size[1] < two[1]


def test_the_slice_with_the_largest_section_of_the_truth_is_shown(
    make_run: MakeRun, scenes: list[Scene]
) -> None:
    folder = make_run()  # orientation SPL: axial slices lie across the first axis, unturned
    truth = labels(depth=6)
    predicted = np.zeros_like(truth)
    ValidationPictures(folder, 100, BRATS)("case 1", image_of(truth, 4), truth, predicted)
    scene = scenes[0]
    np.testing.assert_array_equal(scene.truth, truth[6])
    np.testing.assert_array_equal(scene.predicted, predicted[6])
    np.testing.assert_array_equal(scene.outside[:2], True)
    assert not scene.outside[2:].any()
    assert list(scene.images) == ["FLAIR", "T1ce"]
    assert scene.title == "case 1  ·  Dice: WT 0.00, TC 0.00, ET 0.00"


def test_without_truth_the_prediction_chooses(make_run: MakeRun, scenes: list[Scene]) -> None:
    predicted = labels(depth=15)
    empty = np.zeros_like(predicted)
    show = ValidationPictures(make_run(), 100, BRATS)
    show("case 1", image_of(empty, 4), empty, predicted)
    np.testing.assert_array_equal(scenes[0].predicted, predicted[15])


def test_voxels_keep_their_proportions(tmp_path: Path, scenes: list[Scene]) -> None:
    folder = RunFolder.create(tmp_path, "first")
    write_json(folder.config, {"orientation": "RSA", "spacing_mm": [1.0, 3.0, 2.0]})
    truth = labels()
    task = Task(channels=("MRI",), labels=("NCR", "ED", "ET"))
    ValidationPictures(folder, 1, task)("case 1", image_of(truth, 1), truth, truth)
    assert scenes[0].aspect == 2.0  # rows run along A (2 mm), columns along R (1 mm)


def test_a_picture_is_shown_as_it_is(tmp_path: Path, scenes: list[Scene]) -> None:
    folder = RunFolder.create(tmp_path, "first")
    truth = np.zeros((1, 40, 60), np.uint8)
    truth[0, :20, :10] = 1
    show = ValidationPictures(folder, 7, PNG)
    show("case 1", np.full((1, 1, 40, 60), 5, np.float32), truth, truth)
    np.testing.assert_array_equal(scenes[0].truth, truth[0])
    assert scenes[0].title.endswith("Dice: lung 1.00")
    assert show.path.is_file()


def test_of_many_regions_the_mean_and_the_lowest_are_told() -> None:
    task = Task(channels=("CT",), labels=tuple(f"organ {i}" for i in range(1, 9)))
    truth = np.arange(1, 9, dtype=np.uint8).reshape(2, 2, 2)
    predicted = np.where(truth == 5, 0, truth)
    assert dice_in_words(truth, predicted, task) == "mean of 8 regions 0.88, lowest organ 5 0.00"


def test_brats_in_any_order_of_channels_shows_flair_and_t1ce() -> None:
    assert shown_channels(BRATS) == (3, 1)
    turned = Task(channels=("t2", "flair", "t1", "t1ce"), labels=BRATS.labels)
    assert shown_channels(turned) == (1, 3)
    assert shown_channels(Task(channels=("a", "b"), labels=("x",))) == (0,)


def test_labels_have_their_own_colours() -> None:
    assert len(set(label_colours(BRATS).values())) == 3
    assert label_colours(BRATS)[3] == pytest.approx((240 / 255, 228 / 255, 66 / 255))
    many = Task(channels=("CT",), labels=tuple(f"organ {i}" for i in range(1, 8)))
    assert len(set(label_colours(many).values())) == 7


def test_the_drawing_puts_the_truth_left_and_the_prediction_right() -> None:
    truth = np.zeros((40, 40), np.uint8)
    truth[10:30, 10:30] = 1
    scene = Scene(
        title="case 1",
        images={"photo": np.ones((40, 40), np.float32)},
        outside=np.zeros((40, 40), bool),
        truth=truth,
        predicted=np.zeros_like(truth),
    )
    picture = draw_scene(scene, PNG).astype(int)
    coloured = (picture.max(axis=2) - picture.min(axis=2)) > 20
    thirds = np.array_split(coloured.any(axis=0), 3)
    assert [bool(third.any()) for third in thirds] == [False, True, False]


def test_a_case_that_cannot_be_drawn_ends_no_run(
    make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    truth = labels()
    show = ValidationPictures(make_run(), 100, BRATS, limit=1)
    show("case 1", image_of(truth, 4), truth, truth[:-1])
    assert "no picture of case 1" in caplog.text
    show("case 2", image_of(truth, 4), truth, truth)
    assert show.path.is_file()
