"""``--set`` and ``--epochs``: text of the command line becomes settings, or is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_core.errors import OptionError
from training.commands.settings import corrections_in, parse_settings, with_epochs


def test_values_are_json_or_themselves_and_direct_options_win() -> None:
    pairs = ["patch=[96, 96, 96]", "precision=bfloat16", "augmentation.flip=0", "steps=5"]
    assert parse_settings(pairs, steps=7, max_minutes=None) == {
        "patch": [96, 96, 96],
        "precision": "bfloat16",
        "augmentation.flip": 0,
        "steps": 7,
    }


def test_a_value_may_hold_an_equals_sign() -> None:
    assert parse_settings(["recipe=a=b"]) == {"recipe": "a=b"}


def test_a_file_after_an_at_sign_is_read(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text('[{"name": "fill_holes"}]')
    found = parse_settings([f"postprocess=@{tmp_path / 'steps.json'}"])
    assert found == {"postprocess": [{"name": "fill_holes"}]}


@pytest.mark.parametrize(
    ("pair", "argument"),
    [("batch", "set"), ("=3", "set"), ("postprocess=@nowhere.json", "postprocess")],
)
def test_what_cannot_be_read_is_refused(pair: str, argument: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_settings([pair])
    assert caught.value.argument == argument


def test_a_file_that_is_no_json_is_refused_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text("steps: none")
    with pytest.raises(OptionError, match=r"steps\.json: not JSON") as caught:
        parse_settings([f"postprocess=@{tmp_path / 'steps.json'}"])
    assert str(tmp_path) not in str(caught.value)


def test_an_epoch_is_the_recipes_steps_unless_the_same_command_says_otherwise() -> None:
    assert with_epochs({}, 300) == {"steps": 75_000}
    assert with_epochs({}, 2, epoch_steps=10) == {"steps": 20}
    assert with_epochs({"epoch_steps": 100}, 3) == {"epoch_steps": 100, "steps": 300}
    assert with_epochs({"batch": 1}, None) == {"batch": 1}


def test_steps_and_epochs_together_are_refused() -> None:
    with pytest.raises(OptionError, match="one of the two"):
        with_epochs({"steps": 3}, 1)


def test_found_corrections_are_steps_for_the_card_and_evidence_for_its_readers() -> None:
    steps = [{"name": "fill_holes", "params": {"region": "WT"}}]
    stored = {"format": "segmamba-corrections/1", "steps": steps, "evidence": {"cases": 5}}
    settings, found = corrections_in({"postprocess": json.loads(json.dumps(stored)), "overlap": 0})
    assert settings == {"postprocess": steps, "overlap": 0}
    assert found == {"cases": 5}
    assert corrections_in({"postprocess": steps}) == ({"postprocess": steps}, None)


def test_another_object_as_corrections_is_refused() -> None:
    with pytest.raises(OptionError, match=r"corrections\.json"):
        corrections_in({"postprocess": {"name": "fill_holes"}})
