"""`segmamba segment`: what a user asks for, gets, and is refused."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from model_core.checkpoints import load_bundle
from model_core.cli.show import StudyProgress
from model_core.imaging.nifti import read_nifti
from model_core.imaging.study import find_studies, load_study
from model_core.inference.segmenter import Segmenter

Run = Callable[..., Result]


def files_of(study_folder: Path) -> list[object]:
    (study,) = find_studies(study_folder)
    return [part for contrast, path in study.paths.items() for part in (f"--{contrast}", path)]


def test_four_files_give_the_label_map_of_the_python_interface(
    segmamba: Run, study_folder: Path, models_folder: Path, tmp_path: Path
) -> None:
    done = segmamba("segment", *files_of(study_folder), "-m", "tiny", "-o", tmp_path / "s.nii.gz")
    assert done.exit_code == 0, done.output
    (files,) = find_studies(study_folder)
    expected = Segmenter(load_bundle(models_folder / "tiny")).segment(load_study(files.paths))
    assert (tmp_path / "s.nii.gz").read_bytes() == expected.encode()
    assert f"{expected.volumes_ml['WT']:.1f}" in done.stdout


def test_the_written_map_lies_on_the_grid_of_the_t1_image(
    segmamba: Run, study_folder: Path, tmp_path: Path
) -> None:
    segmamba("segment", study_folder, "-m", "tiny", "-o", tmp_path / "s.nii.gz")
    (files,) = find_studies(study_folder)
    native = read_nifti(files.paths["t1"], argument="t1")
    written = read_nifti(tmp_path / "s.nii.gz", argument="labels")
    assert written.array.shape == native.array.shape
    np.testing.assert_array_equal(written.affine, native.affine)


def test_the_report_is_the_one_schema_and_the_scheme_is_obeyed(
    segmamba: Run, study_folder: Path, tmp_path: Path
) -> None:
    done = segmamba(
        "segment", study_folder, "-m", "tiny", "-o", tmp_path / "s.nii.gz", "--report",
        tmp_path / "r.json", "--label-scheme", "brats2023", "--tta", "fast", "--backend", "torch",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["label_scheme"] == "brats2023"
    assert report["tta"]["passes"] == 4
    assert report["backend"] == "torch"
    assert "backend torch" in done.stdout
    assert str(study_folder.name) not in json.dumps(report)


def test_an_uncompressed_map_holds_the_same_bytes(
    segmamba: Run, study_folder: Path, tmp_path: Path
) -> None:
    for name in ("s.nii", "s.nii.gz"):
        assert segmamba("segment", study_folder, "-m", "tiny", "-o", tmp_path / name).exit_code == 0
    unpacked = gzip.decompress((tmp_path / "s.nii.gz").read_bytes())
    assert (tmp_path / "s.nii").read_bytes() == unpacked


def test_a_preview_is_a_picture(segmamba: Run, study_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.nii.gz"
    segmamba("segment", study_folder, "-m", "tiny", "-o", out, "--preview", tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_existing_results_are_refused_before_any_work_unless_overwritten(
    segmamba: Run, study_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "s.nii.gz"
    out.write_bytes(b"precious")
    refused = segmamba("segment", study_folder, "-m", "no-such-model", "-o", out)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.stderr
    assert out.read_bytes() == b"precious"
    assert segmamba("segment", study_folder, "-m", "tiny", "-o", out, "--overwrite").exit_code == 0
    assert out.read_bytes() != b"precious"


@pytest.fixture
def three_studies(study_folder: Path, tmp_path: Path) -> Path:
    """Studies A, B and C; B's flair is no image."""
    folder = tmp_path / "studies"
    for name in "ABC":
        for path in study_folder.iterdir():
            target = folder / name / path.name.replace("Phantom_0000", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    (folder / "B" / "B_flair.nii.gz").write_bytes(b"not an image")
    return folder


def test_of_many_studies_one_failure_is_told_and_the_others_are_done(
    segmamba: Run, three_studies: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = segmamba("segment", three_studies, "-m", "tiny", "-o", out, "--report", out)
    assert done.exit_code == 1
    assert sorted(path.name for path in out.iterdir()) == [
        "A.json", "A.nii.gz", "C.json", "C.nii.gz",
    ]  # fmt: skip
    assert "2 of 3 studies done, 1 failed" in done.stdout
    assert "flair" in done.stderr


def test_results_that_are_there_are_kept_when_many_are_asked_for(
    segmamba: Run, three_studies: Path, tmp_path: Path
) -> None:
    shutil.rmtree(three_studies / "B")
    out = tmp_path / "out"
    out.mkdir()
    (out / "A.nii.gz").write_bytes(b"precious")
    done = segmamba("segment", three_studies, "-m", "tiny", "-o", out)
    assert done.exit_code == 0
    assert (out / "A.nii.gz").read_bytes() == b"precious"
    assert "kept" in done.stdout
    assert (out / "C.nii.gz").stat().st_size > 100


def test_one_file_for_several_studies_is_refused(
    segmamba: Run, three_studies: Path, tmp_path: Path
) -> None:
    done = segmamba("segment", three_studies, "-m", "tiny", "-o", tmp_path / "one.nii.gz")
    assert done.exit_code == 2
    assert "--output" in done.stderr
    assert "folder" in done.stderr


def test_a_missing_contrast_is_named(segmamba: Run, study_folder: Path, tmp_path: Path) -> None:
    arguments = files_of(study_folder)[:-2]
    done = segmamba("segment", *arguments, "-o", tmp_path / "s.nii.gz")
    assert done.exit_code == 2
    assert "--flair" in done.stderr


def test_a_failure_leaves_nothing_behind(
    segmamba: Run, study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when the last of the files is the one that cannot be written."""

    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("model_core.preview.render_preview", broken)
    out = tmp_path / "out"
    done = segmamba(
        "segment", study_folder, "-m", "tiny", "-o", out / "s.nii.gz", "--report", out / "r.json",
        "--preview", out / "p.png",
    )  # fmt: skip
    assert done.exit_code == 2
    assert "No space left on device" in done.stderr
    assert not list(out.iterdir())


def test_an_unknown_model_is_one_clear_line(
    segmamba: Run, study_folder: Path, tmp_path: Path
) -> None:
    done = segmamba("segment", study_folder, "-m", "nope", "-o", tmp_path / "s.nii.gz")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "tiny" in done.stderr


def test_ctrl_c_ends_the_work_between_windows_and_writes_nothing(
    segmamba: Run, study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def press(_self: StudyProgress, stage: str, _done: int, _total: int) -> None:
        if stage == "infer" and "infer" not in seen:
            signal.raise_signal(signal.SIGINT)
        seen.append(stage)

    monkeypatch.setattr(StudyProgress, "update", press)
    out = tmp_path / "out"
    done = segmamba("segment", study_folder, "-m", "tiny", "-o", out / "s.nii.gz")
    assert done.exit_code == 130
    assert "postprocess" not in seen
    assert not out.exists()
