from pathlib import Path

import numpy as np
import pytest

from tests.training.synthesis.conftest import tumour_labels
from training.synthesis.anatomy import Tissue, read_head
from training.synthesis.tumour import Mask, lay_into, of_kind, read_mask


def rng(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_mask_is_read_where_it_lies_in_the_brain(material_folder: Path):
    mask = read_mask(material_folder / "masks" / "tumour_seg.nii.gz")

    assert mask is not None
    assert set(np.unique(mask.labels)) == {0, 1, 2, 3}
    assert max(map(abs, mask.place)) < 0.5  # laid just behind the middle


def test_a_plain_tumour_has_a_core_and_no_enhancement():
    labels = tumour_labels()

    plain = of_kind(rng(), labels, "plain")

    assert not (plain == 3).any()
    assert ((plain > 0) == (labels > 0)).all()
    assert np.isin(plain[np.isin(labels, (1, 3))], (1, 2)).all()


def test_a_scant_tumour_enhances_inside_its_core_only():
    labels = tumour_labels(14)
    core_of_plain = [of_kind(rng(seed), labels, "plain") == 1 for seed in range(8)]
    scant = [of_kind(rng(seed), labels, "scant") for seed in range(8)]

    enhancing = [s == 3 for s in scant]
    assert any(e.any() for e in enhancing)
    for e, core in zip(enhancing, core_of_plain, strict=True):
        assert not (e & ~core).any()
        assert e.sum() < 0.5 * core.sum()


def test_an_enhancing_tumour_is_the_outlined_one():
    labels = tumour_labels()

    assert np.array_equal(of_kind(rng(), labels, "enhancing"), labels)


def test_a_tumour_lies_in_solid_brain(material_folder: Path):
    tissues = read_head(material_folder / "labels" / "head.nii.gz")
    mask = Mask(labels=tumour_labels(8), place=(0.2, 0.3, 0.4))

    laid = lay_into(rng(), mask, tissues, "enhancing")

    assert laid is not None
    assert laid.shape == tissues.shape
    assert set(np.unique(laid)) == {0, 1, 2, 3}
    assert (tissues[laid > 0] != Tissue.OUTSIDE).all()
    ratio = (laid > 0).sum() / (mask.labels > 0).sum()
    assert 0.75**3 * 0.6 < ratio < 1.3**3 * 1.2


def test_a_tumour_larger_than_the_brain_finds_no_place(material_folder: Path):
    tissues = read_head(material_folder / "labels" / "head.nii.gz")
    mask = Mask(labels=tumour_labels(45), place=(0.0, 0.0, 0.0))

    assert lay_into(rng(), mask, tissues, "enhancing") is None


@pytest.mark.parametrize("kind", ["enhancing", "scant", "plain"])
def test_the_seed_decides_the_place(material_folder: Path, kind: str):
    tissues = read_head(material_folder / "labels" / "head.nii.gz")
    mask = Mask(labels=tumour_labels(8), place=(0.2, 0.3, 0.4))

    first, again, other = (lay_into(rng(seed), mask, tissues, kind) for seed in (1, 1, 2))  # type: ignore[arg-type]

    assert first is not None
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
