"""Runs beside each other: only what differs, every score with its spread, curves in one picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.training.runs.conftest import MakeRun
from training.runs import compare
from training.runs.compare import ABSENT, config_differences, draw_overlay, flat, score_rows
from training.runs.run_folder import write_json
from training.runs.summary import FoldSet, RunSummary, read_run


def run(path: Path) -> RunSummary | FoldSet:
    found = read_run(path)
    assert found is not None
    return found


def test_only_settings_that_differ_are_named(make_run: MakeRun) -> None:
    first = run(make_run("first").path)
    second = run(make_run("second", learning_rate=0.5, patch=(96, 96, 96)).path)
    assert config_differences([first, second]) == {
        "learning_rate": (1e-3, 0.5),
        "patch": ([64, 64, 64], [96, 96, 96]),
    }
    assert config_differences([first, first]) == {}


def test_nested_settings_have_dotted_names() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": {}}, "e": [{"f": 2}]}) == {
        "a.b.c": 1, "a.d": {}, "e": [{"f": 2}],
    }  # fmt: skip


def test_a_setting_that_a_run_does_not_have_is_a_difference(make_run: MakeRun) -> None:
    first, second = make_run("first"), make_run("second")
    write_json(first.config, {"steps": 1, "augmentation": {"flip": 0.5}})
    write_json(second.config, {"steps": 1, "synthetic": 3})
    assert config_differences([run(first.path), run(second.path)]) == {
        "augmentation.flip": (0.5, ABSENT),
        "synthetic": (ABSENT, 3),
    }


def test_scores_side_by_side_with_folds_as_mean_and_spread(
    make_run: MakeRun, tmp_path: Path
) -> None:
    first = make_run("first", scores=(0.6,))
    write_json(first.final_metrics, {"summary": {"WT": {"dice": {"mean": 0.65}}}})
    make_run("cv/fold_0", scores=(0.7,))
    make_run("cv/fold_1", scores=(0.9,))
    rows = score_rows([run(first.path), run(tmp_path / "results" / "cv")])
    assert rows["best mean Dice"][0] == (0.6, None)
    assert rows["best mean Dice"][1] == (pytest.approx(0.8), pytest.approx(0.02**0.5))
    assert rows["final dice WT"] == ((0.65, None), None)
    assert next(iter(rows)) == "best mean Dice"


def test_the_overlay_has_a_line_per_run_and_fold(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    write = compare.write_figure
    monkeypatch.setattr(
        compare, "write_figure", lambda figure, path: (figures.append(figure), write(figure, path))
    )
    first = run(make_run("first", scores=(0.6, 0.5)).path)
    unjudged = run(make_run("second", scores=()).path)
    make_run("cv/fold_0", scores=(0.7,))
    make_run("cv/fold_1", scores=(0.9,))
    target = tmp_path / "curves.png"
    draw_overlay([first, unjudged, run(tmp_path / "results" / "cv")], target)
    above, below = figures[0].axes
    assert len(above.get_lines()) == 4
    curves = [line for line in below.get_lines() if line.get_marker() != "*"]
    assert [list(line.get_ydata()) for line in curves] == [[0.6, 0.5], [0.7], [0.9]]
    assert below.get_legend_handles_labels()[1] == ["first (best 0.600)", "cv (best 0.800 ± 0.141)"]
    assert target.read_bytes().startswith(b"\x89PNG")
