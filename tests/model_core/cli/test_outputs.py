"""Results appear together or not at all, under the names that were promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_core.cli.outputs import Wish, all_or_nothing, place
from model_core.errors import OptionError


def test_files_move_into_place_together(tmp_path: Path) -> None:
    with all_or_nothing() as stage:
        for name in ("a", "new/b.nii.gz"):
            stage(tmp_path / name).write_text(name)
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_text() == "a"
    assert (tmp_path / "new" / "b.nii.gz").read_text() == "new/b.nii.gz"
    assert len(list(tmp_path.rglob("*"))) == 3


def test_after_an_exception_former_files_are_untouched(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")

    def fail() -> None:
        with all_or_nothing() as stage:
            stage(tmp_path / "a").write_text("after")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_staged_file_keeps_its_suffix(tmp_path: Path) -> None:
    with all_or_nothing() as stage:
        staged = stage(tmp_path / "x.nii.gz")
        staged.write_text("")
        assert staged.name.endswith(".nii.gz")


@pytest.mark.parametrize(
    ("asked", "alone", "placed"),
    [
        ("seg.nii.gz", True, "seg.nii.gz"),
        ("seg.NII", True, "seg.NII"),
        ("results", True, "results/case.nii.gz"),
        ("results", False, "results/case.nii.gz"),
        ("results.v2", False, "results.v2/case.nii.gz"),
    ],
)
def test_a_file_is_taken_as_it_is_and_a_folder_filled(asked: str, alone: bool, placed: str) -> None:
    assert place(Wish(label_map=Path(asked)), "case", alone=alone).label_map == Path(placed)


@pytest.mark.parametrize("option", ["label_map", "report", "preview"])
def test_one_file_cannot_hold_several_studies(option: str) -> None:
    files = {"label_map": "s.nii.gz", "report": "r.json", "preview": "p.png"}
    wish = Wish(**({"label_map": Path("out")} | {option: Path(files[option])}))
    with pytest.raises(OptionError, match="several studies"):
        place(wish, "case", alone=False)
