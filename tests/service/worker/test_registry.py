"""Models are loaded once, kept up to the caps, and exchanged beside the jobs that use them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from model_core.catalogue import Installed, InstalledBundle
from model_core.checkpoints.bundle import sha256_of
from model_core.errors import BundleError, KernelMemoryError, MemoryLimitError, OptionError
from service.catalogue import installed_models
from service.settings import Settings
from service.worker.bundles import bundle_loader
from service.worker.registry import SHORT_SECONDS, ModelRegistry
from tests.service.fakes import CATALOGUE, FakeSegmenter, installed
from tests.service.servers import write_tiny_bundle

MEBI = 1024 * 1024


class House:
    """A registry, what is installed, and what became of both."""

    def __init__(self, capacity: int = 2, budget: int | None = None) -> None:
        self.installed: dict[str, tuple[InstalledBundle, ...]] = dict(CATALOGUE)
        self.made: list[tuple[str, str]] = []
        self.bad: set[tuple[str, str]] = set()
        self.swaps: list[str] = []
        self.while_loading: Callable[[InstalledBundle], None] = lambda _: None
        self.models = ModelRegistry(
            "fake",
            capacity=capacity,
            factory=self.make,
            installed=lambda: self.installed,
            budget=budget,
            swapped=self.swaps.append,
        )

    def make(self, bundle: InstalledBundle) -> FakeSegmenter:
        self.while_loading(bundle)
        self.made.append((bundle.name, bundle.version))
        if self.made[-1] in self.bad:
            raise BundleError("spoilt")
        segmenter = FakeSegmenter(bundle.name)
        segmenter.card.version = bundle.version
        return segmenter

    def install(self, *bundles: InstalledBundle) -> None:
        """Bundles of one name, the newest first, in the place of those that were there."""
        self.installed[bundles[0].name] = bundles

    def version(self, name: str = "fake") -> str:
        return self.models.acquire(name).bundle.version

    def states(self) -> dict[str, str]:
        told = self.models.states()
        assert json.loads(json.dumps(told)) == told
        return {f"{one['model']}@{one['version']}": one["state"] for one in told}


def test_a_model_is_loaded_and_warmed_up_once() -> None:
    house = House()
    first = house.models.acquire("fake")
    assert house.models.acquire("fake") is first
    assert isinstance(first.segmenter, FakeSegmenter)
    assert first.segmenter.warmed == 1


def test_the_least_recently_used_guest_makes_room_and_the_default_stays() -> None:
    house = House()
    for name in ("fake", "other", "third", "fake", "third", "other"):
        house.models.acquire(name)
    assert [name for name, _ in house.made] == ["fake", "other", "third", "other"]
    assert set(house.models.loaded()) == {"fake", "other"}


def test_a_guest_is_not_kept_where_there_is_room_for_the_default_only() -> None:
    house = House(capacity=1)
    house.models.acquire("fake")
    house.models.acquire("other")
    assert house.models.loaded() == ("fake",)


def test_a_model_without_room_to_warm_up_is_not_kept_and_not_broken() -> None:
    class Cold(FakeSegmenter):
        def warm_up(self) -> float:
            raise MemoryError

    models = ModelRegistry(
        "fake", capacity=2, factory=lambda one: Cold(one.name), installed=lambda: CATALOGUE
    )
    for _ in range(2):
        with pytest.raises(MemoryError):
            models.acquire("fake")
    assert models.loaded() == ()
    assert models.states() == []


def test_a_new_version_is_loaded_beside_the_old_one_and_then_serves() -> None:
    house = House()
    old = house.models.acquire("fake")
    house.install(installed("fake", "2.0.0"), *CATALOGUE["fake"])
    served: list[str] = []
    house.while_loading = lambda _: served.append(house.version())
    assert house.version() == "1.0.0", "nothing is exchanged unasked"
    assert house.models.refresh() is True
    assert served == ["1.0.0"], "the old one served while the new one was loaded"
    assert house.version() == "2.0.0"
    assert old.segmenter.card.version == "1.0.0", "who began with it has it still"
    assert house.states() == {"fake@2.0.0": "ready"}
    assert house.models.refresh() is False
    assert house.swaps == ["ok"]


def test_the_same_version_with_other_weights_is_another_one() -> None:
    house = House()
    house.models.acquire("fake")
    card = {**CATALOGUE["fake"][0].card, "weights": {"sha256": "1" * 64, "parameters": 1}}
    house.install(replace(CATALOGUE["fake"][0], card=card))
    assert house.models.refresh() is True
    assert house.models.acquire("fake").bundle.card == card


def test_a_broken_new_version_leaves_the_old_one_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = House()
    house.models.acquire("fake")
    house.install(installed("fake", "3.0.0"), installed("fake", "2.0.0"), *CATALOGUE["fake"])
    house.bad = {("fake", "3.0.0")}
    assert [house.models.refresh() for _ in range(3)] == [True, False, False]
    assert house.version() == "2.0.0", "the newest good one"
    assert house.states() == {"fake@2.0.0": "ready", "fake@3.0.0": "broken"}
    assert house.swaps == ["broken", "ok"]
    told = [record for record in caplog.records if "broken" in record.message]
    assert [(one.__dict__["version"], one.__dict__["reason"]) for one in told] == [
        ("3.0.0", "spoilt")
    ]
    with pytest.raises(BundleError, match=r"3\.0\.0"):
        house.models.acquire("fake", "3.0.0")
    assert house.made.count(("fake", "3.0.0")) == 1


@pytest.mark.parametrize(
    "shortage",
    [
        MemoryError(),
        KernelMemoryError("scratch"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["host", "kernel", "device", "allocator"],
)
def test_a_new_version_without_room_is_not_broken_and_is_tried_again_later(
    shortage: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House()
    house.models.acquire("fake")
    house.install(installed("fake", "2.0.0"), *CATALOGUE["fake"])

    def fail(_bundle: InstalledBundle) -> None:
        raise shortage

    house.while_loading = fail
    assert house.models.refresh() is False
    assert house.states() == {"fake@1.0.0": "ready"}
    house.while_loading = lambda _: None
    assert house.models.refresh() is False, "not at every look: loading takes memory from the jobs"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + SHORT_SECONDS)
    assert house.models.refresh() is True
    assert house.version() == "2.0.0"
    assert house.swaps == ["ok"]


def test_the_newest_that_loads_serves_from_the_start() -> None:
    house = House()
    house.install(installed("fake", "2.0.0"), *CATALOGUE["fake"])
    house.bad = {("fake", "2.0.0")}
    assert house.version() == "1.0.0"
    house.bad.add(("other", "1.0.0"))
    for _ in range(2):
        with pytest.raises(BundleError):
            house.models.acquire("other")
    assert house.made.count(("other", "1.0.0")) == 1


def test_a_version_that_is_taken_away_makes_way_for_the_one_before() -> None:
    house = House()
    house.install(installed("fake", "2.0.0"), *CATALOGUE["fake"])
    assert house.version() == "2.0.0"
    house.install(*CATALOGUE["fake"])
    assert house.models.refresh() is True
    assert house.version() == "1.0.0"
    del house.installed["fake"]
    assert house.models.refresh() is False
    assert house.version() == "1.0.0", "what is in memory stays where nothing else is there"


def test_an_exact_version_runs_beside_the_one_that_serves() -> None:
    house = House()
    house.install(installed("fake", "2.0.0"), *CATALOGUE["fake"])
    house.models.acquire("fake")
    assert house.models.acquire("fake", "1.0.0").bundle.version == "1.0.0"
    assert house.states() == {"fake@2.0.0": "ready", "fake@1.0.0": "ready"}
    house.models.acquire("other")  # one guest only
    assert house.states() == {"fake@2.0.0": "ready", "other@1.0.0": "ready"}
    house.install(installed("fake", "2.0.0"))
    with pytest.raises(OptionError, match=r"fake@1\.0\.0, which is not there any more"):
        house.models.acquire("fake", "1.0.0")


def test_a_version_that_was_asked_for_by_itself_is_not_loaded_again_to_serve() -> None:
    house = House(capacity=3)
    house.models.acquire("fake")
    house.models.acquire("other")
    house.install(installed("other", "2.0.0"), *CATALOGUE["other"])
    exact = house.models.acquire("other", "2.0.0")
    assert house.version("other") == "1.0.0"
    assert house.models.refresh() is True
    assert house.models.acquire("other") is exact
    assert house.made.count(("other", "2.0.0")) == 1


def test_guests_leave_before_the_budget_would_be_passed() -> None:
    """1 Mi parameters are 4 MiB: the default and two such guests fit into 12 MiB."""
    house = House(capacity=9, budget=12 * MEBI)
    sizes = {"fake": MEBI, "a": MEBI, "b": MEBI, "c": MEBI, "d": 2 * MEBI, "e": 1}
    for name, parameters in sizes.items():
        house.install(installed(name, parameters=parameters))

    def room(bundle: InstalledBundle) -> None:
        held = sum(4 * sizes[name] for name in house.models.loaded())
        assert held + bundle.weights_bytes <= 12 * MEBI

    house.while_loading = room
    loaded = []
    for name in ("fake", "a", "b", "a", "c", "d", "e", "c"):
        house.models.acquire(name)
        loaded.append("".join(house.models.loaded()))
    # least recently used first; the default too, which stays whatever its place
    assert loaded == ["fake", "fakea", "fakeab", "fakeba", "fakeac", "faked", "fakee", "fakeec"]


@pytest.mark.parametrize("parameters", [2 * MEBI + 1, 4 * MEBI])
def test_a_model_that_can_never_fit_is_refused_and_sends_nobody_away(parameters: int) -> None:
    house = House(capacity=9, budget=12 * MEBI)
    house.install(installed("fake", parameters=MEBI))
    house.install(installed("big", parameters=parameters))
    house.models.acquire("fake")
    house.models.acquire("other")
    for _ in range(2):
        with pytest.raises(MemoryLimitError, match="SEGMAMBA_MODELS_MEMORY_MB"):
            house.models.acquire("big")
    assert house.models.loaded() == ("fake", "other")
    assert ("big", "1.0.0") not in house.made


def test_versions_are_exchanged_where_both_together_would_pass_the_budget() -> None:
    house = House(budget=6 * MEBI)
    house.install(installed("fake", parameters=MEBI))
    house.models.acquire("fake")
    house.models.acquire("other")
    house.install(installed("fake", "2.0.0", parameters=MEBI), *CATALOGUE["fake"])
    assert house.models.refresh() is True
    assert house.states() == {"other@1.0.0": "ready", "fake@2.0.0": "ready"}
    house.install(installed("fake", "3.0.0", parameters=2 * MEBI), *house.installed["fake"])
    house.models.refresh()
    assert house.states()["fake@3.0.0"] == "broken", "alone more than the budget"
    assert house.version() == "2.0.0"


# ---------------------------------------------------------------------------- with real bundles


def wrong_checksum(folder: Path) -> None:
    with (folder / "weights.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")


def missing_tensor(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.pop("head.weight"))


def overflow(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors["head.weight"].fill_(torch.finfo(torch.float32).max))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Other tensors, under a card that has the checksum of just this file."""
    weights, card = folder / "weights.safetensors", folder / "card.json"
    with safe_open(weights, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(weights)
    change(tensors)
    save_file(tensors, weights, metadata=metadata)
    content = json.loads(card.read_text())
    content["weights"]["sha256"] = sha256_of(weights)
    card.write_text(json.dumps(content))


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelRegistry:
    """A registry with a real model that serves, its folder of models being ``tmp_path/models``."""
    monkeypatch.setenv("SEGMAMBA_MODELS", str(tmp_path / "models"))
    write_tiny_bundle(tmp_path / "models", version="1.0.0", folder="1.0.0")
    models = ModelRegistry("tiny", capacity=1, factory=bundle_loader(Settings(), "cpu"))
    models.acquire("tiny")
    return models


@pytest.mark.parametrize(
    ("spoil", "exception"),
    [
        (wrong_checksum, "BundleError"),
        (missing_tensor, "BundleError"),
        (overflow, "NumericalError"),  # it loads, and does not get through its warm-up
    ],
)
def test_a_real_bundle_that_does_not_load_or_run_is_broken_until_it_is_mended(
    real: ModelRegistry,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
    exception: str,
) -> None:
    home = tmp_path / "models" / "tiny"
    spoilt = write_tiny_bundle(tmp_path / "models", version="2.0.0", seed=5, folder=".2.0.0")
    spoil(spoilt)
    spoilt.rename(home / "2.0.0")
    assert [real.refresh() for _ in range(2)] == [True, False]
    (told,) = [record for record in caplog.records if "broken" in record.message]
    assert told.__dict__["exception"] == exception
    states = {one["version"]: one["state"] for one in real.states()}
    assert states == {"1.0.0": "ready", "2.0.0": "broken"}
    assert real.acquire("tiny").bundle.version == "1.0.0"
    good = write_tiny_bundle(tmp_path / "models", version="2.0.0", seed=5, folder=".good")
    for file in good.iterdir():
        file.replace(home / "2.0.0" / file.name)
    real.refresh()
    real.refresh()  # the files have rested
    assert real.acquire("tiny").bundle.version == "2.0.0"
    assert {one["state"] for one in real.states()} == {"ready"}


def test_a_bundle_that_is_replaced_while_it_is_read_is_not_taken_for_the_one_that_was_there(
    real: ModelRegistry, tmp_path: Path
) -> None:
    (before,) = installed_models()["tiny"]
    write_tiny_bundle(tmp_path / "other", version="1.0.0", seed=5)
    for file in (tmp_path / "other" / "tiny").iterdir():
        file.replace(before.folder / file.name)
    with pytest.raises(BundleError, match="replaced"):
        bundle_loader(Settings(), "cpu")(before)
    assert real.refresh() is True
    found: Installed = installed_models()
    assert real.acquire("tiny").bundle.digest == found["tiny"][0].digest != before.digest
