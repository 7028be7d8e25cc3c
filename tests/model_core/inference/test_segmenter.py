"""The segmenter against hand-computed label maps, with pointwise stand-ins as networks."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model_core.checkpoints import Bundle, ModelCard
from model_core.errors import (
    BackendError,
    Cancelled,
    MemoryLimitError,
    NumericalError,
    OptionError,
)
from model_core.imaging.study import make_study
from model_core.imaging.volume import Volume
from model_core.inference.segmenter import Segmenter, SegmentOptions
from model_core.ops import available_backends, resolve_backend
from model_core.types import CONTRASTS

SHAPE = (22, 18, 14)
AFFINE = np.array([[-1.0, 0, 0, 5], [0, -1.5, 0, 9], [0, 0, 2, -3], [0, 0, 0, 1]])


def make_card(**changes):
    fields = {
        "format_version": 1,
        "name": "stand-in",
        "version": "7",
        "family": "segmamba",
        "network": {"in_channels": 4, "out_channels": 4},
        "channels": ["t1", "t1ce", "t2", "flair"],
        "heads": "labels",
        "outputs": ["background", "NCR", "ED", "ET"],
        "label_scheme": "brats2023",
        "orientation": "SPL",
        "spacing_mm": [2.0, 1.5, 1.0],
        "normalisation": "zscore-nonzero",
        "window": [8, 8, 8],
        "overlap": 0.5,
        "mirror_axes": [0, 1, 2],
        "tta": "none",
        "postprocess": [],
        "training": {"data": "none", "code_version": "none", "recipe": "none"},
        "metrics": {},
        "licence": "MIT",
        "intended_use": "tests",
        "limitations": "not a trained network",
        "citation": "none",
        "weights": {"file": "weights.safetensors", "sha256": "ab" * 32, "parameters": 1},
    }
    return ModelCard.model_validate_json(json.dumps(fields | changes))


class Brightest(nn.Module):
    """Each label's score is one contrast: the label map is the brightest contrast, voxel-wise."""

    def forward(self, batch):
        return batch.clone()


class Regions(nn.Module):
    """Three region logits, read from three contrasts."""

    def forward(self, batch):
        return batch[:, 1:]


class Sides(nn.Module):
    """Sees direction: the scores of a voxel are its neighbour's along the first axis."""

    def forward(self, batch):
        return torch.roll(batch, 1, dims=2)


def make_segmenter(module=None, *, backend="torch", precision=None, limit=None, **changes):
    bundle = Bundle(network=module or Brightest(), card=make_card(**changes), path=Path())
    return Segmenter(bundle, backend=backend, precision=precision, memory_limit_mb=limit)


def make_head(seed=0):
    """Arrays of four contrasts with a margin of zeros around the brain."""
    rng = np.random.default_rng(seed)
    arrays = rng.integers(1, 1000, size=(4, *SHAPE)).astype(np.float32)
    margin = np.zeros(SHAPE, dtype=bool)
    margin[2:-3, 3:-1, 1:-2] = True
    return arrays * margin


@pytest.fixture
def arrays():
    return make_head()


@pytest.fixture
def study(arrays):
    volumes = {c: Volume(a, AFFINE) for c, a in zip(CONTRASTS, arrays, strict=True)}
    return make_study(volumes)


def zscored(arrays):
    """By the definition: mean and standard deviation over voxels that are not 0."""
    out = np.zeros(arrays.shape)
    for target, array in zip(out, arrays.astype(np.float64), strict=True):
        inside = array != 0
        target[inside] = (array[inside] - array[inside].mean()) / array[inside].std()
    return out


def brightest(arrays):
    """The label map of `Brightest`: on a tie (outside the brain) background."""
    return zscored(arrays).argmax(axis=0).astype(np.uint8)


def test_labels_are_the_hand_computed_ones_on_the_native_grid(study, arrays):
    result = make_segmenter().segment(study)
    expected = brightest(arrays)
    assert result.labels.dtype == np.uint8
    assert np.array_equal(result.labels, expected)
    assert result.native is study.native
    voxel_ml = 1.0 * 1.5 * 2.0 / 1000
    counts = {n: int((expected == v).sum()) for n, v in (("NCR", 1), ("ED", 2), ("ET", 3))}
    assert result.volumes_ml["ED"] == pytest.approx(counts["ED"] * voxel_ml)
    assert result.volumes_ml["WT"] == pytest.approx(sum(counts.values()) * voxel_ml)
    assert result.volumes_ml["TC"] == pytest.approx((counts["NCR"] + counts["ET"]) * voxel_ml)


def test_channels_follow_the_card(study, arrays):
    order = ["flair", "t2", "t1", "t1ce"]
    result = make_segmenter(channels=order).segment(study)
    permuted = np.stack([arrays[CONTRASTS.index(c)] for c in order])
    assert np.array_equal(result.labels, brightest(permuted))


def test_region_heads_nest(study, arrays):
    result = make_segmenter(
        Regions(),
        heads="regions",
        outputs=["TC", "WT", "ET"],
        network={"in_channels": 4, "out_channels": 3},
    ).segment(study)
    scores = zscored(arrays)
    wt = scores[2] > 0
    tc = wt & (scores[1] > 0)
    et = tc & (scores[3] > 0)
    expected = np.where(et, 3, np.where(tc, 1, np.where(wt, 2, 0)))
    # Where a z-score is within rounding of 0 either answer is right.
    sure = np.abs(scores[1:]).min(axis=0) > 1e-4
    sure |= (arrays == 0).all(axis=0)
    assert np.array_equal(result.labels[sure], expected[sure])


def test_a_study_at_another_spacing_comes_back_on_its_own_grid(study):
    same = make_segmenter().segment(study)
    finer = make_segmenter(spacing_mm=[1.0, 1.0, 1.0]).segment(study)
    assert finer.labels.shape == SHAPE
    assert finer.volumes_ml["WT"] > 0
    assert not np.array_equal(finer.labels, same.labels)
    outside = (np.stack([v.array for v in study.volumes.values()]) == 0).all(axis=0)
    assert not finer.labels[0:2].any()
    assert outside[0:2].all()


@pytest.mark.parametrize(("mode", "passes"), [("none", 1), ("fast", 4), ("full", 8)])
def test_mirroring_leaves_a_pointwise_network_as_it_is(study, arrays, mode, passes):
    result = make_segmenter().segment(study, SegmentOptions(tta=mode))
    assert np.array_equal(result.labels, brightest(arrays))
    assert result.tta == {"mode": mode, "passes": passes, "averaged": "logits"}


def test_mirroring_changes_a_network_that_sees_direction(study):
    segmenter = make_segmenter(Sides())
    none, full = (segmenter.segment(study, SegmentOptions(tta=m)).labels for m in ("none", "full"))
    assert not np.array_equal(none, full)


def test_the_card_decides_what_the_caller_leaves_open(study):
    segmenter = make_segmenter(tta="fast", label_scheme="brats2021", mirror_axes=[0])
    result = segmenter.segment(study)
    assert result.tta["mode"] == "fast"
    assert result.tta["passes"] == 2
    assert result.label_scheme == "brats2021"
    other = segmenter.segment(study, SegmentOptions(tta="none", label_scheme="brats2023"))
    assert other.tta["mode"] == "none"
    assert other.label_scheme == "brats2023"
    assert np.array_equal(other.labels, result.labels)


def test_postprocessing_runs_unless_switched_off_and_is_reported(study):
    steps = [{"name": "relabel_small_et", "params": {"min_mm3": 1e9}}]
    segmenter = make_segmenter(postprocess=steps)
    on, off = segmenter.segment(study), segmenter.segment(study, SegmentOptions(postprocess=False))
    assert (off.labels == 3).any()
    assert off.postprocess_report == ()
    assert np.array_equal(on.labels, np.where(off.labels == 3, 1, off.labels))
    assert on.volumes_ml["ET"] == 0
    (step,) = on.postprocess_report
    assert step.name == "relabel_small_et"
    assert step.voxels_changed == (off.labels == 3).sum()


def test_a_bad_number_is_an_error_and_never_a_label_map(study):
    class Poisoned(nn.Module):
        def forward(self, batch):
            return batch * float("nan")

    segmenter = make_segmenter(Poisoned())
    with pytest.raises(NumericalError, match="weights are damaged"):
        segmenter.segment(study)
    with pytest.raises(NumericalError):
        segmenter.warm_up()


def test_cancelling_stops_before_the_next_pass_and_frees_the_segmenter(study):
    seen = []

    class Counting(nn.Module):
        def forward(self, batch):
            seen.append(batch.shape)
            return batch

    segmenter = make_segmenter(Counting())
    with pytest.raises(Cancelled):
        segmenter.segment(study, SegmentOptions(tta="full"), cancelled=lambda: len(seen) == 3)
    assert len(seen) == 3
    assert segmenter.segment(study).labels.any()


def test_progress_names_every_stage_in_order_and_ends_each_at_its_total(study):
    told = []
    result = make_segmenter().segment(study, progress=lambda *step: told.append(step))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["prepare", "infer", "restore", "postprocess"] == list(result.stage_seconds)
    for stage in stages:
        done = [(d, t) for s, d, t in told if s == stage]
        assert done == [(n, done[-1][1]) for n in range(done[-1][1] + 1)]
    assert len(result.window_seconds) == max(t for s, _, t in told if s == "infer")


def test_concurrent_calls_take_turns(study):
    inside, most = [], []
    lock = threading.Lock()

    class Watching(nn.Module):
        def forward(self, batch):
            with lock:
                inside.append(1)
                most.append(len(inside))
            out = batch.clone()
            with lock:
                inside.pop()
            return out

    segmenter = make_segmenter(Watching(), window=[16, 16, 16])
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(segmenter.segment(study))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 3
    assert max(most) == 1
    assert all(np.array_equal(r.labels, results[0].labels) for r in results)


def test_a_call_that_waits_its_turn_can_be_cancelled(study):
    entered, leave = threading.Event(), threading.Event()

    class Blocking(nn.Module):
        def forward(self, batch):
            entered.set()
            assert leave.wait(60)
            return batch

    segmenter = make_segmenter(Blocking(), window=[32, 32, 32])
    first = threading.Thread(target=segmenter.segment, args=(study,))
    first.start()
    try:
        assert entered.wait(60)
        with pytest.raises(Cancelled):
            segmenter.segment(study, cancelled=lambda: True)
    finally:
        leave.set()
        first.join(60)


def test_nothing_global_is_set(study):
    seen = {}

    class Looking(nn.Module):
        def forward(self, batch):
            seen.update(backend=resolve_backend("cpu"), grad=torch.is_grad_enabled())
            return batch

    def state():
        return (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_num_threads(),
            torch.get_default_dtype(),
            resolve_backend("cpu", None),
        )

    before = state()
    result = make_segmenter(Looking(), backend="reference").segment(study)
    assert state() == before
    assert seen == {"backend": "reference", "grad": False}
    assert result.backend == "reference"
    assert result.device == "cpu"


def test_the_window_is_raised_to_what_the_network_takes(study, arrays):
    class Picky(nn.Module):
        size_multiple = 16

        def forward(self, batch):
            assert all(side % 16 == 0 for side in batch.shape[2:]), batch.shape
            return batch

    segmenter = make_segmenter(Picky(), window=[8, 16, 17])
    assert np.array_equal(segmenter.segment(study).labels, brightest(arrays))
    assert segmenter.warm_up() > 0


def test_warm_up_runs_the_real_network_on_its_channels():
    seen = []

    class Counting(nn.Module):
        def forward(self, batch):
            seen.append(batch.shape[1])
            return batch

    assert make_segmenter(Counting()).warm_up() > 0
    assert seen == [4]


def test_an_empty_map_is_warned_of(study):
    class Nothing(nn.Module):
        def forward(self, batch):
            out = torch.zeros_like(batch)
            out[:, 0] = 1
            return out

    result = make_segmenter(Nothing()).segment(study)
    assert not result.labels.any()
    assert any("No tumour was found" in text for text in result.warnings)
    assert set(study.warnings) <= set(result.warnings)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "tpu9000", "meta"])
def test_a_device_that_is_not_there_is_refused(device):
    bundle = Bundle(network=Brightest(), card=make_card(), path=Path())
    with pytest.raises(OptionError, match="Use cpu") as error:
        Segmenter(bundle, device=device)
    assert error.value.argument == "device"


def test_a_backend_that_cannot_run_is_refused_when_the_segmenter_is_made():
    with pytest.raises(BackendError):
        make_segmenter(backend="mamba-ssm")
    with pytest.raises(OptionError):
        make_segmenter(backend="fastest")


def test_the_report_is_plain_json_and_says_how_the_result_came_about(study):
    steps = [{"name": "fill_holes", "params": {}}]
    result = make_segmenter(postprocess=steps).segment(study, SegmentOptions(tta="fast"))
    report = json.loads(json.dumps(result.report(), allow_nan=False))
    assert report["schema_version"] == 1
    assert (report["model"], report["model_version"]) == ("stand-in", "7")
    assert report["weights_sha256"] == "ab" * 32
    assert (report["backend"], report["device"]) == ("torch", "cpu")
    assert report["precision"] == result.precision
    assert report["window"] == {"choice": "card", "shape": [8, 8, 8]}
    assert report["tta"] == {"mode": "fast", "passes": 4, "averaged": "logits"}
    assert report["volumes_ml"] == pytest.approx(dict(result.volumes_ml))
    assert set(report["stage_seconds"]) == {"prepare", "infer", "restore", "postprocess"}
    windows = report["windows"]
    assert windows["count"] == len(result.window_seconds)
    assert windows["min_seconds"] <= windows["mean_seconds"] <= windows["max_seconds"]
    assert [step["name"] for step in report["postprocess"]] == ["fill_holes"]
    assert report["software"]["torch"] == torch.__version__


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_passes_run_in_the_precision_and_nothing_else_does(study, precision):
    seen = []

    class Looking(nn.Module):
        def forward(self, batch):
            seen.append((torch.is_autocast_enabled("cpu"), batch.dtype))
            return batch

    segmenter = make_segmenter(Looking(), precision=precision)
    segmenter.warm_up()
    result = segmenter.segment(study)
    assert set(seen) == {(precision == "bfloat16", torch.float32)}
    assert segmenter.precision == result.precision == result.report()["precision"] == precision
    assert not torch.is_autocast_enabled("cpu")


def test_the_precision_is_the_environments_unless_named(monkeypatch):
    monkeypatch.setenv("SEGMAMBA_PRECISION", "float32")
    assert make_segmenter().precision == "float32"
    assert make_segmenter(precision="bfloat16").precision == "bfloat16"
    with pytest.raises(OptionError, match="float32, bfloat16"):
        make_segmenter(precision="float16")


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_logits_in_half_precision_are_blended_as_exactly_as_any(study, arrays, dtype, backend):
    """What the network rounds stays rounded; windows and passes add nothing to it."""
    if available_backends()[backend] != "available":
        pytest.skip(f"backend {backend}: {available_backends()[backend]}")

    class Rounding(nn.Module):
        def forward(self, batch):
            return batch.to(dtype)

    labels = make_segmenter(Rounding(), backend=backend).segment(study).labels
    rounded = torch.from_numpy(zscored(arrays)).float().to(dtype).float()
    best = rounded.sort(dim=0, descending=True).values
    sure = (best[0] - best[1] > 1e-4).numpy()  # else the mean of equal numbers may break the tie
    assert sure.mean() > 0.4
    assert np.array_equal(labels[sure], rounded.argmax(dim=0).numpy()[sure])


def test_one_window_over_the_brain_when_asked_for(study, arrays):
    shapes = []

    class Picky(nn.Module):
        size_multiple = 4

        def forward(self, batch):
            shapes.append(tuple(batch.shape[2:]))
            return batch

    segmenter = make_segmenter(Picky())
    result = segmenter.segment(study, SegmentOptions(window="whole"))
    # Brain of 17 x 14 x 11 voxels, turned to S, P, L, each side up to the next multiple of 4.
    assert shapes == [(12, 16, 20)]
    assert result.report()["window"] == {"choice": "whole", "shape": [12, 16, 20]}
    assert not result.warnings
    assert np.array_equal(result.labels, brightest(arrays))
    assert segmenter.segment(study).window == (8, 8, 8)


def test_without_the_memory_for_it_the_cards_window_is_taken_and_said(study, monkeypatch):
    monkeypatch.setenv("SEGMAMBA_PRECISION", "bfloat16")  # the limit below is meant for it
    segmenter = make_segmenter(window=[8, 8, 8], network={"in_channels": 4, "out_channels": 4})
    needed = segmenter.segment(study, SegmentOptions(window="whole"))
    assert needed.window_choice == "whole"
    least = 421  # MiB: what Python and PyTorch take, and a little
    tight = make_segmenter(limit=least, network={"in_channels": 4, "out_channels": 4})
    result = tight.segment(study, SegmentOptions(window="whole"))
    assert (result.window_choice, result.window) == ("card", (8, 8, 8))
    assert any(f"{least} MiB are allowed" in text for text in result.warnings)


def test_a_limit_below_the_cards_window_is_refused_before_a_pass(study):
    seen = []

    class Counting(nn.Module):
        def forward(self, batch):
            seen.append(1)
            return batch

    segmenter = make_segmenter(Counting(), limit=100)
    with pytest.raises(
        MemoryLimitError, match=r"at least \d+ MiB .* got a limit of 100 MiB"
    ) as error:
        segmenter.segment(study)
    assert error.value.argument == "memory_limit_mb"
    assert not seen
    with pytest.raises(OptionError, match="positive number of MiB"):
        make_segmenter(limit=0)
