from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from model_core.checkpoints import CardDraft, ModelCard
from tests.model_core.checkpoints.cards import card_fields


def test_a_complete_card_survives_json() -> None:
    card = CardDraft.model_validate(card_fields())
    assert CardDraft.model_validate_json(card.model_dump_json()) == card


@pytest.mark.parametrize("field", [name for name in card_fields() if name != "format_version"])
def test_every_field_is_required(field: str) -> None:
    fields = card_fields()
    del fields[field]
    with pytest.raises(ValidationError, match=field):
        CardDraft.model_validate(fields)


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "a contrast twice": ({"channels": ["t1", "t1", "t2", "flair"]}, "once"),
    "an unknown contrast": ({"channels": ["t1", "t1gd", "t2", "flair"]}, "channels"),
    "fewer contrasts than channels": ({"channels": ["t1", "t2", "flair"]}, "in_channels is 4"),
    "more outputs than classes": (
        {"heads": "regions", "outputs": ["WT", "TC", "ET"]},
        "out_channels is 4, but the card names 3",
    ),
    "labels under region heads": ({"heads": "regions"}, "outputs of regions heads are WT"),
    "regions under label heads": ({"outputs": ["WT", "TC", "ET"]}, "outputs of labels heads are"),
    "an axis named twice": ({"orientation": "SPI"}, "one letter each"),
    "no axis name": ({"orientation": "XYZ"}, "orientation"),
    "flat spacing": ({"spacing_mm": [1.0, 0.0, 1.0]}, "spacing_mm"),
    "endless spacing": ({"spacing_mm": [1.0, float("inf"), 1.0]}, "spacing_mm"),
    "a flat window": ({"window": [32, 0, 32]}, "window"),
    "full overlap": ({"overlap": 1.0}, "overlap"),
    "a fourth axis": ({"mirror_axes": [3]}, "mirror_axes"),
    "mirroring without axes": ({"tta": "full", "mirror_axes": []}, "nothing to mirror"),
    "an unknown family": ({"family": "unet"}, "family"),
    "an unknown step": ({"postprocess": [{"name": "polish", "params": {}}]}, "polish"),
    "a step's unknown parameter": (
        {"postprocess": [{"name": "relabel_small_et", "params": {"size": 3}}]},
        "size",
    ),
    "a name that is no folder": ({"name": "../other"}, "name"),
    "no licence": ({"licence": ""}, "licence"),
    "an unknown field": ({"colour": "blue"}, "colour"),
    "another version": ({"format_version": 2}, "format_version"),
    "two dimensions": (
        {"network": {"in_channels": 4, "out_channels": 4, "spatial_dims": 2}},
        "3-D",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_card_with_a_contradiction_does_not_exist(name: str) -> None:
    change, reason = CONTRADICTIONS[name]
    with pytest.raises(ValidationError, match=reason):
        CardDraft.model_validate(card_fields() | change)


def test_any_order_of_contrasts_and_region_heads_is_a_card() -> None:
    card = CardDraft.model_validate(
        card_fields()
        | {"channels": ["t2", "flair", "t1", "t1ce"], "heads": "regions"}
        | {"outputs": ["TC", "WT", "ET"], "network": {"in_channels": 4, "out_channels": 3}}
    )
    assert card.channels == ("t2", "flair", "t1", "t1ce")
    assert card.outputs == ("TC", "WT", "ET")


def test_a_stored_card_states_its_version_and_its_weights() -> None:
    complete = card_fields() | {
        "weights": {"file": "weights.safetensors", "sha256": "0" * 64, "parameters": 1}
    }
    assert ModelCard.model_validate(complete).weights.parameters == 1
    for missing in ("format_version", "weights"):
        with pytest.raises(ValidationError, match=missing):
            ModelCard.model_validate({k: v for k, v in complete.items() if k != missing})


def test_a_training_record_keeps_what_else_it_is_told() -> None:
    record = {"data": "a", "code_version": "b", "recipe": "c", "steps": 2000}
    card = CardDraft.model_validate(card_fields() | {"training": record})
    assert card.model_dump(mode="json")["training"] == record
