"""The paper model of many workers: its laws, the page that shows it, and the simulated device."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.results import Row
from benchmarks.scale_model import (
    USUAL,
    WAITING,
    WORKING,
    Assumptions,
    Figures,
    Load,
    figures_of,
    load_of,
    newest,
    tables,
)
from benchmarks.scale_out import cycles_of
from benchmarks.scale_worker import WINDOW_SECONDS, WaitingSegmenter
from model_core.checkpoints import load_bundle
from model_core.errors import Cancelled
from model_core.imaging.study import Study, load_study
from model_core.imaging.volume import Volume
from model_core.types import CONTRASTS
from tests.scale.services import NOTICES_A_DEAD_SERVER, NOTICES_DEAD_CALLERS
from tests.service.servers import HEAD_AFFINE, HEAD_SHAPE, head_images, write_tiny_bundle

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "concepts" / "scale.md"
FIGURES = Figures(
    job=50, running=20, idle=10, herd=5, asked=3, lead=0, database_ms=0.2, api_seconds=0.1,
    worker_seconds=2, bytes_in=10e6, bytes_out=0.2e6, worker_connections=8, api_connections=2,
)  # fmt: skip
ASSUMED = Assumptions(device_seconds=16, overhead_seconds=4, busy=0.5, asked=10, keep_hours=24)


def row(group: str, workers: int, **extra: float) -> Row:
    return Row(group=group, way=str(workers), seconds=(), extra={"workers": workers, **extra})


def test_the_page_shows_the_model_by_the_newest_results() -> None:
    assert tables(newest(), Assumptions()) in PAGE.read_text(encoding="utf-8")


def test_the_page_names_every_assumption() -> None:
    page = PAGE.read_text(encoding="utf-8")
    values = [(field.name, getattr(Assumptions(), field.name)) for field in fields(Assumptions)]
    assert not [(name, value) for name, value in values if f"`{name}` | {value:g} |" not in page]


def test_the_guide_asks_for_what_the_faults_are_tested_with() -> None:
    guide = (DOCS / "how-to" / "capacity.md").read_text(encoding="utf-8")
    assert NOTICES_A_DEAD_SERVER in guide
    for name, value in NOTICES_DEAD_CALLERS.items():
        assert f"{name} = {value}\n" in guide


def test_a_fleet_of_ten_is_what_a_pencil_says() -> None:
    load = load_of(10, FIGURES, ASSUMED)
    assert load.studies_a_day == pytest.approx(0.25 * 86_400)  # 10 workers, half busy, 20 s each
    of_jobs = 0.25 * (50 + 5 * 5 + 3 * 10)
    assert load.statements == pytest.approx(of_jobs + 5 * 20 + 5 * 10)
    assert load.database_cores == pytest.approx(load.statements * 0.2e-3)
    assert load.connections == 10 * 8 + 2 * 2
    assert (load.api_cores, load.apis) == (pytest.approx(0.025), 2)
    assert load.megabytes_in == pytest.approx(2 * 0.25 * 10)
    assert load.gigabytes == pytest.approx(0.25 * 86_400 * 0.2e-3 + 2 * 10 * 0.01)
    storage = load.gigabytes * ASSUMED.gigabyte_month / 730
    hourly = 10 * ASSUMED.gpu_hour + 4 * ASSUMED.core_hour + storage
    assert load.price == pytest.approx(hourly / 900)


def test_all_but_the_herd_grows_with_the_workers() -> None:
    assumed = replace(ASSUMED, least_cores=0)
    calm = replace(FIGURES, herd=0)
    one, many = (load_of(count, calm, assumed) for count in (1, 1000))
    proportional = {field.name for field in fields(Load)} - {"apis", "connections", "price"}
    for name in proportional:
        assert getattr(many, name) == pytest.approx(1000 * getattr(one, name)), name
    assert many.price == pytest.approx(one.price)
    herd = [
        load_of(count, FIGURES, assumed).statements - load_of(count, calm, assumed).statements
        for count in (10, 100)
    ]
    assert herd[1] == pytest.approx(100 * herd[0])


def test_figures_are_the_slopes_of_what_was_measured() -> None:
    alone = {"single_seconds": 0.5, "asked": 3.0}
    waiting = [row(WAITING, 0, idle_statements=0, connections=6)]
    for n in (1, 2, 4):
        single = 60 + 5 * (n - 1)
        both = {"idle_statements": 4 + 10 * n, "connections": 6 + 8 * n, "single": single}
        waiting.append(row(WAITING, n, **both, **alone))
    working = [row(WORKING, n, running=4 + 20 * n, database_ms=0.2) for n in (1, 2, 4)]
    usual = row(USUAL, 2, api_seconds=0.1, worker_seconds=2, bytes_in=10e6, bytes_out=0.2e6)
    found = figures_of([*waiting, *working, usual])
    wanted = replace(FIGURES, job=60 - 20 * 0.5, lead=4, api_connections=3)
    for field in fields(Figures):
        assert getattr(found, field.name) == pytest.approx(getattr(wanted, field.name)), field.name


def test_cycles_and_gaps_are_those_of_each_worker() -> None:
    jobs = [("a", 0, 5000), ("b", 100, 5200), ("a", 5100, 10100), ("b", 5250, 10300)]
    assert cycles_of(jobs) == ([5.1, 5.15], [0.1, 0.05])


@pytest.fixture
def study(tmp_path: Path) -> Study:
    paths = {}
    for contrast, data in head_images().items():
        (path := tmp_path / f"{contrast}.nii.gz").write_bytes(data)
        paths[contrast] = path
    assert set(paths) == set(CONTRASTS)
    return load_study(paths)


@pytest.fixture
def waiting_segmenter(tmp_path: Path) -> WaitingSegmenter:
    labels = np.zeros(HEAD_SHAPE, np.uint8)
    labels[10:20, 10:20, 10:20] = 2
    nib.save(nib.Nifti1Image(labels, HEAD_AFFINE), tmp_path / "truth.nii.gz")
    (tmp_path / "seconds").write_text("0.3")
    card = load_bundle(write_tiny_bundle(tmp_path / "models")).card
    return WaitingSegmenter(card, tmp_path / "truth.nii.gz", tmp_path / "seconds")


def test_a_simulated_device_answers_with_the_truth_and_tells_its_windows(
    waiting_segmenter: WaitingSegmenter, study: Study
) -> None:
    told: list[tuple[str, int, int]] = []
    found = waiting_segmenter.segment(study, progress=lambda *step: told.append(step))
    windows = round(0.3 / WINDOW_SECONDS)
    assert told == [("infer", done, windows) for done in range(1, windows + 1)]
    assert np.count_nonzero(found.labels == 2) == 1000
    assert found.volumes_ml["ED"] == pytest.approx(1.0)
    assert isinstance(found.native, Volume)


def test_a_simulated_device_stops_when_it_is_told_to(
    waiting_segmenter: WaitingSegmenter, study: Study
) -> None:
    told: list[int] = []
    with pytest.raises(Cancelled):
        waiting_segmenter.segment(
            study,
            progress=lambda _stage, done, _total: told.append(done),
            cancelled=lambda: len(told) == 2,
        )
    assert told == [1, 2]
