"""A whole study through a real, tiny, untrained network: geometry in, geometry out.

Random weights say nothing about tumours, yet their label map depends on every voxel and axis, so
any slip in orientation, spacing, cropping or numbering shows as another map.
"""

import json
from itertools import permutations, product

import numpy as np
import pytest
import torch

from model_core.checkpoints import Bundle, ModelCard
from model_core.imaging.nifti import read_nifti, write_nifti
from model_core.imaging.study import find_studies, load_study, make_study
from model_core.imaging.volume import Volume
from model_core.inference.segmenter import Segmenter, SegmentOptions
from model_core.networks import build_network
from model_core.types import CONTRASTS

CONFIG = {
    "in_channels": 4,
    "out_channels": 4,
    "depths": [1, 1, 1, 1],
    "features": [8, 8, 12, 16],
    "hidden": 16,
}
SHAPE = (36, 28, 24)
LPS = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 30], [0, 0, 1, 0], [0, 0, 0, 1]])
ORIENTATIONS = [
    "".join(pair[side] for pair, side in zip(order, sides, strict=True))
    for order in permutations(["LR", "PA", "IS"])
    for sides in product((0, 1), repeat=3)
]
"""All 48 orientations that array axes can have."""
SOME = ["RAS", "SPL", "LIP", "AIR", "PSR", "ILA", "ASL"]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(11)
    built = build_network("segmamba", **CONFIG).eval()
    # Make the label map a mixture: the head's random bias alone would decide most voxels.
    with torch.no_grad():
        built.head.weight.mul_(20)
        built.head.bias.zero_()
    return built.requires_grad_(requires_grad=False)


def make_card(**changes):
    fields = {
        "format_version": 1,
        "name": "tiny",
        "version": "1",
        "family": "segmamba",
        "network": CONFIG,
        "channels": ["t1", "t1ce", "t2", "flair"],
        "heads": "labels",
        "outputs": ["background", "NCR", "ED", "ET"],
        "label_scheme": "brats2023",
        "orientation": "SPL",
        "spacing_mm": [1.0, 1.0, 1.0],
        "normalisation": "zscore-nonzero",
        "window": [32, 32, 32],
        "overlap": 0.5,
        "mirror_axes": [0, 1, 2],
        "tta": "none",
        "postprocess": [{"name": "remove_small_components", "params": {"min_mm3": 3}}],
        "training": {"data": "none", "code_version": "none", "recipe": "random weights"},
        "metrics": {},
        "licence": "MIT",
        "intended_use": "tests",
        "limitations": "untrained",
        "citation": "none",
        "weights": {"file": "weights.safetensors", "sha256": "cd" * 32, "parameters": 1},
    }
    return ModelCard.model_validate_json(json.dumps(fields | changes))


@pytest.fixture(scope="module")
def segmenter(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    return Segmenter(Bundle(network=network, card=make_card(), path=folder))


def make_volumes(shape=SHAPE, affine=LPS, dtype=np.int16):
    """A smooth, asymmetric head in a margin of zeros, different in each contrast."""
    rng = np.random.default_rng(5)
    axes = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
    inside = sum((a / r) ** 2 for a, r in zip(axes, (0.9, 0.8, 0.85), strict=True)) < 1
    volumes = {}
    for contrast in CONTRASTS:
        waves = sum(np.sin(rng.uniform(2, 9) * a + rng.uniform(0, 6)) for a in axes)
        image = (300 + 60 * waves + rng.normal(0, 20, shape)) * inside
        volumes[contrast] = Volume(image.clip(0).astype(dtype), affine)
    return volumes


@pytest.fixture(scope="module")
def volumes():
    return make_volumes()


@pytest.fixture(scope="module")
def result(segmenter, volumes):
    return segmenter.segment(make_study(volumes))


def test_the_map_holds_several_labels_inside_the_head_and_none_outside(result, volumes):
    outside = np.all([v.array == 0 for v in volumes.values()], axis=0)
    counts = np.bincount(result.labels.ravel(), minlength=4)
    assert (counts[1:] > 50).all(), counts
    border = np.ones(SHAPE, dtype=bool)
    border[1:-1, 1:-1, 1:-1] = False
    assert outside[border].all()
    assert not result.labels[border].any()


def assert_reoriented(segmenter, volumes, result, axcodes):
    turned = make_study({c: v.reoriented(axcodes) for c, v in volumes.items()})
    again = segmenter.segment(turned)
    assert again.native.axcodes == axcodes
    expected = Volume(result.labels, result.native.affine).reoriented(axcodes)
    assert np.array_equal(again.labels, expected.array)
    assert np.allclose(again.native.affine, expected.affine)


@pytest.mark.parametrize("axcodes", SOME)
def test_another_orientation_gives_the_same_map_reoriented(segmenter, volumes, result, axcodes):
    assert_reoriented(segmenter, volumes, result, axcodes)


@pytest.mark.slow
@pytest.mark.parametrize("axcodes", sorted(set(ORIENTATIONS) - set(SOME)))
def test_every_orientation_gives_the_same_map_reoriented(segmenter, volumes, result, axcodes):
    assert_reoriented(segmenter, volumes, result, axcodes)


def test_contrasts_in_different_orientations_give_the_same_map(segmenter, volumes, result):
    mixed = dict(volumes)
    mixed["t2"], mixed["flair"] = (
        volumes["t2"].reoriented("RAS"),
        volumes["flair"].reoriented("SPL"),
    )
    assert np.array_equal(segmenter.segment(make_study(mixed)).labels, result.labels)


def test_files_in_give_a_file_out_on_the_same_grid(segmenter, volumes, result, tmp_path):
    paths = {}
    for contrast, volume in volumes.items():
        paths[contrast] = tmp_path / f"{contrast}.nii.gz"
        write_nifti(paths[contrast], volume)
    again = segmenter.segment(load_study(paths))
    assert np.array_equal(again.labels, result.labels)
    written = read_nifti(again.encode(), argument="labels")
    source = read_nifti(paths["t1"], argument="t1")
    assert written.shape == source.shape
    assert np.array_equal(written.affine, source.affine)
    assert written.spacing_mm == source.spacing_mm
    assert np.array_equal(written.array, result.labels)


def test_a_larger_field_of_view_does_not_change_the_head(segmenter, volumes, result):
    margin = ((3, 5), (0, 2), (4, 1))
    shift = np.eye(4)
    shift[:3, 3] = [-low for low, _ in margin]
    wide = {c: Volume(np.pad(v.array, margin), LPS @ shift) for c, v in volumes.items()}
    inside = tuple(slice(low, low + n) for (low, _), n in zip(margin, SHAPE, strict=True))
    labels = segmenter.segment(make_study(wide)).labels
    assert np.array_equal(labels[inside], result.labels)
    assert np.count_nonzero(labels) == np.count_nonzero(result.labels)


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([0.8, 1.0, 2.5, 1.0]),
        np.array([[0, 0, -2.2, 40], [0, -0.9, 0, 12], [1.3, 0, 0, -5], [0, 0, 0, 1]]),
    ],
    ids=["axial slices", "another orientation"],
)
def test_an_anisotropic_study_comes_back_on_its_own_grid(segmenter, affine):
    study = make_study(make_volumes((40, 30, 16), affine))
    result = segmenter.segment(study)
    assert result.labels.shape == (40, 30, 16)
    assert result.labels.any()
    written = read_nifti(result.encode(), argument="labels")
    assert np.allclose(written.affine, affine, atol=1e-6)
    turned = make_study({c: v.reoriented("SPL") for c, v in study.volumes.items()})
    again = segmenter.segment(turned)
    expected = Volume(result.labels, affine).reoriented("SPL").array
    assert np.array_equal(again.labels, expected)


def test_the_two_schemes_differ_in_the_number_of_et_alone(segmenter, volumes):
    study = make_study(volumes)
    maps = {}
    for scheme in ("brats2021", "brats2023"):
        result = segmenter.segment(study, SegmentOptions(label_scheme=scheme))
        assert result.report()["label_scheme"] == scheme
        maps[scheme] = read_nifti(result.encode(), argument="labels").array
    assert set(np.unique(maps["brats2021"])) == {0, 1, 2, 4}
    assert np.array_equal(np.where(maps["brats2021"] == 4, 3, maps["brats2021"]), maps["brats2023"])


def test_the_same_study_twice_gives_the_same_bytes(segmenter, volumes, result):
    assert segmenter.segment(make_study(volumes)).encode() == result.encode()


def test_mirroring_is_deterministic_and_changes_the_map(segmenter, volumes, result):
    study = make_study(volumes)
    fast = segmenter.segment(study, SegmentOptions(tta="fast"))
    assert fast.tta == {"mode": "fast", "passes": 4, "averaged": "logits"}
    assert not np.array_equal(fast.labels, result.labels)


def test_integer_and_float_voxels_give_the_same_map(segmenter, volumes, result):
    floats = {c: Volume(v.array.astype(np.float64), v.affine) for c, v in volumes.items()}
    assert np.array_equal(segmenter.segment(make_study(floats)).labels, result.labels)


def test_warm_up_runs_the_real_network(segmenter):
    assert segmenter.warm_up() > 0


@pytest.mark.slow
def test_a_real_case_keeps_its_grid_in_any_orientation(network, real_cases, tmp_path):
    card = make_card(window=[64, 64, 64], overlap=0.25)
    segmenter = Segmenter(Bundle(network=network, card=card, path=tmp_path))
    study = load_study(find_studies(real_cases)[0].paths)
    result = segmenter.segment(study)
    written = read_nifti(result.encode(), argument="labels")
    assert written.shape == study.native.shape
    assert written.spacing_mm == study.native.spacing_mm
    assert np.array_equal(written.affine, study.native.affine)
    turned = make_study({c: v.reoriented("ASL") for c, v in study.volumes.items()})
    expected = Volume(result.labels, study.native.affine).reoriented("ASL")
    assert np.array_equal(segmenter.segment(turned).labels, expected.array)
