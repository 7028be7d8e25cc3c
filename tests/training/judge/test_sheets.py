"""Case sheets: right side on the left, words that are true, changes marked, no name in them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import typer
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from model_core.errors import InputError
from model_core.imaging import Volume, write_nifti
from model_core.metrics import dice
from tests.training.tiny import write_brats_dataset, write_png_dataset
from training.commands.visualize import visualize
from training.data.find import load_dataset
from training.judge.contact_sheet import WIDTH, write_index
from training.judge.sheet_legend import colours_of
from training.judge.sheets import draw_sheet, write_sheet
from training.task import BRATS, LabelArray, Task

AFFINE = np.array([[-2.0, 0, 0, 20], [0, -3.0, 0, 30], [0, 0, 4.0, -10], [0, 0, 0, 1]])
"""Array axes are L, P, S: low first index is the patient's right, low second is anterior."""
XRAY = Task(channels=("XRay",), labels=("blob",), dims=2)


def head(affine: npt.NDArray[np.float64] = AFFINE) -> Volume:
    array = np.zeros((24, 20, 16), np.float32)
    array[3:21, 2:18, 2:14] = np.random.default_rng(0).uniform(60, 100, (18, 16, 12))
    return Volume(array, affine)


def right_frontal_tumour() -> LabelArray:
    labels = np.zeros((24, 20, 16), np.uint8)
    labels[4:10, 3:8, 9:13] = 2
    labels[5:8, 4:7, 10:12] = 3
    return labels


def with_island(labels: LabelArray) -> LabelArray:
    """A false island of 8 voxels of 24 mm³, left and posterior, below the tumour."""
    more = labels.copy()
    more[16:18, 14:16, 4:6] = 1
    return more


@cache
def pixels(figure: Figure) -> npt.NDArray[np.int16]:
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), np.int16)[..., :3]


def panel(figure: Figure, row: int, column: int) -> npt.NDArray[np.int16]:
    image, columns = pixels(figure), sum(bool(axes.get_title()) for axes in figure.axes)
    place = figure.axes[row * columns + column].get_position(original=True)
    height, width = image.shape[:2]
    rows = slice(round((1 - place.y1) * height), round((1 - place.y0) * height))
    return image[rows, round(place.x0 * width) : round(place.x1 * width)]


def coloured(image: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    return np.asarray(image.max(axis=2) - image.min(axis=2) > 25)


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def words(figure: Figure) -> str:
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    return "\n".join([*texts, *titles(figure), *(text.get_text() for text in figure.texts)])


@pytest.fixture(scope="module")
def sheet() -> Figure:
    """Four contrasts, truth, prediction and post-processed prediction; four rows."""
    truth = right_frontal_tumour()
    raw = with_island(truth)
    return draw_sheet(
        [head()] * 4, BRATS, prediction=raw, postprocessed=truth, truth=truth, title="case 3"
    )


def test_the_tumour_lies_where_radiologists_expect_it(sheet: Figure) -> None:
    """Axial: upper left. Coronal: upper left. Sagittal, nose to the left: upper left."""
    for row in range(3):
        for column in (4, 5, 6):
            rows, columns = np.nonzero(coloured(panel(sheet, row, column)))
            height, width = panel(sheet, row, column).shape[:2]
            assert rows.size > 50
            assert np.median(rows) < height / 2
            assert np.median(columns) < width / 2


def test_contrasts_are_shown_without_labels(sheet: Figure) -> None:
    assert not any(coloured(panel(sheet, 0, column)).any() for column in range(4))


def test_titles_name_the_columns_and_tell_the_dice_of_the_volume(sheet: Figure) -> None:
    truth = right_frontal_tumour()
    raw = with_island(truth)
    wt, tc = (dice(np.isin(raw, some), np.isin(truth, some)) for some in ((1, 2, 3), (1, 3)))
    assert wt < 1
    assert titles(sheet)[:5] == ["T1", "T1 with contrast", "T2", "FLAIR", "Truth"]
    assert titles(sheet)[5] == f"Prediction\nDice  WT {wt:.3f}  TC {tc:.3f}  ET 1.000"
    assert titles(sheet)[6].startswith("Post-processed (0.19 mL changed)\nDice  WT 1.000")


def test_the_slice_that_changed_most_is_added_and_its_change_is_outlined(sheet: Figure) -> None:
    assert "most changed: axial, slice 6 of 16" in words(sheet)
    raw, corrected = panel(sheet, 3, 5), panel(sheet, 3, 6)
    pink = (corrected[..., 0] > 180) & (corrected[..., 1] < 120) & (corrected[..., 2] > 150)
    rows, columns = np.nonzero(pink)
    assert rows.size > 10
    assert rows.mean() > corrected.shape[0] / 2  # posterior
    assert columns.mean() > corrected.shape[1] / 2  # the patient's left
    orange = (raw[..., 0] > 150) & (raw[..., 2] < 60)
    assert orange.any()


def test_legend_sizes_sides_and_scale_are_there(sheet: Figure) -> None:
    text = words(sheet)
    for said in ("ED, oedema", "patient's right is on the left", "Not a medical device", "case 3"):
        assert said in text
    assert text.count("R\nL") >= 14  # every axial and coronal panel
    millilitres = np.count_nonzero(right_frontal_tumour()) * 24 / 1000
    assert f"{millilitres:.2f}" in text
    bars = [line for axes in sheet.axes for line in axes.lines]
    lengths = [float(np.ptp(np.asarray(line.get_xdata(), float))) for line in bars]
    assert lengths == pytest.approx([10.0] * 4)
    assert text.count("10 mm") == 4


def test_the_sheet_does_not_depend_on_the_orientation_of_the_file(sheet: Figure) -> None:
    truth = right_frontal_tumour()

    def turned(labels: LabelArray) -> LabelArray:
        return Volume(labels, AFFINE).reoriented("PIR").array

    other = draw_sheet(
        [head().reoriented("PIR")] * 4,
        BRATS,
        prediction=turned(with_island(truth)),
        postprocessed=turned(truth),
        truth=turned(truth),
        title="case 3",
    )
    for row in range(4):
        np.testing.assert_array_equal(panel(other, row, 6), panel(sheet, row, 6))


def test_a_picture_has_one_row_and_no_sides() -> None:
    image = np.tile(np.arange(60, dtype=np.float32), (40, 1))[None]
    labels = np.zeros((1, 40, 60), np.uint8)
    labels[0, 2:10, 45:58] = 1  # upper right, as the file has it
    figure = draw_sheet([Volume(image, np.eye(4))], XRAY, prediction=labels)
    assert titles(figure) == ["XRay", "Prediction"]
    rows, columns = np.nonzero(coloured(panel(figure, 0, 1)))
    height, width = panel(figure, 0, 1).shape[:2]
    assert rows.max() < height / 2 < columns.min() * height / width
    text = words(figure)
    assert "10 px" in text
    assert "Radiological" not in text
    assert "Dice" not in text


def test_an_rgb_picture_is_shown_in_colour() -> None:
    channels = [
        Volume(np.full((1, 30, 30), value, np.float32), np.eye(4)) for value in (200, 20, 90)
    ]
    task = Task(channels=("R", "G", "B"), labels=("blob",), dims=2)
    figure = draw_sheet(channels, task, prediction=np.zeros((1, 30, 30), np.uint8))
    assert titles(figure) == ["image", "Prediction"]
    middle = panel(figure, 0, 0)
    assert middle[middle.shape[0] // 2, middle.shape[1] // 2].tolist() == [200, 20, 90]


def test_no_tumour_anywhere_shows_the_middle_of_the_head() -> None:
    empty = np.zeros((24, 20, 16), np.uint8)
    figure = draw_sheet([head()], Task(channels=("MRI",), labels=("a",)), prediction=empty)
    assert "axial, slice 9 of 16" in words(figure)
    assert not coloured(panel(figure, 0, 1)).any()


def test_many_labels_have_colours_of_their_own_and_are_counted() -> None:
    task = Task(channels=("MRI",), labels=tuple(f"part {number}" for number in range(12)))
    assert len(set(list(colours_of(task).values())[:7])) == 7
    figure = draw_sheet([head()], task, prediction=np.zeros((24, 20, 16), np.uint8))
    assert "and 2 more" in words(figure)


def test_labels_of_another_grid_are_refused() -> None:
    with pytest.raises(InputError, match=r"truth: expected the images' shape \(24, 20, 16\)"):
        draw_sheet(
            [head()],
            Task(channels=("MRI",), labels=("a",)),
            prediction=np.zeros((24, 20, 16), np.uint8),
            truth=np.zeros((24, 20, 15), np.uint8),
        )


def test_a_written_sheet_is_a_png_without_words_about_its_maker(
    sheet: Figure, tmp_path: Path
) -> None:
    write_sheet(tmp_path / "a.png", sheet)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == tuple(sheet.canvas.get_width_height())
        assert "Software" not in image.info
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_the_index_shows_every_sheet_in_order(tmp_path: Path) -> None:
    colours = ((200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0))
    sheets = []
    for number, colour in enumerate(colours):
        Image.new("RGB", (1200, 600), colour).save(tmp_path / f"{number}.png")
        sheets.append((f"case {number}", tmp_path / f"{number}.png"))
    write_index(tmp_path / "index.png", sheets)
    page = np.asarray(Image.open(tmp_path / "index.png"))
    places = [(200, WIDTH // 2), (200, WIDTH + 200), (200, 2 * WIDTH + 200), (550, WIDTH // 2)]
    assert [tuple(int(v) for v in page[place]) for place in places] == list(colours)


# ---------------------------------------------------------------- segmamba visualize


def call(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(visualize)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_folder_of_predictions_becomes_a_folder_of_sheets(tmp_path: Path) -> None:
    data = write_png_dataset(tmp_path, cases=2)
    out = tmp_path / "sheets"
    result = call("--images", data, "--prediction", data / "labelsTr", "-o", out)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == [
        "index.png", "png_000.png", "png_001.png",
    ]  # fmt: skip
    assert "2 of 2 sheets" in result.output


def test_a_broken_case_is_named_and_the_others_are_drawn(tmp_path: Path) -> None:
    data = write_brats_dataset(tmp_path / "data", cases=2, shape=(16, 16, 12))
    raw = tmp_path / "raw"
    raw.mkdir()
    for case in load_dataset(data).labelled:
        assert case.label is not None
        (raw / f"{case.name}.nii.gz").write_bytes(case.label.read_bytes())
    write_nifti(raw / "tiny_000.nii.gz", Volume(np.zeros((16, 16, 11), np.uint8), np.eye(4)))
    write_nifti(raw / "stranger.nii.gz", Volume(np.zeros((4, 4, 4), np.uint8), np.eye(4)))
    out = tmp_path / "sheets"
    result = call("--images", data, "--prediction", raw, "-o", out)
    assert result.exit_code == 1
    assert [path.name for path in out.iterdir()] == ["tiny_001.png"]
    assert "tiny_000: label: expected the grid" in result.output
    assert "1 predictions without images" in result.output
    assert "1 of 2 sheets" in result.output


def test_predictions_of_other_cases_are_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "other.png")
    two = write_png_dataset(tmp_path / "two", cases=2)
    refused = call("--images", two, "--prediction", tmp_path / "other.png", "-o", tmp_path / "p")
    assert isinstance(refused.exception, InputError)
    assert not (tmp_path / "p").exists()
