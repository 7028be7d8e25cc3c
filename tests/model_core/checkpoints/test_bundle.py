from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from model_core.checkpoints import (
    CardDraft,
    find_bundles,
    import_upstream,
    load_bundle,
    read_card,
    save_bundle,
)
from model_core.errors import BundleError, CheckpointError
from model_core.networks import Network, build_network
from model_core.networks.upstream_keys import key_map
from tests.model_core.checkpoints.cards import NETWORK, card_fields


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return build_network("lightm-unet", **NETWORK)


@pytest.fixture
def draft() -> CardDraft:
    return CardDraft.model_validate(card_fields())


@pytest.fixture
def folder(network: Network, draft: CardDraft, tmp_path: Path) -> Path:
    save_bundle(tmp_path / "tiny", network, draft)
    return tmp_path / "tiny"


def test_a_bundle_gives_back_network_and_card(
    folder: Path, network: Network, draft: CardDraft
) -> None:
    bundle = load_bundle(folder)
    assert bundle.card.model_dump(exclude={"weights"}) == draft.model_dump()
    assert bundle.card.weights.parameters == sum(p.numel() for p in network.parameters())
    assert not bundle.network.training
    assert not any(parameter.requires_grad for parameter in bundle.network.parameters())
    image = torch.randn(1, 4, 8, 8, 8)
    with torch.inference_mode():
        assert torch.equal(bundle.network(image), network.eval()(image))


def test_saving_changes_nothing_in_the_network(
    network: Network, draft: CardDraft, tmp_path: Path
) -> None:
    network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    save_bundle(tmp_path / "half", network, draft, dtype=torch.float16)
    assert network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_half_precision_halves_the_file_and_loads_as_float32(
    folder: Path, network: Network, draft: CardDraft, tmp_path: Path
) -> None:
    save_bundle(tmp_path / "half", network, draft, dtype=torch.float16)
    half, full = (f / "weights.safetensors" for f in (tmp_path / "half", folder))
    assert half.stat().st_size < 0.7 * full.stat().st_size
    loaded = load_bundle(tmp_path / "half").network
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=1e-3, atol=1e-6)


def edit_card(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / "card.json").read_text())
    card.update(changes)
    kept = {key: value for key, value in card.items() if value is not ...}
    (folder / "card.json").write_text(json.dumps(kept))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Rewrite the weights as someone would who also knows how to state their checksum."""
    weights = folder / "weights.safetensors"
    with safe_open(weights, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    change(tensors)
    save_file(tensors, weights, metadata=metadata)
    record = json.loads((folder / "card.json").read_text())["weights"]
    record["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    edit_card(folder, weights=record)


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (lambda f: flip_last_byte(f / "weights.safetensors"), "sha256 differs"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), r"safetensors is missing"),
    "no card": (lambda f: (f / "card.json").unlink(), r"card\.json is missing"),
    "a cut card": (lambda f: os.truncate(f / "card.json", 90), "not JSON"),
    "a deep card": (lambda f: (f / "card.json").write_text("[" * 100_000), "not JSON"),
    "a binary card": (lambda f: (f / "card.json").write_bytes(b"\xff\xfe\x00"), "not JSON"),
    "a list for a card": (lambda f: (f / "card.json").write_text("[]"), "not a JSON object"),
    "a missing field": (lambda f: edit_card(f, licence=...), "licence: Field required"),
    "an unknown field": (lambda f: edit_card(f, colour="blue"), "colour: Extra inputs"),
    "an unknown version": (lambda f: edit_card(f, format_version=2), "format_version is 2"),
    "no version": (lambda f: edit_card(f, format_version=...), "format_version is None"),
    "an exchanged channel order": (
        lambda f: edit_card(f, channels=["t1ce", "t1", "t2", "flair"]),
        r"card\.json was changed after",
    ),
    "another spacing": (lambda f: edit_card(f, spacing_mm=[1, 1, 2]), r"card\.json was changed"),
    "a missing tensor": (
        lambda f: edit_tensors(f, lambda t: t.pop("head.norm.bias")),
        r"missing tensor: head\.norm\.bias",
    ),
    "an extra tensor": (
        lambda f: edit_tensors(f, lambda t: t.update(extra=torch.zeros(1))),
        "unknown tensor: extra",
    ),
    "a misshapen tensor": (
        lambda f: edit_tensors(f, lambda t: t.update({"head.norm.bias": torch.zeros(9)})),
        r"head\.norm\.bias \(expected \(8,\), got \(9,\)\)",
    ),
    "a NaN": (
        lambda f: edit_tensors(f, lambda t: t["head.norm.bias"].fill_(torch.nan)),
        r"NaN or infinity in tensor: head\.norm\.bias",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_bundle_at_fault_is_refused_with_the_part(name: str, folder: Path) -> None:
    load_bundle(folder)
    damage, reason = FAULTS[name]
    damage(folder)
    with pytest.raises(BundleError, match=reason):
        load_bundle(folder)


def test_another_layout_of_the_same_card_is_the_same_card(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(dict(reversed(card.items())), indent=8))
    assert load_bundle(folder).card == read_card(folder)


def test_pickled_weights_in_a_bundle_never_run(folder: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (folder / "ran",)

    weights = folder / "weights.safetensors"
    torch.save({"head.norm.bias": Payload()}, weights)
    record = json.loads((folder / "card.json").read_text())["weights"]
    record["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    edit_card(folder, weights=record)
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(folder)
    assert not (folder / "ran").exists()


def test_the_number_of_parameters_is_checked(folder: Path) -> None:
    record = json.loads((folder / "card.json").read_text())["weights"]
    edit_card(folder, weights=record | {"parameters": 5})
    with pytest.raises(BundleError, match=r"weights\.parameters is 5"):
        load_bundle(folder)


def test_saving_refuses_a_card_of_another_network(network: Network, tmp_path: Path) -> None:
    for change, reason in (
        ({"network": NETWORK | {"init_filters": 16}}, "init_filters"),
        ({"family": "segmamba-brtm"}, "family"),
        ({"window": [32, 33, 32]}, "window"),
    ):
        card = CardDraft.model_validate(card_fields() | change)
        with pytest.raises(BundleError, match=reason):
            save_bundle(tmp_path / "tiny", network, card)
    assert list(tmp_path.iterdir()) == []


def test_saving_never_replaces_by_accident(
    network: Network, draft: CardDraft, folder: Path
) -> None:
    first = (folder / "card.json").read_bytes()
    with pytest.raises(BundleError, match="exists already"):
        save_bundle(folder, network, draft)
    assert (folder / "card.json").read_bytes() == first

    newer = draft.model_copy(update={"version": "2"})
    save_bundle(folder, network, newer, overwrite=True)
    assert load_bundle(folder).card.version == "2"
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_overwrite_spares_a_folder_that_is_no_bundle(
    network: Network, draft: CardDraft, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="exists already"):
        save_bundle(tmp_path / "home", network, draft, overwrite=True)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"


def test_a_failed_save_leaves_nothing_behind(
    network: Network, draft: CardDraft, tmp_path: Path
) -> None:
    with torch.no_grad():
        next(network.parameters()).fill_(torch.inf)
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        save_bundle(tmp_path / "tiny", network, draft)
    assert list(tmp_path.iterdir()) == []


def test_bundles_are_found_by_name_on_the_search_path(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "others" / "second"
    shutil.copytree(folder, other)
    shutil.copytree(folder, other.with_name(".second-being-written"))
    (other.parent / "not-a-bundle").mkdir()
    monkeypatch.setenv("SEGMAMBA_MODELS", os.pathsep.join([str(tmp_path), str(other.parent)]))
    found = find_bundles()
    assert found["tiny"] == folder
    assert found["second"] == other
    assert not {"not-a-bundle", ".second-being-written"} & set(found)
    assert load_bundle("second").path == other


def test_an_unknown_name_is_refused_with_the_known_ones(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGMAMBA_MODELS", str(folder.parent))
    with pytest.raises(BundleError, match=r"no bundle named tinny.*tiny.*SEGMAMBA_MODELS"):
        load_bundle("tinny")


@pytest.fixture
def upstream(network: Network, tmp_path: Path) -> Path:
    tensors = network.state_dict()
    names = key_map("lightm-unet", tensors)
    torch.save({theirs: tensors[ours] for theirs, ours in names.items()}, tmp_path / "w.pt")
    return tmp_path / "w.pt"


def write_card(path: Path, *without: str, **changes: Any) -> Path:
    fields = card_fields() | changes
    path.write_text(json.dumps({k: v for k, v in fields.items() if k not in without}))
    return path


@pytest.mark.parametrize("without", [("family", "network", "format_version"), ()])
def test_import_fills_in_what_the_weights_tell(
    without: tuple[str, ...], network: Network, upstream: Path, tmp_path: Path
) -> None:
    card = write_card(tmp_path / "card.json", *without)
    complete = import_upstream(upstream, card, tmp_path / "out")
    assert (complete.family, complete.network) == ("lightm-unet", NETWORK)
    loaded = load_bundle(tmp_path / "out")
    assert loaded.card == complete
    image = torch.randn(1, 4, 8, 8, 8)
    with torch.inference_mode():
        assert torch.equal(loaded.network(image), network.eval()(image))


def test_import_refuses_a_card_that_contradicts_the_weights(upstream: Path, tmp_path: Path) -> None:
    for changes, reason in (
        ({"family": "segmamba"}, "family"),
        ({"network": NETWORK | {"init_filters": 16}}, "init_filters"),
        ({"heads": "regions", "outputs": ["WT", "TC", "ET"]}, "out_channels is 4"),
        ({"window": [31, 32, 32]}, "window"),
    ):
        card = write_card(tmp_path / "card.json", **changes)
        with pytest.raises(BundleError, match=reason):
            import_upstream(upstream, card, tmp_path / "out")
    card = write_card(tmp_path / "card.json", "licence", "citation")
    with pytest.raises(BundleError, match=r"licence: Field required; citation: Field required"):
        import_upstream(upstream, card, tmp_path / "out")
    assert not (tmp_path / "out").exists()
