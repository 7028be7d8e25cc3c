"""The estimate of the peak: what it counts, and that it holds for a real network."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from model_core.errors import MemoryLimitError, OptionError
from model_core.inference.memory import (
    BASE_BYTES,
    FEATURE_BYTES,
    MIB,
    NetworkSize,
    StudySize,
    limit_bytes,
    peak_bytes,
    too_large,
)
from model_core.inference.windows import WindowPlan
from model_core.precision import fast_bfloat16

NETWORK = NetworkSize(
    family="segmamba", width=16, parameters=7_614_067, channels=4, outputs=3, half=False
)
BRAIN = (140, 170, 135)
STUDY = StudySize(native=(240, 240, 155), box=BRAIN, image=BRAIN)
PLAN = WindowPlan(window=(128, 128, 128))


def test_the_network_takes_its_features_its_input_and_its_scores():
    voxels = 128**3
    expected = voxels * (FEATURE_BYTES["segmamba"][0] * 16 + (4 + 3) * 4)
    assert NETWORK.window_bytes(PLAN) == expected
    assert NETWORK.window_bytes(replace(PLAN, batch=3)) == 3 * expected


@pytest.mark.parametrize("family", sorted(FEATURE_BYTES))
def test_half_precision_changes_the_features_only(family):
    whole = replace(NETWORK, family=family)
    saved = whole.window_bytes(PLAN) - replace(whole, half=True).window_bytes(PLAN)
    single, half = FEATURE_BYTES[family]
    assert saved == 128**3 * 16 * (single - half)


def test_every_voxel_of_the_study_is_counted():
    small = WindowPlan(window=(16, 16, 16))
    box, native = 140 * 170 * 135, 240 * 240 * 155
    counted = (
        BASE_BYTES
        + NETWORK.weights_bytes()
        + NETWORK.window_bytes(small)
        + native * (4 * 4 + 1)  # four contrasts, one label map
        + box * (4 * 4 + 1)  # the network's input, where the brain is
        + box  # labels
        + 3 * 16 * 170 * 135 * 4  # sums of the rows that windows still touch
    )
    assert peak_bytes(NETWORK, STUDY, small) == counted


def test_another_spacing_keeps_all_scores():
    other = replace(STUDY, image=(70, 170, 135))
    here = replace(STUDY, box=(70, 170, 135), image=(70, 170, 135))
    plan = WindowPlan(window=(16, 16, 16))
    more = peak_bytes(NETWORK, other, plan) - peak_bytes(NETWORK, here, plan)
    assert more == 170 * 135 * (4 * 70 * 4 - 3 * 16 * 4 - 70)


def test_an_image_smaller_than_the_window_is_padded_in_memory():
    wide = WindowPlan(window=(16, 16, 160))
    narrow = WindowPlan(window=(16, 16, 135))
    difference = peak_bytes(NETWORK, STUDY, wide) - peak_bytes(NETWORK, STUDY, narrow)
    network = NETWORK.window_bytes(wide) - NETWORK.window_bytes(narrow)
    padded = 140 * 170 * 160 * 4 * 4
    assert difference - network == padded + 3 * 16 * 170 * 25 * 4


def test_an_unknown_family_counts_as_the_largest():
    other = replace(NETWORK, family="another")
    largest = max(replace(NETWORK, family=name).window_bytes(PLAN) for name in FEATURE_BYTES)
    assert other.window_bytes(PLAN) == largest


def test_the_limit_is_the_callers_or_what_is_granted():
    assert limit_bytes(None, 5 * MIB) == 5 * MIB
    assert limit_bytes(3, 5 * MIB) == 3 * MIB


@pytest.mark.parametrize("limit", [0, -1, True])
def test_a_limit_that_is_no_number_of_mebibytes_is_refused(limit):
    with pytest.raises(OptionError, match="Leave it out") as error:
        limit_bytes(limit, 1)
    assert error.value.argument == "memory_limit_mb"


@pytest.mark.parametrize(
    ("half", "text"),
    [
        (2 * MIB, r"run in bfloat16 \(about 2 MiB, which fits\)"),
        (9 * MIB, r"run in bfloat16 \(about 9 MiB, which is still too much\)"),
    ],
)
def test_the_refusal_says_what_is_needed_what_is_allowed_and_the_way_out(half, text):
    error = too_large(10 * MIB + 1, 4 * MIB, half)
    assert "at least 11 MiB" in str(error)
    assert "a limit of 4 MiB" in str(error)
    with pytest.raises(MemoryLimitError, match=text):
        raise error


def test_half_precision_is_no_way_out_of_itself():
    assert "bfloat16" not in str(too_large(10 * MIB, 4 * MIB, None))


PROGRAM = """
import json, sys, torch
from model_core.allocator import keep_freed_memory
from model_core.networks import build_network
from model_core.precision import at_precision

keep_freed_memory()
torch.set_num_threads(2)
side, precision = int(sys.argv[1]), sys.argv[2]
network = build_network("segmamba", features=[16, 32, 64, 128], hidden=256, out_channels=3).eval()
with torch.inference_mode(), at_precision("cpu", precision):
    network(torch.randn(1, 4, side, side, side))
parameters = sum(p.numel() for p in network.parameters())
# getrusage would tell the largest of this process and of the one that started it
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) * 1024
print(json.dumps({"parameters": parameters, "peak": peak}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_real_network_keeps_below_the_estimate_and_not_far(precision):
    if precision == "bfloat16" and fast_bfloat16() is None:
        pytest.skip("bfloat16 is emulated here: minutes for one window")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, "96", precision], capture_output=True, text=True, check=True
    )
    told = json.loads(run.stdout)
    network = replace(NETWORK, parameters=told["parameters"], half=precision == "bfloat16")
    window = WindowPlan(window=(96, 96, 96))
    estimate = BASE_BYTES + network.weights_bytes() + network.window_bytes(window)
    assert 0.4 * estimate < told["peak"] < 1.05 * estimate
