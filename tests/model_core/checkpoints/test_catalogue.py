"""Folders of models: versions in order, half-written ones unseen, impostors refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model_core.catalogue import find_bundle, find_bundles, find_versions, newest


def put(folder: Path, version: object, **more: object) -> Path:
    """A folder with a card, as far as the catalogue looks at one."""
    folder.mkdir(parents=True)
    weights = {"sha256": "ab" * 32, "parameters": 250}
    card = {"format_version": 1, "version": version, "weights": weights, **more}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGMAMBA_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def versions(name: str) -> list[str]:
    return [one.version for one in find_versions()[name] if one.fault is None]


def fault(name: str) -> str:
    (told,) = [one.fault for one in find_versions()[name] if one.fault is not None]
    return told


def test_the_newest_version_by_its_numbers_serves(models: Path) -> None:
    for version in ("0.9.0", "0.10.0", "1.0.0rc1"):
        put(models / "m" / version, version)
    flat = put(models / "m" / "x", "0.2").rename(models / "flat")
    for file in flat.iterdir():
        file.rename(models / "m" / file.name)  # as an older release left it
    assert versions("m") == ["1.0.0rc1", "0.10.0", "0.9.0", "0.2"]
    assert find_bundles()["m"] == find_bundle("m") == models / "m" / "1.0.0rc1"
    assert find_bundle("m@0.9.0") == models / "m" / "0.9.0"
    assert find_bundle("m@0.2") == models / "m"


@pytest.mark.parametrize("asked", ["m@", "m@2", "m@../m", "../models/m", "n", "@1", "m@1@1", ""])
def test_what_is_not_installed_is_no_folder(models: Path, asked: str) -> None:
    put(models / "m" / "1", "1")
    assert find_bundle(asked) is None


def test_what_begins_with_a_dot_is_not_there_yet(models: Path) -> None:
    put(models / "m" / "1", "1")
    put(models / "m" / ".2-abc", "2")
    put(models / ".n" / "1", "1")
    assert versions("m") == ["1"]
    assert ".n" not in find_versions()


@pytest.mark.parametrize("version", ["2.0.0", "1.0", 1, None, ""])
def test_a_folder_whose_card_is_of_another_version_is_refused(
    models: Path, version: object
) -> None:
    put(models / "m" / "0.1", "0.1")
    put(models / "m" / "1.0.0", version)
    assert versions("m") == ["0.1"]
    assert "card" in fault("m")
    assert find_bundle("m@1.0.0") is None
    assert newest(find_versions()["m"]).version == "0.1"


@pytest.mark.parametrize("name", ["latest", "1.0 ", "v", "1!2", "1_x"])
def test_a_folder_whose_name_is_no_version_is_refused(models: Path, name: str) -> None:
    put(models / "m" / "1", "1")
    put(models / "m" / name, name)
    assert versions("m") == ["1"]
    assert "no version" in fault("m")


def test_a_link_that_leads_outside_is_refused_and_one_inside_is_not(models: Path) -> None:
    put(models / "m" / "1", "1")
    outside = put(models.parent / "elsewhere", "2")
    (models / "m" / "2").symlink_to(outside, target_is_directory=True)
    put(models / "m" / ".data" / "3", "3")
    (models / "m" / "3").symlink_to(Path(".data") / "3", target_is_directory=True)
    assert versions("m") == ["3", "1"]
    assert "outside" in fault("m")


def test_a_name_outside_the_pattern_is_refused(models: Path) -> None:
    put(models / "a b", "1")
    assert versions("a b") == []
    assert "name" in fault("a b")


def test_no_folder_adds_a_version_to_a_packaged_model(models: Path) -> None:
    before = find_versions()["segmamba-small"]
    put(models / "segmamba-small" / "999", "999")
    assert find_versions()["segmamba-small"] == before


def test_the_digest_is_of_the_cards_content_and_the_stamp_of_its_files(models: Path) -> None:
    folder = put(models / "m" / "1", "1")
    (first,) = find_versions()["m"]
    stamp = first.stamp()
    card = folder / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()), indent=3))
    (laid_out,) = find_versions()["m"]
    assert (laid_out.key, laid_out.weights_bytes) == (first.key, 1000)
    assert laid_out.stamp() != stamp
    card.write_text(card.read_text().replace("ab", "cd"))
    (other,) = find_versions()["m"]
    assert other.digest != first.digest
