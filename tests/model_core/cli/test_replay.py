"""`segmamba replay`: the same again is said to be the same, anything else by how much."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from model_core.cli import main
from model_core.cli.engine import Engine, make_segmenter
from model_core.cli.replay import _read_dicom, replay
from model_core.dicom.series import list_series
from model_core.dicom.volume import read_series
from model_core.imaging.nifti import read_label_map, read_nifti
from model_core.imaging.study import find_studies
from model_core.inference.segmenter import SegmentOptions
from model_core.metrics.overlap import region_dice
from model_core.preparation.options import PrepareOptions
from model_core.preparation.prepare import prepare_study
from model_core.provenance import RunFacts, manifest_of
from model_core.provenance.digests import card_sha256, decoded_sha256
from tests.dicom_series import SeriesRecipe, enhanced_of, geometry_affine, write_series
from tests.model_core.provenance.runs import FirstRun, first_run
from tests.model_core.provenance.tiny import write_bundle

ENGINE: dict[str, Any] = {
    "device": "cpu", "backend": "torch", "precision": "float32", "threads": 1,
}  # fmt: skip
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FirstRun:
    return first_run(tmp_path_factory.mktemp("replay"), SegmentOptions(label_scheme="brats2023"))


@pytest.fixture
def again(monkeypatch: pytest.MonkeyPatch, run: FirstRun) -> Iterator[Run]:
    """``segmamba replay`` with the run's model installed."""
    find = main.CommandGroup.get_command

    def get_command(self: Any, ctx: Any, name: str) -> Any:
        return main._as_command(name, replay) if name == "replay" else find(self, ctx, name)

    monkeypatch.setattr(main.CommandGroup, "get_command", get_command)
    monkeypatch.setenv("SEGMAMBA_MODELS", str(run.models))
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("DEBUG", "SCAN_BACKEND", "PRECISION", "THREADS", "MEMORY_LIMIT_MB"):
        monkeypatch.delenv(f"SEGMAMBA_{name}", raising=False)
    threads = torch.get_num_threads()

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main.app, ["replay", *map(str, arguments)])

    yield invoke
    torch.set_num_threads(threads)


def edited(run: FirstRun, folder: Path, **fields: Any) -> Path:
    """The run's run.json with other fields, somewhere else."""
    path = folder / "edited.json"
    path.write_text(json.dumps({**json.loads(run.run_json.read_text()), **fields}))
    return path


def test_the_same_run_gives_the_same_file_and_says_so(
    again: Run, run: FirstRun, tmp_path: Path
) -> None:
    hidden = tmp_path / "elsewhere"
    hidden.mkdir()
    for number, path in enumerate(sorted(run.study.iterdir())):
        shutil.copy(path, hidden / f"{number}.dat")
    done = again(run.run_json, "--input", hidden, "-o", tmp_path / "new" / "again.nii.gz")
    assert done.exit_code == 0, done.output
    assert "byte for byte" in done.stdout
    assert "as they were" in done.stdout
    written = (tmp_path / "new" / "again.nii.gz").read_bytes()
    assert written == run.label_map.read_bytes()


def test_other_weights_under_the_same_name_are_named_and_the_difference_measured(
    again: Run, run: FirstRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "models", seed=4)
    monkeypatch.setenv("SEGMAMBA_MODELS", str(tmp_path / "models"))
    out = tmp_path / "again.nii.gz"
    done = again(run.run_json, "--input", run.study, "--input", run.label_map, "-o", out)
    assert done.exit_code == 1, done.output
    assert "weights" in done.stdout
    first, _ = read_label_map(run.label_map, argument="first")
    now, _ = read_label_map(out, argument="now")
    assert f"Different in {(first != now).sum()} voxels" in done.stdout
    dice = region_dice(now, first)
    assert f"WT {dice['WT']:.4f}" in done.stdout
    tolerated = again(
        run.run_json, "-i", run.study, "-i", run.label_map,
        "--tolerance", min(1.0, 1 - min(dice.values()) + 1e-6),
    )  # fmt: skip
    assert tolerated.exit_code == 0, tolerated.output


def test_without_the_first_map_a_difference_is_told_and_not_guessed(
    again: Run, run: FirstRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "models", seed=4)
    monkeypatch.setenv("SEGMAMBA_MODELS", str(tmp_path / "models"))
    done = again(edited(run, tmp_path), "--input", run.study, "--tolerance", "1")
    assert done.exit_code == 1
    assert "not at hand" in done.stdout


def test_another_version_of_a_library_is_named_and_the_result_decides(
    again: Run, run: FirstRun, tmp_path: Path
) -> None:
    packages = {**run.manifest.packages, "scipy": "0.1.2"}
    done = again(edited(run, tmp_path, packages=packages), "--input", run.study)
    assert done.exit_code == 0, done.output
    line = next(line for line in done.stdout.splitlines() if "scipy" in line)
    assert "0.1.2" in line
    assert "Identical" in done.stdout


def test_the_options_of_the_run_are_those_of_the_replay(
    again: Run, run: FirstRun, tmp_path: Path
) -> None:
    engine = {**run.manifest.engine.model_dump(mode="json"), "backend": "reference"}
    done = again(edited(run, tmp_path, engine=engine), "--input", run.study)
    assert "scan backend reference on cpu, convolutions in float32" in done.stdout
    other = again(run.run_json, "--input", run.study, "--backend", "reference")
    assert "scan backend reference" in other.stdout
    assert "reference" in next(x for x in other.stdout.splitlines() if x.strip()[:7] == "backend")


def test_a_manifest_of_another_version_is_refused(
    again: Run, run: FirstRun, tmp_path: Path
) -> None:
    done = again(edited(run, tmp_path, schema_version=9), "--input", run.study)
    assert done.exit_code == 2
    assert "schema_version 1" in done.stderr


def test_a_run_from_dicom_is_read_from_its_shuffled_files(
    again: Run, run: FirstRun, tmp_path: Path
) -> None:
    first = dicom_run(run, tmp_path)
    files = [path for path in (tmp_path / "series").rglob("*") if path.is_file()]
    heap = tmp_path / "heap"
    heap.mkdir()
    for number, path in enumerate(reversed(files)):
        shutil.copy(path, heap / f"{number:04d}")
    done = again(first, "--input", heap)
    assert done.exit_code == 0, done.output
    assert "byte for byte" in done.stdout
    next(heap.iterdir()).unlink()
    assert again(first, "--input", heap).exit_code == 2


def test_parts_of_a_file_that_make_no_volume_are_passed_over(tmp_path: Path) -> None:
    path = with_crossed_frame(tmp_path / "enhanced.dcm")
    listed = list_series([path])
    assert [bool(one.problems) for one in listed].count(True) == 1
    (good,) = (one for one in listed if not one.problems)
    volume = read_series(good)
    found = _read_dicom([path], "t1ce", decoded_sha256(volume))
    np.testing.assert_array_equal(found.array, volume.array)


def with_crossed_frame(path: Path) -> Path:
    """Write an enhanced image of 6 slices and one frame across them, as a localiser would be."""
    values = np.random.default_rng(3).integers(0, 500, (8, 8, 6))
    dataset = enhanced_of(values, geometry_affine(shape=values.shape))  # type: ignore[arg-type]
    orientation = dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    groups = dataset.PerFrameFunctionalGroupsSequence
    crossed = deepcopy(groups[0])
    for frame in (*groups, crossed):
        frame.PlaneOrientationSequence = deepcopy(orientation)
    row, column = np.reshape(orientation[0].ImageOrientationPatient, (2, 3)).astype(float)
    across = [*row, *np.cross(row, column)]
    crossed.PlaneOrientationSequence[0].ImageOrientationPatient = across
    groups.append(crossed)
    dataset.PixelData += dataset.PixelData[: len(dataset.PixelData) // dataset.NumberOfFrames]
    dataset.NumberOfFrames += 1
    dataset.save_as(path, enforce_file_format=True)
    return path


def dicom_run(run: FirstRun, folder: Path) -> Path:
    """The run.json of a run on the phantom as four DICOM series, on the grid of its t1ce."""
    volumes, sources = {}, {}
    (nifti,) = find_studies(run.study)
    for contrast, path in nifti.paths.items():
        image = read_nifti(path, argument=contrast)
        recipe = SeriesRecipe(seed=contrast, shuffled=True)
        affine = geometry_affine(shape=image.shape)
        written = write_series(folder / "series" / contrast, image.array, affine, recipe)
        (series,) = list_series(written)
        sources[contrast], volumes[contrast] = series.files, read_series(series)
    prepare = PrepareOptions(mode="none", onto="t1ce")
    segmenter = make_segmenter(Engine(model=str(run.models / "tiny"), **ENGINE))
    options = SegmentOptions()
    ready = prepare_study(volumes, prepare)
    result = segmenter.segment(ready.study, options)
    facts = RunFacts(
        started=datetime.now(UTC), options=options, prepare=prepare,
        card_sha256=card_sha256(segmenter.card),
        threads=1, source="dicom",
    )  # fmt: skip
    path = folder / "first" / "run.json"
    path.parent.mkdir()
    path.write_text(manifest_of(volumes, result, sources=sources, run=facts).to_json())
    return path


def test_missing_images_models_and_existing_outputs_are_refused(
    again: Run, run: FirstRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = again(run.run_json, "--input", empty)
    assert (done.exit_code, "under any name" in done.stderr) == (2, True)
    taken = tmp_path / "taken.nii.gz"
    taken.write_bytes(b"mine")
    done = again(run.run_json, "--input", run.study, "-o", taken)
    assert (done.exit_code, taken.read_bytes()) == (2, b"mine")
    monkeypatch.setenv("SEGMAMBA_MODELS", str(empty))
    done = again(run.run_json, "--input", run.study)
    assert (done.exit_code, "tiny" in done.stderr) == (2, True)
