"""`segmamba inspect`: folders, archives and files told apart, for people and as JSON."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from model_core.cli import main
from model_core.cli.inspect import inspect
from model_core.imaging.nifti import write_nifti
from model_core.imaging.volume import Volume
from model_core.phantom import make_phantom
from model_core.types import CONTRASTS, Contrast
from tests.model_core.recognition.studies import uid, write_enhanced_study

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def volumes() -> dict[Contrast, Volume]:
    """A coarse phantom of a whole brain."""
    images = make_phantom(2, shape=(60, 64, 40)).images
    made = {}
    for contrast in CONTRASTS:
        affine = images[contrast].affine.copy()
        affine[:3] *= 4
        made[contrast] = Volume(images[contrast].array, affine)
    return made


@pytest.fixture(scope="module")
def niftis(
    volumes: dict[Contrast, Volume], tmp_path_factory: pytest.TempPathFactory
) -> dict[Contrast, Path]:
    folder = tmp_path_factory.mktemp("nifti") / "Case_0001"
    folder.mkdir()
    for contrast, volume in volumes.items():
        write_nifti(folder / f"Case_0001_{contrast}.nii.gz", volume)
    return {contrast: folder / f"Case_0001_{contrast}.nii.gz" for contrast in CONTRASTS}


@pytest.fixture(scope="module")
def dicom(volumes: dict[Contrast, Volume], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dicom")
    write_enhanced_study(folder, volumes)
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """``segmamba inspect`` as a user calls it, whether or not it is installed as a command."""
    find = main.CommandGroup.get_command

    def get_command(self: Any, ctx: Any, name: str) -> Any:
        return main._as_command(name, inspect) if name == "inspect" else find(self, ctx, name)

    monkeypatch.setattr(main.CommandGroup, "get_command", get_command)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("SEGMAMBA_DEBUG", raising=False)

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(main.app, ["inspect", *map(str, arguments)])

    return invoke


def test_a_dicom_folder_is_shown_with_its_evidence(run: Run, dicom: Path) -> None:
    done = run(dicom)
    assert done.exit_code == 0, done.output
    for text in ("T1ce", "FLAIR", "contrast agent in its tag", "60×64×40", uid("t2")[-10:]):
        assert text in done.stdout
    assert "May be segmented as it is." in done.stdout


def test_an_archive_gives_the_same_report_as_the_folder(
    run: Run, dicom: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(dicom.iterdir()):
            file.write(path, path.name)
    packed, plain = run(archive, "--json"), run(dicom, "--json")
    assert packed.exit_code == plain.exit_code == 0
    assert json.loads(packed.stdout) == json.loads(plain.stdout)
    assert json.loads(plain.stdout)["study"]["ready"] is True


def test_a_folder_of_nifti_files_is_read_by_their_names(
    run: Run, niftis: dict[Contrast, Path]
) -> None:
    folder = niftis["t1"].parent
    done = run(folder)
    assert done.exit_code == 0, done.output
    assert "Case_0001_t1ce.nii.gz" in done.stdout
    assert "named by the file" in done.stdout
    report = run(folder, "--json").stdout
    assert "Case_0001" not in report
    assert [entry["contrast"] for entry in json.loads(report)["series"]] == list(CONTRASTS)


def test_other_file_names_are_read_by_their_words(
    run: Run, niftis: dict[Contrast, Path], tmp_path: Path
) -> None:
    names = {
        "t1": "2_t1_mprage_nativ", "t1ce": "9_t1_mprage_KM", "t2": "4_t2_tse_tra",
        "flair": "5_t2_dark-fluid",
    }  # fmt: skip
    for contrast, name in names.items():
        (tmp_path / f"{name}.nii.gz").write_bytes(niftis[contrast].read_bytes())  # type: ignore[index]
    done = run(tmp_path)
    assert done.exit_code == 0, done.output
    assert "named as FLAIR" in done.stdout


def test_single_files_are_taken_at_their_word_and_the_missing_one_is_named(
    run: Run, niftis: dict[Contrast, Path]
) -> None:
    done = run("--t1", niftis["t1"], "--t1ce", niftis["t1ce"], "--t2", niftis["t2"])
    assert done.exit_code == 1
    assert "Missing: FLAIR." in done.stdout


def test_exchanged_files_are_warned_of(run: Run, niftis: dict[Contrast, Path]) -> None:
    done = run(
        "--t1", niftis["t1"], "--t1ce", niftis["t1ce"], "--t2", niftis["flair"],
        "--flair", niftis["t2"],
    )  # fmt: skip
    assert done.exit_code == 0
    assert "T2 and FLAIR look as if they were exchanged" in done.stderr
    assert "contradict their names" in done.stdout


def test_neither_and_both_kinds_of_source_are_refused(
    run: Run, niftis: dict[Contrast, Path], dicom: Path, tmp_path: Path
) -> None:
    for arguments in ((), (dicom, "--t1", niftis["t1"]), (tmp_path,)):
        done = run(*arguments)
        assert done.exit_code == 2
        assert "error:" in done.stderr
        assert done.stdout == ""


def test_several_studies_in_a_folder_are_refused(
    run: Run, niftis: dict[Contrast, Path], tmp_path: Path
) -> None:
    for case in ("A", "B"):
        for contrast, path in niftis.items():
            (tmp_path / f"{case}_{contrast}.nii.gz").write_bytes(path.read_bytes())
    done = run(tmp_path)
    assert done.exit_code == 2
    assert "one study" in done.stderr
