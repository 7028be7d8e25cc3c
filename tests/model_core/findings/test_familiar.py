"""Appearance: numbers that mean what they say, ranges from reference studies, flags outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from model_core.findings.appearance import QUANTILES, Kind, appearance, kind_of, subject_of
from model_core.findings.familiar import (
    RANGES_FILE,
    Ranges,
    check_appearance,
    reference_ranges,
)
from model_core.findings.learn import limits_of, ranges_of, text_of
from model_core.imaging.study import Study, find_studies, load_study
from model_core.imaging.volume import Volume
from model_core.types import CONTRASTS
from tests.model_core.findings.studies import BRAIN, SHAPE, images, study

Array = NDArray[np.float32]


def fine_study(arrays: dict[str, Array]) -> Study:
    """The same voxels at 1 mm, where grain is measured."""
    volumes = {name: Volume(arrays[name], np.diag([-1.0, -1, 1, 1])) for name in CONTRASTS}
    return Study(volumes, "t1", volumes["t1"])


def limited(ranges: dict[str, tuple[float, float]], limit: float) -> Ranges:
    return Ranges(limits=dict.fromkeys(get_args(Kind), limit), ranges=ranges)


def test_scale_and_offset_of_an_image_change_nothing() -> None:
    arrays = images()
    plain = appearance(fine_study(arrays))
    arrays["t2"] = np.where(BRAIN, 3.5 * arrays["t2"] + 77, 0).astype(np.float32)
    scaled = appearance(fine_study(arrays))
    assert scaled == pytest.approx(plain, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("axcodes", ["RAS", "SPL", "AIR", "LPI"])
def test_orientation_changes_nothing(axcodes: str) -> None:
    here = study()
    turned = {name: volume.reoriented(axcodes) for name, volume in here.volumes.items()}
    assert appearance(Study(turned, "t1", turned["t1"])) == pytest.approx(appearance(here))


def test_quantiles_are_those_of_the_values_brought_to_mean_0_and_sd_1() -> None:
    here = study()
    values = here.volumes["t1"].array[BRAIN].astype(float)  # 3 mm voxels: every one counts
    values = (values - values.mean()) / values.std()
    found = appearance(here)
    for q in QUANTILES:
        assert found[f"t1.q{q:g}"] == pytest.approx(np.quantile(values, q))


def test_noise_raises_the_grain_and_blur_lowers_it() -> None:
    arrays = images()
    plain = appearance(fine_study(arrays))["t1.grain"]
    rng = np.random.default_rng(0)
    noisy = arrays["t1"] + 40 * rng.normal(size=SHAPE).astype(np.float32)
    blurred = ndimage.gaussian_filter(arrays["t1"], 1.5)
    for changed, more in ((noisy, True), (blurred, False)):
        changed[~BRAIN] = 0
        found = appearance(fine_study({**arrays, "t1": changed}))["t1.grain"]
        assert (found > plain + 0.2) if more else (found < plain - 0.2)


def test_grain_is_not_told_of_voxels_of_another_size() -> None:
    assert "t1.grain" not in appearance(study())
    assert "t1.grain" in appearance(fine_study(images()))


def test_a_surface_through_the_head_is_all_shading() -> None:
    x, y, z = np.indices(SHAPE).astype(np.float32)
    smooth = np.where(BRAIN, 500 + 3 * x - 2 * y + 0.05 * (z - 20) ** 2, 0).astype(np.float32)
    told = appearance(study({**images(), "t1": smooth}))
    assert told["t1.shading"] == pytest.approx(0, abs=1e-6)  # the logarithm of all of it
    assert appearance(study())["t1.shading"] < np.log(0.3)


def test_correlation_is_that_of_the_voxels_of_both() -> None:
    arrays = images()
    arrays["t2"] = np.where(BRAIN, 2000 - arrays["t1"], 0).astype(np.float32)
    found = appearance(study(arrays))
    assert found["t1~t2.correlation"] == pytest.approx(-1)
    expected = np.corrcoef(arrays["t1"][BRAIN], arrays["flair"][BRAIN])[0, 1]
    assert found["t1~flair.correlation"] == pytest.approx(expected)


def test_a_contrast_with_hardly_a_voxel_has_no_numbers_and_harms_none() -> None:
    arrays = images()
    arrays["flair"] = np.zeros(SHAPE, np.float32)
    arrays["flair"][20:23, 20:23, 20:23] = 5
    found = appearance(study(arrays))
    assert not [name for name in found if "flair" in name]
    assert "t1~t2.correlation" in found


def test_strangeness_is_counted_in_widths_of_the_range() -> None:
    ranges = Ranges(limits={}, ranges={"t1.grain": (0.2, 0.4), "t2.grain": (0.1, 0.2)})
    found = ranges.strangeness({"t1.grain": 0.9, "t2.grain": 0.05, "t2.unknown": 9.0})
    assert found == pytest.approx({"t1.grain": 2.5, "t2.grain": 0.5})
    assert ranges.strangeness({"t1.grain": 0.3}) == {"t1.grain": 0.0}


def test_the_worst_of_each_contrast_is_flagged_and_only_beyond_the_limit() -> None:
    here = study()
    told = appearance(here)
    ranges = {name: (value - 0.05, value + 0.05) for name, value in told.items()}
    assert check_appearance(here, limited(ranges, 0.01)) == ()
    ranges["t2.shading"] = (told["t2.shading"] + 0.1, told["t2.shading"] + 0.2)
    ranges["t2.q0.99"] = (told["t2.q0.99"] - 0.4, told["t2.q0.99"] - 0.3)
    ranges["t1~flair.correlation"] = (2.0, 3.0)
    flags = {flag.subject: flag for flag in check_appearance(here, limited(ranges, 0.5))}
    assert set(flags) == {"t2", "t1~flair"}
    assert flags["t2"].value == pytest.approx(3.0)
    assert check_appearance(here, limited(ranges, 40.0)) == ()


@pytest.mark.parametrize(("limit", "severity"), [(1.4, "review"), (1.6, "info")])
def test_twice_the_limit_is_worth_a_look_and_less_a_word(limit: float, severity: str) -> None:
    here = study()
    told = appearance(here)["t2.shading"]
    (flag,) = check_appearance(here, limited({"t2.shading": (told + 0.3, told + 0.4)}, limit))
    assert flag.value == pytest.approx(3.0)
    assert (flag.limit, flag.severity) == (limit, severity)


def test_ranges_hold_every_study_and_the_file_says_so() -> None:
    found = ranges_of([{"a.q": 1.0, "b.q": 5.0}, {"a.q": -1.0, "b.q": 6.0, "c.q": 0.0}])
    assert found == {"a.q": (-1.0, 1.0), "b.q": (5.0, 6.0)}
    stored = json.loads(text_of(Ranges(limits={"grain": 1.5}, ranges=found), cases=2))
    assert stored["ranges"] == {"a.q": [-1.0, 1.0], "b.q": [5.0, 6.0]}
    assert (stored["cases"], stored["limits"]) == (2, {"grain": 1.5})


def test_limits_are_what_all_cases_but_the_strangest_need() -> None:
    # left out, 4 lies (4 - 3) / (3 - 0) outside the others, 0 lies (1 - 0) / (4 - 1) outside
    cases = [
        {"a.q1": value, "a.grain": grain}
        for value, grain in zip((0, 1, 3, 4), (5, 5, 6, 6), strict=True)
    ]
    assert limits_of(cases)["quantile"] == pytest.approx(0.35)
    assert limits_of(cases)["grain"] == pytest.approx(0.05)
    strange = [*cases, {"a.q1": 100.0, "a.grain": 5.5}]
    assert limits_of(strange)["quantile"] < 0.35


def test_a_feature_tells_its_subject_and_its_kind() -> None:
    names = ("t1.q0.01", "t1ce.grain", "t2.shading", "t1~t2.correlation")
    assert [subject_of(name) for name in names] == ["t1", "t1ce", "t2", "t1~t2"]
    assert [kind_of(name) for name in names] == list(get_args(Kind))


def test_the_packaged_ranges_know_every_number_that_is_told() -> None:
    known = reference_ranges()
    told = appearance(fine_study(images()))
    assert set(told) == set(known.ranges)
    assert all(low < high for low, high in known.ranges.values())
    assert json.loads(RANGES_FILE.read_text())["cases"] == 9


@pytest.mark.slow
def test_a_real_case_that_chose_nothing_is_familiar_until_it_is_spoilt(real_cases: Path) -> None:
    (files,) = find_studies(next(real_cases.glob("*_01660")))
    here = load_study(files.paths)
    assert check_appearance(here) == ()
    volumes = dict(here.volumes)
    volumes["t1"], volumes["t2"] = volumes["t2"], volumes["t1"]
    assert check_appearance(Study(volumes, "flair", volumes["flair"]))
