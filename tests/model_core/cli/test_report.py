"""`segmamba report`: what a run left becomes a page, and two runs become a comparison."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from model_core.cli.main import app
from tests.model_core.report.studies import page_of

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def result(
    tmp_path_factory: pytest.TempPathFactory, models_folder: Path, study_folder: Path
) -> Path:
    """A folder as a run leaves it, under a name that must not be told."""
    from typer.testing import CliRunner

    folder = tmp_path_factory.mktemp("results") / "JANE_DOE"
    folder.mkdir()
    archive = folder / "all.zip"
    words = ["segment", str(study_folder), "-o", str(folder / "JANE.nii.gz")]
    words += ["--archive", str(archive), "--model", str(models_folder / "tiny")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    for contrast in ("t1ce", "flair"):
        shutil.copy(study_folder / f"Phantom_0000_{contrast}.nii.gz", folder / f"{contrast}.nii.gz")
    return folder


def test_the_archive_of_a_run_holds_the_page(result: Path) -> None:
    page = page_of((result / "report.html").read_text(encoding="utf-8"))
    assert "For research use only" in page.text
    assert "tiny, version 0.0.1" in page.text
    assert "means nothing" in page.text, "the card's limits"
    assert "The images were taken as they came." in page.text
    assert page.all("img")


@pytest.mark.parametrize("kind", ["folder", "archive", "run.json", "files"])
def test_a_result_is_told_in_every_way(
    kind: str, result: Path, segmamba: Run, tmp_path: Path
) -> None:
    named = [
        *("--labels", result / "segmentation.nii.gz", "--run", result / "run.json"),
        *("--t1ce", result / "t1ce.nii.gz", "--flair", result / "flair.nii.gz"),
    ]
    words: dict[str, list[object]] = {
        "folder": [result],
        "archive": [result / "all.zip", *named[4:]],
        "run.json": [result / "run.json"],
        "files": named,
    }
    output = tmp_path / "page.html"
    done = segmamba("report", *words[kind], "-o", output)
    assert done.exit_code == 0, done.output
    html = output.read_text(encoding="utf-8")
    page = page_of(html)
    first = page_of((result / "report.html").read_text(encoding="utf-8"))
    assert [one["src"] for one in page.all("img")] == [one["src"] for one in first.all("img")]
    assert "tiny, version 0.0.1" in page.text
    assert "means nothing" in page.text
    for name in ("JANE", "Phantom", str(result)):
        assert name not in html


def test_a_report_beside_the_run_of_the_map_is_used(
    result: Path, segmamba: Run, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("segmentation.nii.gz", "report.json"):
        shutil.copy(result / name, alone / name)
    labels = ["--labels", result / "segmentation.nii.gz"]
    for words, left_out in (([result, *labels], False), ([alone], False), ([alone, *labels], True)):
        done = segmamba("report", *words, "-o", tmp_path / "page.html", "--overwrite")
        assert done.exit_code == 0, done.output
        text = page_of((tmp_path / "page.html").read_text(encoding="utf-8")).text
        assert ("report.json: left out" in text) == left_out
        assert ("Arithmetic" in text) != left_out, "as the report tells it"


def test_nothing_is_replaced_unless_asked(result: Path, segmamba: Run, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    output.write_text("mine")
    done = segmamba("report", result, "-o", output)
    assert done.exit_code == 2
    assert output.read_text() == "mine"
    assert segmamba("report", result, "-o", output, "--overwrite").exit_code == 0


def test_the_run_json_of_another_label_map_is_refused(
    result: Path, segmamba: Run, tmp_path: Path, study_folder: Path
) -> None:
    done = segmamba(
        "report", "--labels", study_folder / "Phantom_0000_seg.nii.gz", "--run",
        result / "run.json", "-o", tmp_path / "page.html",
    )  # fmt: skip
    assert done.exit_code == 2
    assert "expected the account of this label map" in done.output
    assert not list(tmp_path.iterdir())


def test_one_result_and_a_comparison_at_once_are_refused(result: Path, segmamba: Run) -> None:
    done = segmamba("report", result, "--before", result, "--after", result)
    assert done.exit_code == 2
    assert "either one result, or --before and --after" in done.output


@pytest.mark.slow
def test_a_session_compared_with_itself_has_not_changed(
    result: Path, segmamba: Run, tmp_path: Path
) -> None:
    output = tmp_path / "change.html"
    done = segmamba("report", "--before", result, "--after", result, "-o", output)
    assert done.exit_code == 0, done.output
    page = page_of(output.read_text(encoding="utf-8"))
    assert "The same weights made both label maps." in page.text
    assert "+0.00 +0%" in page.text
    assert "Movement none: left where the headers put it" in page.text
