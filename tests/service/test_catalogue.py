"""Models are named from a closed list, and a broken card hides no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_core.errors import OptionError
from service.catalogue import check_installed, installed_models, resolve
from tests.service.fakes import CATALOGUE
from tests.service.servers import write_tiny_bundle


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_tiny_bundle(tmp_path)
    monkeypatch.setenv("SEGMAMBA_MODELS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", ["../fake", "/etc", "fake/", "FAKE", "nothing", "\x00"])
def test_a_name_that_is_not_installed_is_refused_without_repeating_it(name: str) -> None:
    with pytest.raises(OptionError) as refused:
        resolve(CATALOGUE, name, "fake")
    assert refused.value.argument == "model"
    assert "fake, other, third" in refused.value.expected
    assert name not in refused.value.got


def test_no_name_means_the_default() -> None:
    assert resolve(CATALOGUE, None, "fake").name == "fake"


@pytest.mark.parametrize("name", ["nothing", "/etc", "."])
def test_a_default_model_that_is_not_installed_is_refused(models: Path, name: str) -> None:
    check_installed("tiny")
    with pytest.raises(OptionError, match="SEGMAMBA_MODELS"):
        check_installed(name)


@pytest.mark.parametrize("card", ["{", "[]", "{}", '{"format_version": 2}', "\x00"])
def test_a_bundle_with_a_broken_card_does_not_hide_the_others(models: Path, card: str) -> None:
    write_tiny_bundle(models, "broken")
    (models / "broken" / "card.json").write_text(card)
    found = installed_models()
    assert found["tiny"][0].card["family"] == "segmamba"
    assert "broken" not in found
