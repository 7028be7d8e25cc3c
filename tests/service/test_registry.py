"""Models are loaded once, warmed up, kept up to the cap, and named from a closed list."""

from __future__ import annotations

import pytest

from model_core.errors import OptionError
from service.registry import ModelRegistry
from tests.service.fakes import CATALOGUE, FakeSegmenter


class Factory:
    def __init__(self) -> None:
        self.made: list[FakeSegmenter] = []

    def __call__(self, name: str) -> FakeSegmenter:
        self.made.append(FakeSegmenter(name))
        return self.made[-1]

    @property
    def names(self) -> list[str]:
        return [segmenter.name for segmenter in self.made]


def registry(factory: Factory, capacity: int) -> ModelRegistry:
    return ModelRegistry("fake", capacity=capacity, factory=factory, catalogue=lambda: CATALOGUE)


def test_a_model_is_loaded_and_warmed_up_once() -> None:
    factory = Factory()
    models = registry(factory, 2)
    assert models.acquire("fake") is models.acquire("fake")
    assert [segmenter.warmed for segmenter in factory.made] == [1]


def test_the_least_recently_used_guest_makes_room_and_the_default_stays() -> None:
    factory = Factory()
    models = registry(factory, 2)
    for name in ("fake", "other", "third", "fake", "third", "other"):
        models.acquire(name)
    assert factory.names == ["fake", "other", "third", "other"]
    assert set(models.loaded()) == {"fake", "other"}


def test_a_guest_is_not_kept_where_there_is_room_for_the_default_only() -> None:
    factory = Factory()
    models = registry(factory, 1)
    models.acquire("fake")
    models.acquire("other")
    assert models.loaded() == ("fake",)


def test_a_model_that_fails_to_warm_up_is_not_kept() -> None:
    class Cold(FakeSegmenter):
        def warm_up(self) -> float:
            raise MemoryError

    models = ModelRegistry("fake", capacity=2, factory=Cold, catalogue=lambda: CATALOGUE)
    with pytest.raises(MemoryError):
        models.acquire("fake")
    assert models.loaded() == ()


@pytest.mark.parametrize("name", ["../fake", "/etc", "fake/", "FAKE", "nothing", "\x00"])
def test_a_name_that_is_not_installed_is_refused_without_repeating_it(name: str) -> None:
    factory = Factory()
    with pytest.raises(OptionError) as refused:
        registry(factory, 2).resolve(name)
    assert refused.value.argument == "model"
    assert "fake, other, third" in refused.value.expected
    assert name not in refused.value.got
    assert factory.made == []


def test_no_name_means_the_default() -> None:
    assert registry(Factory(), 2).resolve(None) == "fake"
