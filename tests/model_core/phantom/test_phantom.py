"""What a phantom promises: truth known to the voxel, one head per seed, geometry of BraTS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model_core.errors import OptionError
from model_core.imaging.nifti import read_label_map, read_nifti
from model_core.imaging.study import find_studies, load_study
from model_core.phantom import FULL_SHAPE, Phantom, make_phantom, write_phantom
from model_core.types import CONTRASTS, Contrast, Label, Shape3

TINY: Shape3 = (48, 48, 31)


@pytest.fixture(scope="module")
def tiny() -> Phantom:
    return make_phantom(3, shape=TINY)


def zscore(phantom: Phantom, contrast: Contrast) -> npt.NDArray[np.float64]:
    image = phantom.images[contrast].array.astype(np.float64)
    brain = image[image != 0]
    return (image - brain.mean()) / brain.std()


def test_one_seed_is_one_phantom(tiny: Phantom) -> None:
    again = make_phantom(3, shape=TINY)

    assert np.array_equal(tiny.labels.array, again.labels.array)
    for contrast in CONTRASTS:
        assert np.array_equal(tiny.images[contrast].array, again.images[contrast].array)


def test_another_seed_is_another_head(tiny: Phantom) -> None:
    other = make_phantom(4, shape=TINY)

    assert not np.array_equal(tiny.labels.array, other.labels.array)
    brain, others = (p.images["t1"].array != 0 for p in (tiny, other))
    assert 0.005 < (brain ^ others).sum() / brain.sum() < 0.3


def test_the_global_random_state_is_left_alone() -> None:
    np.random.seed(5)  # the legacy state is what must not be touched
    expected = np.random.random()
    np.random.seed(5)

    make_phantom(0, shape=(24, 24, 16))

    assert np.random.random() == expected


def test_truth_is_counted_from_the_labels(tiny: Phantom) -> None:
    counts = {label.name: int((tiny.labels.array == label).sum()) for label in Label}

    assert min(counts.values()) > 0
    for name in ("NCR", "ED", "ET"):
        assert tiny.truth_ml[name] == pytest.approx(counts[name] / 1000.0)
    assert tiny.truth_ml["TC"] == pytest.approx(tiny.truth_ml["NCR"] + tiny.truth_ml["ET"])
    assert tiny.truth_ml["WT"] == pytest.approx(tiny.truth_ml["TC"] + tiny.truth_ml["ED"])


def test_contrasts_share_one_zero_background_and_hold_the_lesion(tiny: Phantom) -> None:
    brain = tiny.images["t1"].array > 0

    assert 0.1 < brain.mean() < 0.25  # as in BraTS volumes, 0.13 to 0.19
    assert brain[tiny.labels.array > 0].all()
    for volume in tiny.images.values():
        assert volume.array.dtype == np.int16
        assert np.array_equal(volume.array > 0, brain)
        assert volume.grid.matches(tiny.labels.grid)


def test_geometry_is_that_of_brats_headers(tiny: Phantom) -> None:
    expected = [[-1, 0, 0, 0], [0, -1, 0, TINY[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1]]

    assert tiny.labels.affine.tolist() == expected
    assert tiny.labels.axcodes == "LPS"


def test_the_cerebellum_lies_behind_and_below(tiny: Phantom) -> None:
    """The lowest fifth of the brain is hindbrain, so it lies posterior of the rest."""
    index = np.argwhere(tiny.images["t1"].array > 0)
    world = index @ tiny.labels.affine[:3, :3].T + tiny.labels.affine[:3, 3]
    low = world[:, 2] < np.quantile(world[:, 2], 0.04)

    assert world[low, 1].mean() < world[:, 1].mean() - 3.0


def test_a_mirrored_lesion_misses_the_lesion(tiny: Phantom) -> None:
    tumour = tiny.labels.array > 0

    assert not (tumour & tumour[::-1]).any()
    brain = tiny.images["t1"].array > 0
    assert (brain ^ brain[::-1]).sum() > 0.02 * brain.sum()


def test_a_smaller_shape_is_the_same_head() -> None:
    small, large = make_phantom(2, shape=TINY), make_phantom(2, shape=(96, 96, 62))
    a, b = small.labels.array > 0, large.labels.array[::2, ::2, ::2] > 0

    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.6


@pytest.mark.parametrize("seed", [1, 5])
def test_the_lesion_looks_as_gliomas_do(seed: int) -> None:
    """Each part stands out in the contrast by which readers know it."""
    phantom = make_phantom(seed, shape=(96, 96, 62))
    labels = phantom.labels.array
    median = {
        (contrast, label): float(np.median(zscore(phantom, contrast)[labels == label]))
        for contrast in CONTRASTS
        for label in Label
        if label
    }

    assert median["flair", Label.ED] > 0.8
    assert median["t2", Label.ED] > 0.2
    assert median["t1ce", Label.ET] > 1.2
    assert median["t1ce", Label.ET] > median["t1ce", Label.NCR] + 1.0
    assert median["t1", Label.NCR] < median["t1", Label.ED]


@pytest.mark.parametrize(
    ("seed", "shape"), [(-1, TINY), (2**32, TINY), (0, (8, 48, 48)), (0, (48, 48))]
)
def test_impossible_wishes_are_refused(seed: int, shape: Shape3) -> None:
    with pytest.raises(OptionError, match=r"seed|shape"):
        make_phantom(seed, shape=shape)


def test_the_written_study_is_found_and_read_back(tmp_path: Path) -> None:
    phantom, paths = write_phantom(tmp_path, seed=12, shape=TINY)
    (files,) = find_studies(tmp_path)
    study = load_study({contrast: files.paths[contrast] for contrast in CONTRASTS})
    labels, _ = read_label_map(paths["seg"], argument="seg")

    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"Phantom_0012_{part}.nii.gz" for part in ("flair", "seg", "t1", "t1ce", "t2")
    ]
    assert files.truth == paths["seg"]
    assert np.array_equal(labels, phantom.labels.array)
    assert set(np.unique(read_nifti(paths["seg"], argument="seg").array)) == {0, 1, 2, 4}
    for contrast in CONTRASTS:
        assert np.array_equal(study.volumes[contrast].array, phantom.images[contrast].array)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_full_size_phantoms_are_as_large_as_real_cases(seed: int) -> None:
    """Ranges span the enhancing cases this was modelled on, with some room."""
    phantom = make_phantom(seed)

    assert phantom.labels.shape == FULL_SHAPE
    assert 1.1e6 < (phantom.images["t1"].array > 0).sum() < 1.8e6
    assert 15.0 < phantom.truth_ml["TC"] < 110.0
    assert 15.0 < phantom.truth_ml["ED"] < 130.0
    assert 1.0 < phantom.truth_ml["NCR"] < 45.0
