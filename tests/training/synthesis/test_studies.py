from pathlib import Path

import numpy as np
import pytest
import torch

from model_core.errors import OptionError
from model_core.types import CONTRASTS
from training.synthesis.anatomy import Tissue, read_head
from training.synthesis.appearance import draw_images, draw_tumour, with_bias
from training.synthesis.faults import acquire, thick_slices
from training.synthesis.studies import draw_study, find_material


def rng(seed: int = 5) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_study_is_a_tumour_in_a_stripped_brain(material_folder: Path):
    drawn = draw_study(find_material(material_folder), 1)

    assert set(np.unique(drawn.labels)) <= {0, 1, 2, 3}
    assert np.count_nonzero(drawn.labels) >= 300
    for contrast in CONTRASTS:
        image = np.asarray(drawn.study.volumes[contrast].array)
        assert image.shape == drawn.labels.shape
        assert (image[drawn.labels > 0] > 0).all()
        assert 0.2 < (image == 0).mean() < 0.9


def test_the_seed_decides_the_study(material_folder: Path):
    material = find_material(material_folder)

    first, again, other = (draw_study(material, seed) for seed in (1, 1, 2))

    assert np.array_equal(first.labels, again.labels)
    assert np.array_equal(first.study.volumes["flair"].array, again.study.volumes["flair"].array)
    assert not np.array_equal(first.labels, other.labels)


def test_tissues_look_as_they_do_in_each_contrast(material_folder: Path):
    tissues = torch.from_numpy(read_head(material_folder / "labels" / "head.nii.gz").astype(int))
    images = draw_images(rng(), tissues, torch.zeros_like(tissues), "enhancing")

    def level(contrast: str, tissue: Tissue) -> float:
        return float(images[contrast][tissues == tissue].mean())  # type: ignore[index]

    assert level("t1", Tissue.CSF) < level("t1", Tissue.CORTEX) < level("t1", Tissue.WHITE)
    assert level("t2", Tissue.WHITE) < level("t2", Tissue.CORTEX) < level("t2", Tissue.CSF)
    assert level("flair", Tissue.CSF) < level("flair", Tissue.WHITE) < level("flair", Tissue.CORTEX)


@pytest.mark.parametrize("seed", range(20))
def test_tumours_look_like_tumours(seed: int):
    look = draw_tumour(rng(seed), "enhancing")

    # enhancement is seen on T1ce and not on T1; oedema on FLAIR
    assert look[3]["t1ce"].level > look[1]["t1ce"].level
    assert look[3]["t1ce"].level > look[3]["t1"].level - 0.6
    assert look[2]["flair"].level > 0.8

    plain = draw_tumour(rng(seed), "plain")
    assert plain[1]["t1"].level < plain[2]["t1"].level
    assert plain[1]["t2"].level > plain[2]["t2"].level
    assert plain[1]["t1ce"].level < 1.0


def test_thick_slices_keep_a_constant_and_lose_detail_along_one_axis():
    assert torch.allclose(
        thick_slices(torch.full((20, 20, 20), 3.0), axis=1, thickness=4.0), torch.tensor(3.0)
    )
    fine = torch.from_numpy(rng().standard_normal((24, 24, 24), dtype=np.float32))
    thick = thick_slices(fine, axis=2, thickness=4.0)
    assert thick.diff(dim=2).std() < 0.2 * fine.diff(dim=2).std()
    assert thick.diff(dim=2).std() < 0.5 * thick.diff(dim=0).std()


def test_a_bias_field_is_smooth_and_weak():
    flat = torch.zeros(140, 40, 40)

    biased = with_bias(rng(), flat)

    assert float(biased.abs().max()) < 4 * 0.7
    assert float(biased.diff(dim=0).abs().max()) < 0.15


def test_outside_the_brain_there_is_nothing():
    images = {contrast: torch.randn(16, 16, 16) for contrast in CONTRASTS}
    brain = torch.zeros(16, 16, 16, dtype=torch.bool)
    brain[4:12, 4:12, 4:12] = True

    for image in acquire(rng(), images, brain).values():
        assert not image[~brain].any()
        assert (image[brain] > 0).all()


def test_material_must_hold_both_kinds_of_files(tmp_path: Path):
    (tmp_path / "labels").mkdir()

    with pytest.raises(OptionError, match="labels"):
        find_material(tmp_path)
