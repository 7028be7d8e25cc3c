"""JSON lines survive kills, not-a-numbers and steps that are done again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from training.runs.records import append_record, keep_records_until, mend_records, read_records


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_what_is_appended_is_read_in_order(path: Path) -> None:
    for step in (1, 2):
        append_record(path, {"kind": "step", "step": step})
    assert read_records(path) == [{"kind": "step", "step": 1}, {"kind": "step", "step": 2}]
    assert read_records(path.with_name("none")) == []


def test_values_become_plain_json(path: Path) -> None:
    append_record(
        path,
        {
            "loss": math.nan,
            "case": {"WT": np.float32(0.5), "TC": float("inf")},
            "list": (np.int64(3), torch.tensor(2.0)),
            "path": Path("x"),
            "none": None,
            "yes": True,
        },
    )
    line = path.read_text()
    assert json.loads(line, parse_constant=pytest.fail) == {
        "loss": None,
        "case": {"WT": 0.5, "TC": None},
        "list": [3, 2.0],
        "path": "x",
        "none": None,
        "yes": True,
    }


@pytest.mark.parametrize(
    "torn", ['{"kind": "st', '{"kind": "step", "step": 3', "{", '"step"', "\xff"]
)
def test_a_torn_last_line_is_ignored_then_cut_off(path: Path, torn: str) -> None:
    append_record(path, {"step": 1})
    with path.open("a", encoding="latin-1") as file:
        file.write(torn)
    before = path.read_bytes()
    assert read_records(path) == [{"step": 1}]
    assert path.read_bytes() == before, "a reader must not touch a line that may be being written"
    mend_records(path)
    append_record(path, {"step": 2})
    assert read_records(path) == [{"step": 1}, {"step": 2}]
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_whole_line_that_lacks_only_its_end_is_kept(path: Path) -> None:
    path.write_text('{"step": 1}')
    mend_records(path)
    append_record(path, {"step": 2})
    assert [line["step"] for line in read_records(path)] == [1, 2]


def test_a_damaged_line_in_the_middle_costs_only_itself(path: Path) -> None:
    path.write_text('{"step": 1}\n{"st{"step": 2}\n{"step": 3}\n')
    assert [line["step"] for line in read_records(path)] == [1, 3]


def test_later_steps_are_dropped_with_what_belongs_to_them(path: Path) -> None:
    lines = [
        {"kind": "step", "step": 10},
        {"kind": "note"},
        {"kind": "end", "step": 10},
        {"kind": "step", "step": 20},
        {"kind": "note"},
        {"kind": "step", "step": 5},
    ]
    for line in lines:
        append_record(path, line)
    keep_records_until(path, 10)
    assert read_records(path) == [lines[0], lines[1], lines[5]]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_nothing_recorded_nothing_dropped(path: Path) -> None:
    keep_records_until(path, 10)
    mend_records(path)
    assert not path.exists()
