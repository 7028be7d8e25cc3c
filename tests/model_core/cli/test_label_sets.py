"""What a label set takes from text and from dataset.json, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model_core.cli.label_sets import parse_labels, read_dataset_json, read_map
from model_core.errors import ImageError, OptionError


def described(folder: Path, labels: Any) -> Path:
    path = folder / "dataset.json"
    path.write_text(json.dumps({"labels": labels}))
    return path


def test_text_names_single_values_and_unions() -> None:
    found = parse_labels("1=blob, 2=core, 1+2=whole thing")
    assert found.regions == {"blob": (1,), "core": (2,), "whole thing": (1, 2)}
    assert found.values == {0, 1, 2}


@pytest.mark.parametrize("text", ["", "blob", "1=", "=blob", "0=air", "256=x", "1=a,2=a", "a=1"])
def test_text_of_another_form_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(OptionError, match="1=blob,2=core"):
        parse_labels(text)


def test_regions_of_nnunet_are_unions(tmp_path: Path) -> None:
    labels = {"background": 0, "whole tumor": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    found = read_dataset_json(described(tmp_path, labels))
    assert found.regions == {"whole tumor": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    masks = found.masks(np.array([[0, 1, 2, 3]]), "truth")
    assert masks["core"].tolist() == [[False, False, True, True]]


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        ({"background": 0}, "no label"),
        ({"background": 0, "a": 1, "ignore": 2}, "ignore"),
        ({"background": 0, "a": 300}, "outside"),
        ({"0": "background", "1": "a", "2": "a"}, "twice"),
        ({"x": "y"}, "none that can be read"),
        (["a"], "none that can be read"),
    ],
)
def test_a_description_that_declares_no_labels_is_refused(
    tmp_path: Path, labels: Any, got: str
) -> None:
    with pytest.raises(OptionError, match=got):
        read_dataset_json(described(tmp_path, labels))


def test_a_palette_picture_is_read_by_its_indices(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1], [2, 1], [0, 0]], np.uint8), mode="P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.png")
    volume = read_map(tmp_path / "a.png", argument="truth")
    assert volume.shape == (1, 3, 2)
    assert volume.array[0].tolist() == [[0, 1], [2, 1], [0, 0]]


def test_colour_pictures_and_damaged_files_are_no_label_maps(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    for name, got in (("a", "3 channels"), ("b", "cannot be read")):
        with pytest.raises(ImageError, match=got):
            read_map(tmp_path / f"{name}.png", argument="truth")
