"""The picture: right side on the left, the same for every orientation, words that are true."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure
from PIL import Image

from model_core.errors import InputError
from model_core.imaging.study import Study
from model_core.imaging.volume import Volume
from model_core.preview import draw_preview, render_preview
from model_core.types import CONTRASTS, Label

AFFINE = np.array([[-2.0, 0, 0, 20], [0, -3.0, 0, 30], [0, 0, 4.0, -10], [0, 0, 0, 1]])


def grey_head(affine: npt.NDArray[np.float64] = AFFINE) -> Volume:
    rng = np.random.default_rng(0)
    array = np.zeros((24, 20, 16), np.float32)
    array[3:21, 2:18, 2:14] = rng.uniform(60, 100, (18, 16, 12))
    return Volume(array, affine)


def study_of(volume: Volume) -> Study:
    return Study(volumes=dict.fromkeys(CONTRASTS, volume), reference="t1", native=volume)


def right_frontal_tumour() -> npt.NDArray[np.uint8]:
    """Array axes are L, P, S: low first index is the patient's right, low second is anterior."""
    labels = np.zeros((24, 20, 16), np.uint8)
    labels[4:10, 3:8, 9:13] = Label.ED
    labels[5:8, 4:7, 10:12] = Label.ET
    labels[6, 5, 10] = Label.NCR
    return labels


def pixels(figure: Figure) -> npt.NDArray[np.int16]:
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), np.int16)[..., :3]


def coloured(image: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    return np.asarray(image.max(axis=2) - image.min(axis=2) > 25)


def panel(image: npt.NDArray[np.int16], figure: Figure, number: int) -> npt.NDArray[np.int16]:
    height, width = image.shape[:2]
    place = figure.axes[number].get_position(original=True)
    rows = slice(round((1 - place.y1) * height), round((1 - place.y0) * height))
    return image[rows, round(place.x0 * width) : round(place.x1 * width)]


def words(figure: Figure) -> str:
    texts = [t.get_text() for axes in figure.axes for t in (*axes.texts, axes.title)]
    return "\n".join(texts)


@pytest.fixture(scope="module")
def figure() -> Figure:
    return draw_preview(study_of(grey_head()), right_frontal_tumour(), model="tiny 1.0")


def test_a_right_frontal_superior_tumour_is_drawn_where_radiologists_expect_it(
    figure: Figure,
) -> None:
    """Axial: upper left. Coronal: upper left. Sagittal, nose to the left: upper left."""
    image = pixels(figure)

    for number in range(3):
        part = panel(image, figure, number)
        rows, columns = np.nonzero(coloured(part))
        assert rows.size > 100
        assert rows.mean() < 0.5 * part.shape[0]
        assert columns.mean() < 0.5 * part.shape[1]


@pytest.mark.parametrize("axcodes", ["RAS", "SPL", "PIR"])
def test_another_orientation_of_the_same_study_gives_the_same_picture(
    figure: Figure, axcodes: str
) -> None:
    head = grey_head().reoriented(axcodes)
    labels = Volume(right_frontal_tumour(), AFFINE).reoriented(axcodes).array

    turned = draw_preview(study_of(head), labels, model="tiny 1.0")

    images = pixels(figure), pixels(turned)
    for number in range(6):
        a, b = (panel(image, figure, number) for image in images)
        assert np.abs(a - b).max() <= 2


def test_the_legend_gives_millilitres_of_labels_and_regions(figure: Figure) -> None:
    text = words(figure)

    # Voxels of 24 mm³: 1 NCR, 17 ET, 102 ED.
    for volume in ("0.0 mL", "0.4 mL", "2.4 mL", "2.9 mL"):
        assert volume in text
    assert "patient's right is on the\nleft" in text
    assert "tiny 1.0" in text
    assert "Not a medical device" in text


def test_titles_count_slices_of_the_file_from_one(figure: Figure) -> None:
    """The largest section is at index 10 (of 16), 4 (of 20) and 5 (of 24): the first of equals."""
    labels = right_frontal_tumour()
    assert (labels > 0).sum(axis=(0, 1)).argmax() == 9

    text = words(figure)

    for title in ("axial · slice", "coronal · slice", "sagittal · slice"):
        assert title in text
    axial = next(line for line in text.splitlines() if line.startswith("axial"))
    number, total = (int(word) for word in axial.split() if word.isdigit())
    assert total == 16
    assert (labels[:, :, number - 1] > 0).sum() == 30  # one of the largest sections


def test_an_empty_map_says_so_and_colours_nothing() -> None:
    figure = draw_preview(study_of(grey_head()), np.zeros((24, 20, 16), np.uint8))
    image = pixels(figure)

    assert "No tumour found" in words(figure)
    assert "Model" not in words(figure)
    for number in range(6):
        assert not coloured(panel(image, figure, number)).any()


def test_anisotropic_voxels_keep_their_proportions() -> None:
    """The head is 36 mm wide and 48 mm deep in the axial plane, whatever the voxels."""
    figure = draw_preview(study_of(grey_head()), np.zeros((24, 20, 16), np.uint8))
    part = panel(pixels(figure), figure, 0)
    bright = part.min(axis=2) > 70
    rows, columns = np.nonzero(bright[40:-40, 40:-40])  # letters stand at the edges

    ratio = np.ptp(rows) / np.ptp(columns)
    assert ratio == pytest.approx(48 / 36, rel=0.06)


def test_a_flat_and_a_blank_study_can_be_drawn() -> None:
    flat = Volume(np.ones((1, 6, 5), np.float32), np.eye(4))
    blank = Volume(np.zeros((6, 6, 5), np.float32), np.eye(4))

    for volume in (flat, blank):
        figure = draw_preview(study_of(volume), np.ones(volume.shape, np.uint8))
        assert pixels(figure).any()


def test_the_file_is_a_png_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "unfinished.part"

    render_preview(study_of(grey_head()), right_frontal_tumour(), path)

    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.size == (1452, 792)
        assert not image.text  # type: ignore[attr-defined]


def test_labels_of_another_grid_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.png"

    with pytest.raises(InputError, match="labels: expected the study's shape"):
        render_preview(study_of(grey_head()), np.zeros((24, 20, 15), np.uint8), path)

    assert not path.exists()


def test_no_global_drawing_state_is_touched() -> None:
    code = "import sys, model_core.preview; sys.exit('matplotlib.pyplot' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
