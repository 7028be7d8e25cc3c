"""The curves show what was recorded: every line's data, the best marked, nothing invented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tests.training.runs.conftest import MakeRun
from training.runs import plots
from training.runs.plots import draw_curves
from training.runs.run_folder import RunFolder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written, to look into."""
    figures: list[Figure] = []
    write = plots.write_figure

    def keep(figure: Figure, path: Path) -> None:
        figures.append(figure)
        write(figure, path)

    monkeypatch.setattr(plots, "write_figure", keep)
    return figures


def lines_of(figure: Figure) -> dict[str, tuple[list[float], list[float]]]:
    found = {}
    for axes in figure.axes:
        for line in axes.get_lines():
            label = str(line.get_label())
            name = label if not label.startswith("_") else axes.get_ylabel()
            found[name] = ([*map(float, line.get_xdata())], [*map(float, line.get_ydata())])
    return found


def test_nothing_recorded_no_picture(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "first")
    draw_curves(folder)
    assert not folder.curves.exists()


def test_every_series_is_drawn_and_the_best_is_marked(
    make_run: MakeRun, drawn: list[Figure]
) -> None:
    folder = make_run(scores=(0.5, 0.8, 0.7, 0.6))
    folder.record("epoch", step=100, pseudo_dice={"WT": 0.4}, ema_pseudo_dice=0.3)
    draw_curves(folder)
    lines = lines_of(drawn[0])
    assert lines["as recorded"][1] == pytest.approx(2 - np.arange(10, 101, 10) / 100)
    assert lines["ET"] == ([25, 50, 75, 100], pytest.approx([0.4, 0.7, 0.6, 0.5]))
    assert lines["mean"][1] == [0.5, 0.8, 0.7, 0.6]
    assert lines["best: 0.800 at step 50"] == ([50], [0.8])
    assert lines["smoothed mean (EMA)"] == ([100], [0.3])
    assert lines["learning\nrate"][1] == pytest.approx(1e-3 * np.arange(10, 101, 10))
    assert lines["median 2 s"][1] == [2, 2]
    assert len(drawn[0].axes) == 5
    with Image.open(folder.curves) as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture.convert("L")).std() > 5, "an empty page"
    assert [path.name for path in folder.plots.iterdir()] == [folder.curves.name]


def test_panels_are_there_only_for_what_was_recorded(tmp_path: Path, drawn: list[Figure]) -> None:
    folder = RunFolder.create(tmp_path, "first")
    folder.record("step", step=1, loss=1.5)
    folder.record("step", step=2, loss=float("nan"), seconds=None)
    folder.record("step", step=3)
    draw_curves(folder)
    assert [axes.get_ylabel() for axes in drawn[0].axes] == ["training loss"]
    assert lines_of(drawn[0])["as recorded"] == ([1], [1.5])


def test_a_spike_does_not_flatten_the_rest(tmp_path: Path, drawn: list[Figure]) -> None:
    folder = RunFolder.create(tmp_path, "first")
    for step in range(1, 201):
        folder.record("step", step=step, loss=100.0 if step == 1 else 1.0)
    draw_curves(folder)
    assert drawn[0].axes[0].get_ylim()[1] < 2


def test_one_region_needs_no_mean_of_regions(tmp_path: Path, drawn: list[Figure]) -> None:
    folder = RunFolder.create(tmp_path, "first")
    folder.record("validation", step=5, mean={"lung": 0.9}, score=0.9)
    draw_curves(folder)
    assert set(lines_of(drawn[0])) - {"validation Dice\n(mean of cases)"} == {
        "lung", "best: 0.900 at step 5",
    }  # fmt: skip
    assert drawn[0].axes[0].get_ylim() == (0.8, 1.0)
