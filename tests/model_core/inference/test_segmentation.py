"""Options, and what is told about a finished segmentation."""

import json

import numpy as np
import pytest

from model_core.errors import OptionError
from model_core.imaging.nifti import read_label_map, read_nifti
from model_core.imaging.volume import Volume
from model_core.inference.segmentation import (
    Segmentation,
    SegmentOptions,
    label_table,
    software_versions,
)
from model_core.postprocess import Step, apply_steps

AFFINE = np.array([[-1.0, 0, 0, 5], [0, -1.5, 0, 9], [0, 0, 2, -3], [0, 0, 0, 1]])


@pytest.fixture
def labels():
    return np.random.default_rng(3).integers(0, 4, (11, 9, 8), dtype=np.uint8)


def make_result(labels, scheme="brats2023"):
    corrected, steps = apply_steps(labels, (1.0, 1.5, 2.0), [Step(name="fill_holes")])
    return Segmentation(
        labels=corrected,
        native=Volume(np.zeros(labels.shape, np.float32), AFFINE),
        label_scheme=scheme,
        volumes_ml={"NCR": 0.5, "ED": 1.0, "ET": 0.25, "WT": 1.75, "TC": 0.75},
        stage_seconds={"prepare": 0.5, "infer": 4.0, "restore": 0.25, "postprocess": 0.125},
        window_seconds=(1.0, 1.5, 0.5),
        model="stand-in",
        model_version="7",
        weights_sha256="ab" * 32,
        backend="torch",
        device="cpu",
        precision="bfloat16",
        window_choice="whole",
        window=(32, 48, 16),
        tta={"mode": "fast", "passes": 4, "averaged": "logits"},
        warnings=("t1: something odd",),
        postprocess_report=steps,
    )


@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        ("tta", "most", "none, fast, full"),
        ("label_scheme", "brats2024", "brats2021, brats2023"),
        ("postprocess", 1, "True, False"),
        ("postprocess", "no", "True, False"),
        ("window", "largest", "card, whole"),
    ],
)
def test_options_outside_their_values_are_refused_with_those_allowed(argument, value, allowed):
    with pytest.raises(OptionError, match=allowed) as error:
        SegmentOptions(**{argument: value})
    assert error.value.argument == argument


@pytest.mark.parametrize("postprocess", [True, False, None])
def test_options_within_their_values_are_kept(postprocess):
    options = SegmentOptions(tta="full", label_scheme="brats2021", postprocess=postprocess)
    assert (options.tta, options.label_scheme) == ("full", "brats2021")
    assert options.postprocess is postprocess


@pytest.mark.parametrize(("scheme", "et"), [("brats2021", 4), ("brats2023", 3)])
def test_the_encoded_map_reads_back_the_same_in_either_scheme(labels, scheme, et):
    result = make_result(labels, scheme)
    data = result.encode()
    back, volume = read_label_map(data, argument="labels")
    assert np.array_equal(back, result.labels)
    assert np.array_equal(volume.affine, AFFINE)
    assert set(np.unique(read_nifti(data, argument="labels").array)) == {0, 1, 2, et}


def test_equal_results_are_encoded_to_equal_bytes(labels):
    assert make_result(labels).encode() == make_result(labels.copy()).encode()


def test_the_report_is_plain_json_with_every_figure_of_the_result(labels):
    result = make_result(labels)
    report = json.loads(json.dumps(result.report(), allow_nan=False))
    steps = report.pop("postprocess")
    assert [step["name"] for step in steps] == ["fill_holes"]
    assert steps[0]["voxels_changed"] == result.postprocess_report[0].voxels_changed
    assert report == {
        "schema_version": 1,
        "model": "stand-in",
        "model_version": "7",
        "weights_sha256": "ab" * 32,
        "backend": "torch",
        "device": "cpu",
        "precision": "bfloat16",
        "window": {"choice": "whole", "shape": [32, 48, 16]},
        "tta": {"mode": "fast", "passes": 4, "averaged": "logits"},
        "agreement": {},
        "label_scheme": "brats2023",
        "labels": label_table("brats2023"),
        "volumes_ml": {"NCR": 0.5, "ED": 1.0, "ET": 0.25, "WT": 1.75, "TC": 0.75},
        "stage_seconds": {"prepare": 0.5, "infer": 4.0, "restore": 0.25, "postprocess": 0.125},
        "windows": {"count": 3, "mean_seconds": 1.0, "min_seconds": 0.5, "max_seconds": 1.5},
        "memory_steps": [],
        "warnings": ["t1: something odd"],
        "software": software_versions(),
    }


@pytest.mark.parametrize(("scheme", "et"), [("brats2021", 4), ("brats2023", 3)])
def test_the_label_table_names_every_label_as_the_scheme_writes_it(scheme, et):
    table = label_table(scheme)
    assert [row["value"] for row in table] == [0, 1, 2, et]
    assert [row["name"] for row in table] == ["background", "NCR", "ED", "ET"]
    assert table[3]["meaning"] == "enhancing tumour"


def test_versions_are_those_of_the_running_packages():
    assert software_versions()["numpy"] == np.__version__
