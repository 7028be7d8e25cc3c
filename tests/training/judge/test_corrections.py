"""Corrections as a file: for which task, read back, applied to arrays and to label-map files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from model_core.errors import InputError, OptionError
from model_core.imaging import Volume, write_nifti
from model_core.postprocess import GLIOMA, Step, apply_steps, parse_steps
from tests.training.tiny import oblique
from training.commands.postprocess import postprocess
from training.judge.corrections import (
    Corrections,
    apply_corrections,
    load_corrections,
)
from training.region_rules import rules_of
from training.task import BRATS, Region, Task

MM = (1.0, 1.0, 1.0)
ORGANS = Task(channels=("CT",), labels=("liver", "tumour", "spleen"))
NESTED = Task(
    channels=("CT",),
    labels=("liver", "tumour", "vessel"),
    regions=(
        Region(name="tumour", labels=(2,), paints=2),
        Region(name="organ", labels=(1, 2, 3), paints=1),
        Region(name="inside", labels=(2, 3), paints=3),
    ),
)


def step(name: str, task: Task, **params: object) -> Step:
    (parsed,) = parse_steps([{"name": name, "params": params}], rules=rules_of(task))
    return parsed


def nifti(path: Path) -> Any:
    return nibabel.load(path)


def of(task: Task, *steps: Step, values: dict[int, int] | None = None) -> Corrections:
    return Corrections(steps=steps, labels=task.labels, regions=task.regions, values=values or {})


class TestRules:
    def test_brats_has_those_of_model_cards(self) -> None:
        assert rules_of(BRATS) is GLIOMA

    def test_the_smallest_region_around_another_one_encloses_it(self) -> None:
        rules = rules_of(NESTED).regions
        assert rules["tumour"].leaving == 3  # the paint of "inside", not of "organ"
        assert rules["inside"].leaving == 1
        assert rules["organ"].leaving == 0
        assert rules["tumour"].fillable == (0, 1, 3)
        assert "foreground" not in rules  # "organ" is that already

    def test_labels_side_by_side_leave_to_the_background_and_have_a_common_foreground(self) -> None:
        rules = rules_of(ORGANS)
        assert list(rules.regions) == ["foreground", "liver", "tumour", "spleen"]
        assert {rule.leaving for rule in rules.regions.values()} == {0}
        assert rules.regions["foreground"].joining is None
        labels = np.array([1, 2, 0, 3], np.uint8).reshape(-1, 1, 1)
        kept, _ = apply_steps(
            labels, MM, [step("keep_largest", ORGANS, region="foreground")], rules
        )
        assert kept.ravel().tolist() == [1, 2, 0, 0]

    def test_for_brats_the_general_rule_gives_the_same_leaving_labels(self) -> None:
        renamed = Task(
            channels=("t1",), labels=("a", "b", "c"), regions=BRATS.regions
        )  # the names hide that it is BraTS
        for name, rule in rules_of(renamed).regions.items():
            assert rule.leaving == GLIOMA.regions[name].leaving
            assert rule.labels == GLIOMA.regions[name].labels
            if name != "ET":
                assert rule.joining == GLIOMA.regions[name].joining
                assert rule.fillable == GLIOMA.regions[name].fillable


class TestFile:
    @pytest.mark.parametrize("task", [BRATS, ORGANS, NESTED], ids=["brats", "organs", "nested"])
    def test_what_is_written_is_read_back(self, task: Task, tmp_path: Path) -> None:
        last = task.regions[-1].name
        written = Corrections(
            steps=(step("remove_small_components", task, region=last, min_mm3=50.0),),
            labels=task.labels,
            regions=task.regions,
            values={0: 0, 1: 1, 4: 3},
            evidence={"objective": "dice"},
        )
        written.write(tmp_path / "c.json")
        assert load_corrections(tmp_path / "c.json") == written

    def test_a_bare_list_of_steps_is_a_card_s(self, tmp_path: Path) -> None:
        steps = [{"name": "relabel_small_et", "params": {"min_mm3": 50.0}}]
        (tmp_path / "c.json").write_text(json.dumps(steps))
        loaded = load_corrections(tmp_path / "c.json")
        assert (loaded.stored(), loaded.task.regions) == (steps, BRATS.regions)

    @pytest.mark.parametrize(
        ("content", "got"),
        [
            ("not JSON", "no JSON"),
            ("{}", "another kind"),
            ('{"format": "segmamba-corrections/1", "steps": []}', "without its fields"),
        ],
    )
    def test_another_file_is_refused(self, content: str, got: str, tmp_path: Path) -> None:
        (tmp_path / "c.json").write_text(content)
        with pytest.raises(InputError, match=got):
            load_corrections(tmp_path / "c.json")
        with pytest.raises(InputError, match="no such file"):
            load_corrections(tmp_path / "none.json")

    def test_a_step_of_another_task_is_refused_when_read(self, tmp_path: Path) -> None:
        content = of(ORGANS).to_json()
        content["steps"] = [{"name": "keep_largest", "params": {"region": "WT"}}]
        (tmp_path / "c.json").write_text(json.dumps(content))
        with pytest.raises(OptionError, match="one of foreground, liver, tumour, spleen"):
            load_corrections(tmp_path / "c.json")


class TestApplying:
    def test_brats_corrections_do_what_a_card_does(self) -> None:
        labels = np.random.default_rng(0).integers(0, 4, (6, 7, 8)).astype(np.uint8)
        steps = parse_steps(
            [
                {"name": "remove_small_components", "params": {"region": "TC", "min_voxels": 9}},
                {"name": "fill_holes", "params": {"region": "WT"}},
            ]
        )
        mine, reports = apply_corrections(labels, MM, BRATS, Corrections(steps=steps))
        card, card_reports = apply_steps(labels, MM, steps)
        np.testing.assert_array_equal(mine, card)
        assert reports == card_reports

    def test_corrections_of_another_task_are_refused(self) -> None:
        with pytest.raises(OptionError, match="for the labels NCR, ED, ET, got some for liver"):
            apply_corrections(np.zeros((1, 2, 3), np.uint8), MM, BRATS, of(ORGANS))


@pytest.fixture
def run() -> Callable[..., Any]:
    def call(*arguments: object) -> Any:
        return CliRunner().invoke(postprocess, [str(argument) for argument in arguments])

    return call


class TestFiles:
    """``segmamba postprocess apply``."""

    def test_volumes_keep_their_numbering_and_place(
        self, tmp_path: Path, run: Callable[..., Any]
    ) -> None:
        affine = oblique((1.0, 1.0, 2.5), 7.0)
        values = np.zeros((6, 5, 4), np.uint8)
        values[:2], values[5, 4, 3] = 7, 9
        (tmp_path / "raw").mkdir()
        write_nifti(tmp_path / "raw" / "a.nii.gz", Volume(values, affine))
        organs = {0: 0, 5: 1, 7: 2, 9: 3}
        small = step("remove_small_components", ORGANS, region="spleen", min_mm3=3.0)
        of(ORGANS, small, values=organs).write(tmp_path / "c.json")
        result = run("apply", tmp_path / "c.json", tmp_path / "raw", tmp_path / "new" / "deep")
        assert result.exit_code == 0
        assert "1 of 1 label maps written, 1 of them changed" in result.stdout
        written = nifti(tmp_path / "new" / "deep" / "a.nii.gz")
        np.testing.assert_allclose(written.affine, affine, atol=1e-5)
        expected = values.copy()
        expected[5, 4, 3] = 0
        np.testing.assert_array_equal(np.asarray(written.dataobj), expected)

    def test_pictures_too(self, tmp_path: Path, run: Callable[..., Any]) -> None:
        values = np.zeros((9, 9), np.uint8)
        values[1:8, 1:8], values[4, 4] = 2, 0
        Image.fromarray(values).save(tmp_path / "a.png")
        blob = Task(channels=("XRay",), labels=("blob",))
        fill = step("fill_holes", blob, region="blob")
        of(blob, fill, values={0: 0, 2: 1}).write(tmp_path / "c.json")
        assert (
            run("apply", tmp_path / "c.json", tmp_path / "a.png", tmp_path / "b.png").exit_code == 0
        )
        written = np.asarray(Image.open(tmp_path / "b.png"))
        assert written[4, 4] == 2
        assert np.count_nonzero(written != values) == 1

    def test_a_file_with_an_undeclared_value_is_named_and_the_others_are_written(
        self, tmp_path: Path, run: Callable[..., Any]
    ) -> None:
        (tmp_path / "raw").mkdir()
        for name, value in (("a", 6), ("b", 1)):
            labels = np.full((3, 3, 3), value, np.uint8)
            write_nifti(tmp_path / "raw" / f"{name}.nii.gz", Volume(labels, np.eye(4)))
        of(ORGANS, values={0: 0, 1: 1, 2: 2, 3: 3}).write(tmp_path / "c.json")
        result = run("apply", tmp_path / "c.json", tmp_path / "raw", tmp_path / "new")
        assert result.exit_code == 1
        assert "a.nii.gz: label: expected the declared values" in result.output
        assert "1 of 2 label maps written" in result.output
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["b.nii.gz"]

    def test_brats_steps_of_a_card_follow_the_file_s_numbering(
        self, tmp_path: Path, run: Callable[..., Any]
    ) -> None:
        values = np.zeros((4, 4, 4), np.uint8)
        values[0, 0, 0], values[2:] = 4, 2
        write_nifti(tmp_path / "a_seg.nii.gz", Volume(values, np.eye(4)))
        steps = [{"name": "relabel_small_et", "params": {"min_voxels": 2}}]
        (tmp_path / "c.json").write_text(json.dumps(steps))
        run("apply", tmp_path / "c.json", tmp_path / "a_seg.nii.gz", tmp_path / "b.nii.gz")
        written = np.asarray(nifti(tmp_path / "b.nii.gz").dataobj)
        assert written[0, 0, 0] == 1
        np.testing.assert_array_equal(written[1:], values[1:])

    def test_brats_steps_of_a_card_guess_no_numbering(
        self, tmp_path: Path, run: Callable[..., Any]
    ) -> None:
        cavity = np.full((4, 4, 4), 4, np.uint8)
        for name in ("a.nii.gz", "a-seg.nii.gz"):
            write_nifti(tmp_path / name, Volume(cavity, np.eye(4)))
            (tmp_path / "c.json").write_text(json.dumps([{"name": "keep_largest"}]))
            result = run("apply", tmp_path / "c.json", tmp_path / name, tmp_path / "b.nii.gz")
            assert result.exit_code == 1
            assert f"{name}: label: expected" in result.output
            assert not (tmp_path / "b.nii.gz").exists()

    def test_existing_files_and_the_source_are_never_replaced_by_accident(
        self, tmp_path: Path, run: Callable[..., Any]
    ) -> None:
        write_nifti(tmp_path / "a.nii.gz", Volume(np.ones((3, 3, 3), np.uint8), np.eye(4)))
        (tmp_path / "b.nii.gz").write_bytes(b"precious")
        of(ORGANS, values={0: 0, 1: 1, 2: 2, 3: 3}).write(tmp_path / "c.json")
        for target in ("a.nii.gz", "b.nii.gz"):
            result = run("apply", tmp_path / "c.json", tmp_path / "a.nii.gz", tmp_path / target)
            assert isinstance(result.exception, OptionError)
        assert (tmp_path / "b.nii.gz").read_bytes() == b"precious"
        overwrite = run(
            "apply",
            tmp_path / "c.json",
            tmp_path / "a.nii.gz",
            tmp_path / "b.nii.gz",
            "--overwrite",
        )
        assert overwrite.exit_code == 0
        assert np.asarray(nifti(tmp_path / "b.nii.gz").dataobj).all()
