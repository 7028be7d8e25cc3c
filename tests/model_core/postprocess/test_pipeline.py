"""Steps as a card stores them: checked when read, applied in order, reported."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from model_core.errors import OptionError
from model_core.postprocess import STEPS, Step, apply_steps, parse_steps

MM = (1.0, 1.0, 1.0)
SMALL_ET = {"name": "relabel_small_et", "params": {"min_mm3": 50}}


def line(*values: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.array(values, dtype=np.uint8).reshape(-1, 1, 1)


class TestParsing:
    def test_steps_keep_their_order_and_go_back_into_a_card(self) -> None:
        stored = [SMALL_ET, {"name": "keep_largest", "params": {}}]
        steps = parse_steps(stored)
        assert [step.model_dump() for step in steps] == stored
        assert parse_steps(json.loads(json.dumps(stored))) == steps

    def test_params_may_be_left_out_where_none_is_needed(self) -> None:
        assert parse_steps([{"name": "fill_holes"}])[0].params == {}

    def test_an_unknown_step_lists_the_known_ones(self) -> None:
        with pytest.raises(OptionError) as caught:
            parse_steps([SMALL_ET, {"name": "remove_small"}])
        assert caught.value.argument == "postprocess[1].name"
        assert caught.value.got == "'remove_small'"
        for name in STEPS:
            assert name in caught.value.expected

    def test_an_unknown_parameter_is_named_beside_the_known_ones(self) -> None:
        with pytest.raises(OptionError, match=r"min_mm3, min_voxels, got 'min_size'\. Remove it"):
            parse_steps([{"name": "relabel_small_et", "params": {"min_size": 3}}])

    @pytest.mark.parametrize(
        ("name", "param", "value"),
        [
            ("relabel_small_et", "min_mm3", "50"),
            ("relabel_small_et", "min_mm3", -1),
            ("relabel_small_et", "min_mm3", float("inf")),
            ("relabel_small_et", "min_voxels", 2.5),
            ("keep_largest", "region", "NCR"),
            ("keep_largest", "connectivity", 8),
            ("fill_holes", "region", "ET"),
            ("keep_largest_of", "names", []),
        ],
    )
    def test_a_value_of_the_wrong_kind_is_named_with_what_was_expected(
        self, name: str, param: str, value: object
    ) -> None:
        with pytest.raises(OptionError) as caught:
            parse_steps([{"name": name, "params": {param: value}}])
        assert caught.value.argument == f"postprocess[0].params.{param}"
        assert caught.value.got == repr(value)

    def test_a_region_is_no_label(self) -> None:
        with pytest.raises(OptionError) as caught:
            parse_steps([{"name": "keep_largest_of", "params": {"names": ["NCR", "TC"]}}])
        assert caught.value.argument == "postprocess[0].params.names"
        assert caught.value.got == "'TC'"

    @pytest.mark.parametrize("params", [{}, {"min_mm3": 5, "min_voxels": 5}])
    def test_rules_between_parameters_are_checked_too(self, params: dict[str, int]) -> None:
        with pytest.raises(OptionError, match="exactly one of min_mm3 and min_voxels"):
            parse_steps([{"name": "remove_small_components", "params": params}])

    @pytest.mark.parametrize(
        "stored", [{}, {"name": 3}, {"name": "fill_holes", "params": []}, {**SMALL_ET, "when": 1}]
    )
    def test_another_shape_of_step_is_refused(self, stored: dict[str, Any]) -> None:
        with pytest.raises(OptionError, match=r"postprocess\[0\]: expected a name"):
            parse_steps([stored])

    def test_a_step_made_directly_is_checked_as_well(self) -> None:
        with pytest.raises(ValidationError, match="one of remove_small_components"):
            Step(name="shrink")

    def test_every_step_documents_what_it_never_does(self) -> None:
        for step in STEPS.values():
            assert "Never: " in (inspect.getdoc(step) or "")


class TestApplying:
    def test_steps_run_in_the_order_given(self) -> None:
        labels = line(3, 2, 2, 0, 1, 1)
        et_first = [
            {"name": "relabel_small_et", "params": {"min_voxels": 2}},
            {"name": "keep_largest", "params": {"region": "TC"}},
        ]
        assert apply_steps(labels, MM, parse_steps(et_first))[0].ravel().tolist() == [
            2, 2, 2, 0, 1, 1,
        ]  # fmt: skip
        et_last = parse_steps(et_first[::-1])
        assert apply_steps(labels, MM, et_last)[0].ravel().tolist() == [2, 2, 2, 0, 1, 1]

    def test_the_report_counts_labels_before_and_after(self) -> None:
        labels = line(3, 3, 2, 0, 1)
        _, (report,) = apply_steps(
            labels,
            (1.0, 2.0, 5.0),
            parse_steps([{"name": SMALL_ET["name"], "params": {"min_mm3": 21}}]),
        )
        assert report.to_dict() == {
            "name": "relabel_small_et",
            "params": {"min_mm3": 21.0},
            "voxels_changed": 2,
            "voxels_before": {"NCR": 1, "ED": 1, "ET": 2},
            "voxels_after": {"NCR": 3, "ED": 1, "ET": 0},
            "ml_before": {"NCR": 0.01, "ED": 0.01, "ET": 0.02},
            "ml_after": {"NCR": 0.03, "ED": 0.01, "ET": 0.0},
        }

    def test_the_report_is_json_and_holds_the_defaults(self) -> None:
        _, (report,) = apply_steps(line(2), MM, parse_steps([{"name": "keep_largest"}]))
        assert json.loads(json.dumps(report.to_dict()))["params"] == {
            "region": "WT",
            "connectivity": 26,
        }

    def test_a_voxel_that_changes_twice_counts_in_both_reports(self) -> None:
        steps = parse_steps(
            [
                {"name": "relabel_small_et", "params": {"min_voxels": 2}},
                {"name": "remove_small_components", "params": {"min_voxels": 2}},
            ]
        )
        cleaned, reports = apply_steps(line(3, 0, 2, 2), MM, steps)
        assert cleaned.ravel().tolist() == [0, 0, 2, 2]
        assert [report.voxels_changed for report in reports] == [1, 1]

    def test_no_step_gives_an_equal_copy_and_no_report(self) -> None:
        labels = line(1, 2, 3)
        result, reports = apply_steps(labels, MM, [])
        np.testing.assert_array_equal(result, labels)
        assert not np.shares_memory(result, labels)
        assert reports == ()


class TestDocumentation:
    PAGE = (Path(__file__).parents[3] / "docs" / "concepts" / "postprocessing.md").read_text(
        "utf-8"
    )

    def test_the_example_card_is_a_valid_one(self) -> None:
        (block,) = re.findall(r"```json\n(.*?)```", self.PAGE, re.DOTALL)
        steps = parse_steps(json.loads("{" + block + "}")["postprocess"])
        assert [step.name for step in steps] == ["remove_small_components", "relabel_small_et"]

    @pytest.mark.parametrize("name", STEPS)
    def test_every_step_is_listed_with_all_its_parameters(self, name: str) -> None:
        (row,) = re.findall(rf"^\| `{name}` .*$", self.PAGE, re.MULTILINE)
        parameters = set(inspect.signature(STEPS[name]).parameters) - {
            "labels",
            "spacing_mm",
            "rules",
        }
        assert parameters <= set(re.findall(r"`(\w+)`", row))
