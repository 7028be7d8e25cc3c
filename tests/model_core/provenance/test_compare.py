"""Two runs side by side: each difference named, each voxel counted."""

from __future__ import annotations

import numpy as np

from model_core.imaging.nifti import read_label_map
from model_core.provenance.compare import Comparison, compare, differences
from tests.model_core.provenance.runs import FirstRun


def test_a_run_does_not_differ_from_itself(run: FirstRun) -> None:
    assert differences(run.manifest, run.manifest) == ()


def test_each_thing_that_moved_is_named_then_and_now(run: FirstRun) -> None:
    then = run.manifest
    now = then.model_copy(
        update={
            "engine": then.engine.model_copy(update={"precision": "bfloat16", "threads": 7}),
            "packages": {**then.packages, "numpy": "99.0", "new-one": "1.0"},
            "code": then.code.model_copy(update={"commit": None}),
        }
    )
    found = {one.what: (one.then, one.now) for one in differences(then, now)}
    assert found["precision"] == ("float32", "bfloat16")
    assert found["threads"] == ("1", "7")
    assert found["numpy"] == (np.__version__, "99.0")
    assert found["new-one"] == ("none", "1.0")
    assert set(found) <= {"precision", "threads", "numpy", "new-one", "commit"}


def test_the_same_voxels_are_identical_and_another_file_is_told(run: FirstRun) -> None:
    labels, _ = read_label_map(run.label_map, argument="labels")
    same = compare(run.manifest, labels, run.manifest.result.file.sha256, None)
    assert (same.identical, same.same_file) == (True, True)
    repacked = compare(run.manifest, labels, "0" * 64, None)
    assert (repacked.identical, repacked.same_file) == (True, False)
    assert repacked.within(0.0)


def test_other_voxels_are_counted_and_scored_where_the_first_map_is_at_hand(run: FirstRun) -> None:
    first, _ = read_label_map(run.label_map, argument="labels")
    now = first.copy()
    moved = np.argwhere(first == 3)[:5]
    now[tuple(moved.T)] = 0
    unknown = compare(run.manifest, now, "0" * 64, None)
    assert (unknown.identical, unknown.different_voxels, unknown.within(1.0)) == (
        False,
        None,
        False,
    )
    known = compare(run.manifest, now, "0" * 64, first)
    assert known.different_voxels == 5
    assert known.dice is not None
    et = int((first == 3).sum())
    assert known.dice["ET"] == 2 * (et - 5) / (2 * et - 5)
    least = min(known.dice.values())
    assert known.within(1 - least)
    assert not known.within((1 - least) / 2)
    assert not known.within(0.0)


def test_a_comparison_of_nothing_known_is_never_within() -> None:
    assert not Comparison(identical=False, same_file=False).within(1.0)
