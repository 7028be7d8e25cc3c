"""``segmamba evaluate`` on small label maps in every naming it knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner, Result

from model_core.cli import evaluate as module
from model_core.cli import main
from model_core.cli.evaluate import evaluate
from model_core.cli.pairs import find_pairs
from model_core.errors import ImageError, InputError, OptionError
from model_core.imaging.nifti import read_nifti, write_label_map

AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
Labels = NDArray[np.generic]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command alone; expected errors arrive as exceptions in the result."""
    monkeypatch.setenv("COLUMNS", "140")
    app = typer.Typer()
    app.command()(evaluate)
    return lambda *arguments: CliRunner().invoke(app, [str(item) for item in arguments])


def labels(shift: int = 0, et: int = 4) -> Labels:
    """ED of 8³ around ET of 4³ voxels."""
    array = np.zeros((14, 14, 14), dtype=np.uint8)
    array[2 + shift : 10 + shift, 2:10, 2:10] = 2
    array[4 + shift : 8 + shift, 4:8, 4:8] = et
    return array


def save(path: Path, array: Labels | None = None, affine: NDArray[np.float64] = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(labels() if array is None else array, affine)
    image.set_sform(affine, code=1)
    nib.save(image, path)
    return path


def raised(result: Result, kind: type[InputError]) -> InputError:
    assert isinstance(result.exception, kind), result.output
    return result.exception


class TestTwoFiles:
    def test_names_need_not_match_and_schemes_may_differ(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        mine = save(tmp_path / "mine-seg.nii.gz", labels(et=3))
        truth = save(tmp_path / "CASE_seg.nii.gz", labels(et=4))
        result = run(mine, truth)
        assert result.exit_code == 0
        rows = [line.split() for line in result.output.splitlines()]
        row = next(row for row in rows if row and row[0] == "CASE")
        assert row[1:] == ["1.000"] * 3 + ["0.0"] * 3 + ["1.000"] * 3 + ["1.000"]

    def test_scores_are_those_of_the_shift(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        mine, truth = save(tmp_path / "a.nii", labels(shift=1)), save(tmp_path / "b_seg.nii")
        result = run(mine, truth, "--json", tmp_path / "scores.json")
        assert result.exit_code == 0, result.exception
        (case,) = json.loads((tmp_path / "scores.json").read_text())["cases"]
        assert case["case"] == "b"
        assert case["regions"]["WT"]["dice"] == pytest.approx(7 / 8)
        assert case["regions"]["ET"]["dice"] == pytest.approx(3 / 4)
        assert case["regions"]["ET"]["hd95_mm"] == pytest.approx(1)

    def test_a_named_scheme_is_binding(self, run: Callable[..., Result], tmp_path: Path) -> None:
        path = save(tmp_path / "a.nii", labels(et=4))
        error = raised(run(path, path, "--scheme", "brats2023"), ImageError)
        assert error.argument == "prediction"
        assert "also 4" in str(error)

    def test_shapes_that_differ_are_an_error(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        mine, truth = save(tmp_path / "a.nii", labels()[:13]), save(tmp_path / "b.nii")
        error = raised(run(mine, truth), InputError)
        assert "the truth's shape: 14×14×14" in error.expected
        assert "13×14×14" in error.got

    def test_affines_that_differ_are_an_error_with_the_distance(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        moved = AFFINE.copy()
        moved[2, 3] = 4
        mine, truth = save(tmp_path / "a.nii", affine=moved), save(tmp_path / "b.nii")
        error = raised(run(mine, truth), InputError)
        assert "the truth's affine" in error.expected
        assert error.got.endswith("4 mm apart")

    def test_spacing_is_taken_from_the_file(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        affine = np.diag([2.0, 1.0, 0.5, 1.0])
        mine = save(tmp_path / "a.nii", labels(shift=1), affine)
        run(mine, save(tmp_path / "b_seg.nii", affine=affine), "--json", tmp_path / "s.json")
        (case,) = json.loads((tmp_path / "s.json").read_text())["cases"]
        assert case["regions"]["WT"]["hd95_mm"] == pytest.approx(2)
        assert case["regions"]["WT"]["truth_ml"] == pytest.approx(0.512)

    def test_no_file_name_is_told_in_an_error(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        truth = save(tmp_path / "b.nii")
        (tmp_path / "Jane_Doe.nii.gz").write_bytes(b"not an image")
        for path in (tmp_path / "Jane_Doe.nii.gz", tmp_path / "Doe_missing.nii.gz"):
            error = raised(run(path, truth), InputError)
            assert error.argument == "prediction"
            assert "Doe" not in str(error)


class TestNumbering:
    """Which value is enhancing tumour is declared by each file, or by ``--scheme``."""

    def dice(self, run: Callable[..., Result], mine: Path, truth: Path) -> float:
        scores = mine.parent / "scores.json"
        result = run(mine, truth, "--json", scores)
        assert result.exit_code == 0, result.exception
        dice: float = json.loads(scores.read_text())["cases"][0]["regions"]["ET"]["dice"]
        return dice

    def test_a_cavity_of_brats_2024_is_no_enhancing_tumour(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        mine = save(tmp_path / "mine.nii.gz", labels(et=3))
        truth = save(tmp_path / "CASE-seg.nii.gz", labels(et=4))
        error = raised(run(mine, truth), ImageError)
        assert (error.argument, error.got) == ("truth", "also 4")

    @pytest.mark.parametrize("et", [3, 4])
    def test_a_truth_that_declares_nothing_is_not_guessed_at(
        self, run: Callable[..., Result], tmp_path: Path, et: int
    ) -> None:
        path = save(tmp_path / "labelsTr" / "a.nii.gz", labels(et=et))
        error = raised(run(path, path), ImageError)
        assert error.got == f"the value {et}, and no declaration"
        assert "--scheme" in error.way_out
        scheme = "brats2021" if et == 4 else "brats2023"
        assert run(path, path, "--scheme", scheme).exit_code == 0

    def test_without_such_a_value_no_declaration_is_needed(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        path = save(tmp_path / "a.nii.gz", labels(et=1))
        assert self.dice(run, path, path) == 1

    def test_a_prediction_that_declares_nothing_is_numbered_as_its_truth(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        mine, truth = save(tmp_path / "a.nii.gz"), save(tmp_path / "t" / "a_seg.nii.gz")
        assert self.dice(run, mine, truth) == 1
        other = save(tmp_path / "t" / "a-seg.nii.gz", labels(et=3))
        assert raised(run(mine, other), ImageError).argument == "prediction"

    def test_a_map_of_our_own_declares_itself_whatever_its_name(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        truth = save(tmp_path / "CASE_seg.nii.gz", labels(et=4))
        like = read_nifti(truth, argument="truth")
        mine = tmp_path / "mine_seg.nii.gz"
        write_label_map(mine, labels(et=3).astype(np.uint8), like=like, scheme="brats2023")
        assert self.dice(run, mine, truth) == 1


class TestFolders:
    @pytest.mark.parametrize(
        "truth_name",
        ["A/A_seg.nii.gz", "A/A-seg.nii.gz", "labelsTr/A.nii.gz", "A.nii", "A/seg.nii"],
    )
    @pytest.mark.parametrize("mine", ["A_seg.nii.gz", "A.nii.gz", "A/A-seg.nii", "A/seg.nii.gz"])
    def test_all_namings_meet(self, tmp_path: Path, truth_name: str, mine: str) -> None:
        truth = save(tmp_path / "truth" / truth_name)
        prediction = save(tmp_path / "mine" / mine)
        pairs, unmatched = find_pairs(tmp_path / "mine", tmp_path / "truth")
        assert [(pair.name, pair.prediction, pair.truth) for pair in pairs] == [
            ("A", prediction, truth)
        ]
        assert unmatched == {"predictions": [], "truths": []}

    @pytest.mark.parametrize(
        "contrast",
        ["A/A_t1.nii.gz", "A/A_flair.nii.gz", "A/A-t1c.nii.gz", "imagesTr/A_0003.nii.gz"],
    )
    def test_contrasts_beside_the_truth_are_not_label_maps(
        self, tmp_path: Path, contrast: str
    ) -> None:
        truth = save(tmp_path / "truth" / "A" / "A_seg.nii.gz")
        save(tmp_path / "truth" / contrast)
        save(tmp_path / "mine" / "A.nii.gz")
        (pair,), unmatched = find_pairs(tmp_path / "mine", tmp_path / "truth")
        assert pair.truth == truth
        assert unmatched["truths"] == []

    def test_a_file_finds_its_case_in_a_folder(self, tmp_path: Path) -> None:
        for name in ("A", "B"):
            save(tmp_path / "truth" / f"{name}_seg.nii.gz")
        (pair,), _ = find_pairs(save(tmp_path / "B.nii.gz"), tmp_path / "truth")
        assert pair.truth.name == "B_seg.nii.gz"

    def test_cases_are_listed_with_their_mean_deviation_and_median(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        for name, shift in (("B", 1), ("A", 0), ("C", 0)):
            save(tmp_path / "mine" / f"{name}.nii.gz", labels(shift))
            save(tmp_path / "truth" / f"{name}_seg.nii.gz")
        result = run(tmp_path / "mine", tmp_path / "truth", "--json", tmp_path / "s.json")
        assert result.exit_code == 0, result.exception
        rows = [line.split() for line in result.output.splitlines() if line.strip()]
        first = {row[0]: row[1] for row in rows if row[0] in {"A", "B", "C", "mean", "median"}}
        assert first == {
            "A": "1.000",
            "B": "0.875",
            "C": "1.000",
            "mean": "0.958",
            "median": "1.000",
        }
        assert next(row for row in rows if row[0] == "±")[2] == "0.072"
        report = json.loads((tmp_path / "s.json").read_text())
        assert [case["case"] for case in report["cases"]] == ["A", "B", "C"]
        assert report["summary"]["WT"]["dice"]["mean"] == pytest.approx((7 / 8 + 2) / 3)
        overall = next(row for row in rows if row[0] == "mean")[-1]
        assert float(overall) == pytest.approx(
            np.mean([case["mean_dice"] for case in report["cases"]]), abs=5e-4
        )

    def test_leftovers_are_warned_about_and_listed(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        save(tmp_path / "mine" / "A.nii.gz")
        for name in ("A", "B", "C"):
            save(tmp_path / "truth" / f"{name}_seg.nii.gz")
        result = run(tmp_path / "mine", tmp_path / "truth", "--json", tmp_path / "s.json")
        assert result.exit_code == 0
        assert "2 truths without a partner" in result.stderr
        report = json.loads((tmp_path / "s.json").read_text())
        assert report["unmatched"] == {"predictions": [], "truths": ["B", "C"]}

    def test_nothing_in_common_is_an_error_with_the_counts(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        save(tmp_path / "mine" / "A.nii.gz")
        save(tmp_path / "truth" / "B.nii.gz")
        error = raised(run(tmp_path / "mine", tmp_path / "truth"), InputError)
        assert error.got == "none in common (predictions: 1, truths: 1)"

    def test_a_folder_without_label_maps_is_an_error(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        save(tmp_path / "truth" / "A.nii.gz")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes.txt").write_text("none")
        assert (
            raised(run(tmp_path / "mine", tmp_path / "truth"), InputError).argument == "prediction"
        )

    def test_two_maps_of_one_case_are_an_error(self, tmp_path: Path) -> None:
        save(tmp_path / "truth" / "A.nii.gz")
        save(tmp_path / "mine" / "A_seg.nii.gz")
        save(tmp_path / "mine" / "A" / "A_seg.nii.gz")
        with pytest.raises(InputError, match="two for the same case name"):
            find_pairs(tmp_path / "mine", tmp_path / "truth")

    def test_an_error_says_which_case_by_its_number(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        for name in ("A", "B"):
            save(tmp_path / "mine" / f"{name}.nii.gz")
            truth = tmp_path / "truth" / f"{name}_seg.nii.gz"
            save(truth, labels() if name == "A" else labels()[1:])
        error = raised(run(tmp_path / "mine", tmp_path / "truth"), InputError)
        assert error.argument == "prediction 2 of 2 (in name order)"


class TestOtherLabels:
    """``--dataset-json`` and ``--labels``: data that is not BraTS glioma."""

    def picture(self, path: Path, shift: int = 0) -> Path:
        """A blob of 8 × 6 pixels with a core of 4 × 4."""
        array = np.zeros((20, 16), np.uint8)
        array[4 + shift : 12 + shift, 4:10] = 1
        array[6 + shift : 10 + shift, 5:9] = 2
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        return path

    def test_pictures_are_scored_by_the_names_of_the_labels(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        mine, truth = self.picture(tmp_path / "m.png", shift=2), self.picture(tmp_path / "t.png")
        out = tmp_path / "s.json"
        result = run(mine, truth, "--labels", "1+2=whole,2=core", "--json", out)
        assert result.exit_code == 0, result.exception
        report = json.loads(out.read_text())
        (case,) = report["cases"]
        assert list(case["regions"]) == ["whole", "core"]
        assert case["regions"]["whole"]["dice"] == pytest.approx(6 / 8)
        assert case["regions"]["core"]["dice"] == pytest.approx(2 / 4)
        assert case["regions"]["core"]["hd95_mm"] == 2  # pixels, between outlines
        assert case["mean_dice"] == pytest.approx((6 / 8 + 2 / 4) / 2)
        assert (report["rules"]["dilation"], report["rules"]["min_lesion_mm3"]) == (1, 0)
        rows = [line.split() for line in result.stdout.splitlines()]
        assert ["t", "0.750", "0.500", "0.625"] in rows

    @pytest.mark.parametrize(
        "declared",
        [
            {"background": 0, "blob": 1, "core": 2},
            {"0": "background", "1": "blob", "2": "core"},
        ],
        ids=["nnU-Net", "Decathlon"],
    )
    def test_a_data_set_description_names_the_regions(
        self, run: Callable[..., Result], tmp_path: Path, declared: dict[str, object]
    ) -> None:
        description = tmp_path / "dataset.json"
        description.write_text(json.dumps({"labels": declared}))
        for name, shift in (("a", 0), ("b", 2)):
            self.picture(tmp_path / "mine" / f"{name}.png", shift)
            self.picture(tmp_path / "labelsTr" / f"{name}.png")
        result = run(
            tmp_path / "mine", tmp_path / "labelsTr", "--dataset-json", description,
            "--json", tmp_path / "s.json",
        )  # fmt: skip
        assert result.exit_code == 0, result.exception
        summary = json.loads((tmp_path / "s.json").read_text())["summary"]
        assert list(summary) == ["blob", "core"]
        assert summary["core"]["dice"]["mean"] == pytest.approx(0.75)

    def test_an_undeclared_value_is_an_error_that_names_it(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        path = self.picture(tmp_path / "a.png")
        error = raised(run(path, path, "--labels", "1=blob"), ImageError)
        assert error.argument == "prediction"
        assert "also 2" in error.got

    def test_volumes_of_another_organ_are_scored_too(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        path = save(tmp_path / "a.nii.gz", labels(et=7))
        result = run(path, path, "--labels", "2=liver,7=tumour", "--json", tmp_path / "s.json")
        assert result.exit_code == 0, result.exception
        assert json.loads((tmp_path / "s.json").read_text())["cases"][0]["mean_dice"] == 1

    def test_pictures_of_brats_glioma_are_no_label_maps(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        path = self.picture(tmp_path / "a.png")
        assert raised(run(path, path), ImageError).argument == "prediction"

    def test_two_ways_to_name_the_labels_are_one_too_many(
        self, run: Callable[..., Result], tmp_path: Path
    ) -> None:
        path = self.picture(tmp_path / "a.png")
        error = raised(run(path, path, "--labels", "1=a", "--scheme", "brats2021"), OptionError)
        assert error.got == "2 of them"


def test_on_the_real_command_line_an_error_is_one_red_line_and_exit_code_2(tmp_path: Path) -> None:
    mine, truth = save(tmp_path / "mine" / "A.nii.gz"), save(tmp_path / "truth" / "B.nii.gz")
    result = CliRunner().invoke(main.app, ["evaluate", str(mine.parent), str(truth.parent)])
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: prediction: expected label maps whose case names occur")


def test_an_unwritable_json_is_told_before_the_work(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_pairs", lambda *_: pytest.fail("work was begun"))
    path = save(tmp_path / "a.nii")
    assert raised(run(path, path, "--json", tmp_path / "no" / "s.json"), OptionError)


def test_help_teaches_names_regions_and_schemes(run: Callable[..., Result]) -> None:
    text = " ".join(run("--help").output.split())
    for word in ("CASE_seg.nii.gz", "nnU-Net", "whole tumour", "brats2021", "lesion-wise"):
        assert word in text


def test_real_truths_score_perfectly_against_themselves(
    run: Callable[..., Result], real_cases: Path, tmp_path: Path
) -> None:
    """Real headers: a qform only, float32 and uint16 label maps."""
    case = sorted(real_cases.iterdir())[-4]
    (truth,) = case.glob("*_seg.nii.gz")
    result = run(truth, truth, "--json", tmp_path / "s.json")
    assert result.exit_code == 0, result.exception
    (scores,) = json.loads((tmp_path / "s.json").read_text())["cases"]
    assert scores["mean_dice"] == 1
    assert scores["regions"]["WT"]["truth_ml"] > 1
