"""The harness of the benchmarks: its arithmetic, its files, and that the ways compute the same."""

from __future__ import annotations

import gzip
import json
import re
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import sqlalchemy as sa
import torch

from benchmarks import case, commandline, load, monai_way, nnunet_way, scan, scans, throughput
from benchmarks.authors_way import as_authors
from benchmarks.bare import ORDER_VARIABLE, bare_loop
from benchmarks.deployment import MODEL, deployed, environment, fill, project_python, small_form
from benchmarks.dispatch import idle_percent, waits
from benchmarks.machine import machine, slug, versions
from benchmarks.networks import LENT, OURS, SEQUENTIAL, forward_in, in_way, relative_error, seeded
from benchmarks.results import SCHEMA, Results, Row, fraction, ratio, read
from benchmarks.serving import CALLERS, killed, ours
from benchmarks.table import markdown, significant
from benchmarks.timing import Plan, alternate, quantile, spread
from benchmarks.work import network_work, scan_gbyte
from benchmarks.worker import JobError, run_job
from service.jobs.database import open_database
from service.jobs.engine import JobEngine
from service.jobs.records import NewJob
from service.jobs.tables import jobs

SAME = 1e-5
"""Relative L2 distance of two float32 ways of computing one network."""


def row(way: str, *seconds: float, **more: Any) -> Row:
    return Row(**({"group": "one thing", "way": way, "seconds": seconds} | more))


# ------------------------------------------------------------------------------------- statistics


def test_the_spread_is_minimum_median_nearest_rank_and_count() -> None:
    seconds = [float(i) for i in range(10, 0, -1)]
    assert spread(seconds) == {"min": 1.0, "median": 5.5, "p90": 9.0, "count": 10}
    assert spread([3.0]) == {"min": 3.0, "median": 3.0, "p90": 3.0, "count": 1}


def test_quantiles_are_nearest_ranks() -> None:
    seconds = [float(i) for i in range(1, 201)]
    assert [quantile(seconds, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 100, 198, 200]
    assert quantile([3.0], 0.99) == 3.0


def test_ways_run_in_turn_after_their_warm_up() -> None:
    said: list[str] = []
    ways = {"a": lambda: said.append("a"), "b": lambda: said.append("b")}
    timed = alternate(ways, Plan(warmup=2, rounds=3))
    assert "".join(said) == "aabb" + "ab" * 3
    assert [len(seconds) for seconds in timed.values()] == [3, 3]


def test_a_way_that_has_used_its_seconds_is_run_no_more_but_once_at_least() -> None:
    said: list[str] = []

    def slow() -> None:
        said.append("slow")
        time.sleep(0.02)

    timed = alternate({"slow": slow, "fast": lambda: None}, Plan(warmup=0, rounds=4, seconds=0.01))
    assert said == ["slow"]
    assert len(timed["fast"]) == 4


def test_ratio_and_fraction_are_those_of_the_medians() -> None:
    ours = row("ours", 1.0, 2.0, 3.0, reference=True, gflop=100.0, peak="conv3d_float32")
    theirs = row("theirs", 20.0, gbyte=30.0, peak="triad")
    assert ratio(theirs, [ours, theirs]) == 10.0
    assert ratio(theirs, [theirs]) is None
    assert fraction(ours, {"conv3d_float32": 200.0}) == pytest.approx(0.25)
    assert fraction(theirs, {"triad": 3.0}) == pytest.approx(0.5)
    assert (
        fraction(row("cut off", 9.0, gflop=1.0, peak="triad", bound="lower"), {"triad": 1}) is None
    )


# ------------------------------------------------------------------------------------------ files


def test_rows_survive_the_file_and_a_second_measurement_replaces_the_first(tmp_path: Path) -> None:
    results = Results.open("window", tmp_path)
    results.peaks = {"triad": 20.0}
    first = row("ours", 1.0, reference=True, extra={"windows": 8}, error=1e-6)
    results.add(first)
    results.add(row("theirs", 2.0))
    results.add(row("ours", 0.5, reference=True))
    again = Results.open("window", tmp_path)
    assert again.rows == [row("ours", 0.5, reference=True), row("theirs", 2.0)]
    assert again.has("one thing", "theirs")
    assert not again.has("another", "theirs")
    assert Row.from_json(json.loads(json.dumps(first.to_json()))) == first
    assert Results.open("window", tmp_path, fresh=True).rows == []


def test_a_file_says_what_it_was_measured_on_and_nothing_of_whom(tmp_path: Path) -> None:
    results = Results.open("scan", tmp_path, quick=True)
    results.add(row("ours", 1.0))
    assert re.fullmatch(rf"quick-scan_{re.escape(slug())}_\d{{6}}\.json", results.path.name)
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
    content = json.loads(results.path.read_text(encoding="utf-8"))
    assert content["schema"] == SCHEMA
    assert {"cpu", "cores", "caches", "instruction_sets", "memory_gb", "native_build"} <= set(
        content["machine"]
    )
    assert {"torch", "segmamba-service", "commit"} <= set(content["versions"])
    assert content["rows"][0]["spread"] == {"min": 1.0, "median": 1.0, "p90": 1.0, "count": 1}
    assert str(Path.home()) not in json.dumps(machine() | versions())


def test_a_file_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text('{"schema": "something/2"}', encoding="utf-8")
    with pytest.raises(ValueError, match="something/2"):
        read(path)


def test_a_short_name_is_fit_for_a_file() -> None:
    assert re.fullmatch(r"[a-z0-9-]+-\d+c", slug())


def test_folders_of_the_command_line_are_not_kept() -> None:
    secret = "postgresql://me:secret@host/db"
    given = ["--data", "/home/me/patients", "--out=/tmp/x", "--only", "L 512", "--postgres", secret]
    kept = ["--data", "FOLDER", "--out=FOLDER", "--only", "L 512", "--postgres", "URL"]
    assert commandline._shown(given) == kept


def test_a_failed_case_keeps_the_kind_of_its_error_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise JobError("ImageError: /data/patient-1_t1.nii.gz is no image")

    monkeypatch.setattr(case, "run_job", fail)
    assert case._answer({}, chosen()) == {"failed": "ImageError"}


def chosen(**more: Any) -> commandline.Options:
    values = {
        "quick": True, "out": Path(), "only": (), "missing": False, "fresh": False,
        "listing": False, "threads": 1, "plan": Plan(rounds=1), "limit_seconds": 1.0,
    }  # fmt: skip
    return commandline.Options(**(values | more))


def test_only_and_missing_choose_rows(tmp_path: Path) -> None:
    results = Results.open("scan", tmp_path)
    results.add(row("ours", 1.0))
    assert chosen(only=("OUR",)).wants(results, "one thing", "ours")
    assert not chosen(only=("theirs",)).wants(results, "one thing", "ours")
    assert not chosen(missing=True).wants(results, "one thing", "ours")
    assert chosen(missing=True).wants(results, "one thing", "theirs")


# ------------------------------------------------------------------------------------------ pages


def test_the_table_marks_bounds_and_leaves_out_empty_columns(tmp_path: Path) -> None:
    results = Results.open("window", tmp_path)
    results.peaks = {"conv3d_float32": 100.0}
    results.add(row("ours", 2.0, reference=True, gflop=100.0, peak="conv3d_float32"))
    results.add(row("killed", 300.0, bound="lower", remark="cut off"))
    results.add(row("walked", 40.0, bound="scaled"))
    results.add(row("broken", bound="failed", remark="failed: no memory"))
    lines = markdown(results).splitlines()
    head = next(line for line in lines if line.startswith("|  | way"))
    assert "memory" not in head
    assert "error" not in head
    by_way = {line.split(" | ")[1]: line for line in lines if line.startswith("| ") and "|" in line}
    assert "50% of conv3d float32" in by_way["ours"]
    assert "> 300" in by_way["killed"]
    assert "> 150" in by_way["killed"]
    assert "~ 20.0" in by_way["walked"]
    assert "–" in by_way["broken"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.012345, "0.0123"),
        (1.0, "1.00"),
        (12.345, "12.3"),
        (123.4, "123"),
        (2937.4, "2937"),
    ],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert significant(value) == shown


# ---------------------------------------------------------------------------------- the same maths


@pytest.mark.parametrize(("name", "side"), [("tiny SegMamba", 32), ("tiny LightM-UNet", 8)])
def test_the_authors_way_computes_what_our_network_does(name: str, side: int) -> None:
    network = seeded(name)
    x = torch.randn(1, 4, side, side, side, generator=torch.Generator().manual_seed(2))
    wanted = forward_in(network, "float32")(x)
    theirs = forward_in(in_way(network, LENT)[0], "float32")(x)
    assert relative_error(theirs, wanted) < SAME


def test_another_weight_is_another_result() -> None:
    """The comparison above can fail."""
    network = seeded("tiny SegMamba")
    x = torch.randn(1, 4, 32, 32, 32, generator=torch.Generator().manual_seed(2))
    wanted = forward_in(network, "float32")(x)
    theirs = as_authors(network, scans.torch_blocked)
    with torch.no_grad():
        theirs.get_parameter("vit.stages.3.0.mamba.D_s").mul_(1.5)
    assert relative_error(forward_in(theirs, "float32")(x), wanted) > SAME


@pytest.mark.parametrize("way", ["sequential", "pscan", "pscan whole"])
def test_every_scan_computes_the_same(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = scan.problem(scan.Shape(16, 70))
    if way != "sequential":
        pytest.importorskip("mambapy", reason="a peer, in .venv-bench alone")
    monkeypatch.setattr(scans, "PSCAN_CHUNK", 16)  # so that states are carried
    monkeypatch.setattr(scans, "SEQUENTIAL_PIECE", 32)
    every: dict[str, Callable[..., torch.Tensor]] = {
        "sequential": scans.Sequential(),
        "pscan": scans.pscan,
        "pscan whole": scans.pscan_whole,
    }
    assert relative_error(every[way](*tensors), scans.torch_blocked(*tensors)) < SAME


def test_a_sequential_scan_with_a_limit_scales_the_time_of_the_rest() -> None:
    tensors = scan.problem(scan.Shape(8, 64))
    whole, part = scans.Sequential(), scans.Sequential(limit=16)
    y, beginning = whole(*tensors), part(*tensors)
    assert whole.unmeasured == 0.0
    assert part.unmeasured > 0.0
    assert torch.equal(beginning[..., :16], y[..., :16])
    assert in_way(seeded("tiny SegMamba"), SEQUENTIAL)[1] is not None
    assert in_way(seeded("tiny SegMamba"), OURS)[1] is None


# -------------------------------------------------------------------------------- the peers' cases


class Signal(torch.nn.Module):
    """Label NCR wherever the first contrast has signal, background elsewhere."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        signal = (x[:, :1] != 0).float()
        return torch.cat([1 - signal, signal, *[torch.zeros_like(signal)] * 2], dim=1)


@pytest.fixture
def lopsided(tmp_path: Path) -> tuple[list[Path], np.ndarray]:
    """Four files in an unusual axis order whose signal no turn or flip leaves as it is."""
    rng = np.random.default_rng(0)
    values = np.zeros((20, 26, 18), np.float32)
    values[3:15, 4:22, 5:9] = rng.uniform(1, 2, (12, 18, 4))
    values[3:6, 4:8, 9:16] = rng.uniform(1, 2, (3, 4, 7))
    affine = np.array([[0, -1, 0, 30], [0, 0, 1, -20], [-1, 0, 0, 10], [0, 0, 0, 1.0]])
    paths = [tmp_path / f"head_{i:04d}.nii.gz" for i in range(4)]
    for path in paths:
        nib.save(nib.Nifti1Image(values, affine), path)
    return paths, values != 0


@pytest.mark.filterwarnings("ignore:NvImgCodec")  # a reader that MONAI registers unasked
def test_monai_writes_labels_where_the_images_have_signal(
    lopsided: tuple[list[Path], np.ndarray], tmp_path: Path
) -> None:
    images, signal = lopsided
    out = tmp_path / "labels.nii.gz"
    monai_way.predict_case(
        Signal(), images, out, window=(8, 8, 8), orientation="SPL", heads="labels"
    )
    labels = nib.load(out)
    assert np.array_equal(np.asarray(labels.dataobj), signal)
    assert np.array_equal(labels.affine, nib.load(images[0]).affine)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_nnunet_writes_labels_where_the_images_have_signal(
    lopsided: tuple[list[Path], np.ndarray], tmp_path: Path
) -> None:
    pytest.importorskip("nnunetv2", reason="a peer, in .venv-bench alone")
    images, signal = lopsided
    out = tmp_path / "labels.nii.gz"
    made = nnunet_way.predictor(Signal(), window=(8, 8, 8), heads="labels")
    nnunet_way.predict_case(made, images, out)
    assert np.array_equal(np.asarray(nib.load(out).dataobj), signal)


# --------------------------------------------------------------------------------------- the work


def test_the_elements_of_the_scans_are_counted() -> None:
    """Four stages of one layer, three directions, 2C channels, 16 states, at 16³ to 2³ tokens."""
    stages = zip((8, 8, 16, 16), (16, 8, 4, 2), strict=True)
    expected = sum(3 * 2 * channels * 16 * side**3 for channels, side in stages)
    assert network_work("tiny SegMamba", (32, 32, 32)).scan_elements == expected


def test_two_images_are_twice_the_work() -> None:
    one, two = (network_work("tiny LightM-UNet", (8, 8, 8), batch) for batch in (1, 2))
    assert two.gflop == pytest.approx(2 * one.gflop)
    assert one.gflop > 0


def test_the_least_traffic_of_a_scan() -> None:
    assert scan_gbyte(96, 1000, 16) == pytest.approx(4 * (4 * 96 + 32) * 1000 / 1e9)


# ---------------------------------------------------------------------------------------- running


def add(*, begin: Callable[[], None], a: int, b: int) -> dict[str, Any]:
    begin()
    return {"sum": a + b}


def hang(*, begin: Callable[[], None]) -> dict[str, Any]:
    begin()
    time.sleep(600)
    return {}


def fail(*, begin: Callable[[], None]) -> dict[str, Any]:
    raise RuntimeError("no way")


@pytest.mark.slow
def test_a_job_answers_from_a_process_of_its_own() -> None:
    answer = run_job(f"{__name__}:add", {"a": 1, "b": 2}, limit_seconds=60, threads=1)
    assert answer["sum"] == 3
    assert 10 < answer["peak_rss_mb"] < 100_000


@pytest.mark.slow
def test_a_job_is_killed_at_its_limit_and_a_failing_one_says_why() -> None:
    assert run_job(f"{__name__}:hang", {}, limit_seconds=0.2, threads=1) == {"cut_off": 0.2}
    with pytest.raises(JobError, match="RuntimeError: no way"):
        run_job(f"{__name__}:fail", {}, limit_seconds=60, threads=1)


@pytest.mark.slow
def test_a_tiny_run_leaves_numbers_a_page_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = {"triad": 20.0, "gemm_float32": 200.0}
    monkeypatch.setattr(commandline, "measure_peaks", lambda **_: peaks)
    monkeypatch.setattr(scan, "shapes", lambda quick: (scan.Shape(16, 32), scan.Shape(16, 64)))
    monkeypatch.setattr(scans, "has_mambapy", lambda: False)
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["scan", "--quick", "--threads", "1", "--out", str(tmp_path)])
    try:
        scan.main()
    finally:
        torch.set_num_threads(threads)
    (path,) = tmp_path.glob("*.json")
    results = read(path)
    assert results.peaks == peaks
    assert len(results.rows) == 2 * 4  # without mambapy
    assert all(len(one.seconds) == 2 for one in results.rows)
    assert all(one.error is None or one.error < SAME for one in results.rows)
    assert path.with_suffix(".png").stat().st_size > 10_000
    assert "ns per element" in path.with_suffix(".md").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------ the service


def test_kept_ranks_hold_the_extremes_and_the_quantiles() -> None:
    seconds = [float(i) for i in range(1000, 0, -1)]
    kept = load.ranks(seconds, 201)
    assert len(kept) == 201
    assert kept[0] == 1.0
    assert kept[-1] == 1000.0
    assert quantile(kept, 0.5) == pytest.approx(quantile(seconds, 0.5), abs=5)
    assert load.ranks([2.0, 1.0]) == (1.0, 2.0)


def test_requests_are_grouped_and_those_of_the_warm_up_do_not_count() -> None:
    said = [
        ("GET", -2.0, 1.0, None),  # ended before the time began
        ("GET", -1.0, 2.0, None),
        ("GET", 3.0, 1.0, None),
        ("POST", 0.0, 0.5, "HTTPError"),
    ]
    found = load.grouped(said)
    assert found["GET"] == load.Asked(seconds=[2.0, 1.0], errors=0, span=4.0, answered=3)
    assert found["POST"] == load.Asked(seconds=[], errors=1, span=0.5, answered=1)
    failed = load._row("POST, 64 callers", "ours", found["POST"], {})
    assert (failed.bound, failed.seconds) == ("failed", ())
    row = load._row("GET, 64 callers", "ours", found["GET"], {"waiting": 0})
    assert row.extra == {"p99": 2.0, "requests": 2, "a_second": 0.5, "errors": 0, "waiting": 0}


def test_only_wanted_phases_are_measured(tmp_path: Path) -> None:
    results = Results.open("load", tmp_path)
    every = load.wanted("SQLite", 10_000, results, chosen())
    assert every.name == "this project, SQLite, 10 000 jobs"
    assert every.phases == list(load.PHASES)
    posts = load.wanted("SQLite", 1, results, chosen(only=("post /jobs, 64 callers, one",)))
    assert [phase.title for phase in posts.phases] == ["one request a second each"]


def test_a_job_keeps_the_worker_from_the_end_of_the_one_before() -> None:
    times = [(10.0, 12.0), (10.5, 15.0), (20.0, 21.0)]
    assert throughput.periods(times) == [2.0, 3.0, 1.0]
    measured = throughput.Measured(service=[2.0, 2.0, 4.0, 4.0], bare=[1.0] * 4, beside=[])
    assert measured.shares(2) == [0.5, 0.25]


def test_a_measured_service_takes_no_settings_of_the_person_who_measures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEGMAMBA_QUEUE_SIZE", "1")
    monkeypatch.setenv("HOME", "/home/me")
    made = environment({"threads": 2})
    assert "SEGMAMBA_QUEUE_SIZE" not in made
    assert (made["SEGMAMBA_THREADS"], made["HOME"]) == ("2", "/home/me")


def test_a_filled_table_holds_copies_of_the_job_in_both_books(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    engine = JobEngine(url)
    first = engine.submit(NewJob(owner="me", spec={"model": "m"})).job
    fill(url, 1200)
    numbers = [job.number for job in engine.list("me", limit=2000)]
    engine.close()
    database = open_database(url)
    with database.connect() as connection:
        ids = set(connection.execute(sa.select(jobs.c.id)).scalars())
        places = connection.execute(sa.text("SELECT workflow_uuid, inputs FROM workflow_status"))
        queued = {row.workflow_uuid: row.inputs for row in places}
    database.dispose()
    assert len(set(numbers)) == 1201
    assert first.id in ids
    assert set(queued) == ids
    assert len(set(queued.values())) == 1


@pytest.mark.slow
def test_a_real_service_is_measured_and_keeps_every_study_of_a_killed_worker(
    tmp_path: Path,
) -> None:
    images = case.study_paths(None, 0, tmp_path / "study", quick=True).images
    form = small_form(tmp_path / "form")
    bundle = case.write_bundle(tmp_path / "ours" / "models" / MODEL, "tiny SegMamba", window=32)
    order = {"bundle": bundle, "threads": 1, "options": {}}
    variables = environment({}) | {ORDER_VARIABLE: json.dumps(order)}
    results = Results.open("serving", tmp_path, quick=True)
    with bare_loop(project_python(), variables, images) as loop:
        label_map = gzip.decompress(bytes.fromhex(loop.run()["label_map"])).hex()
        with deployed(tmp_path / "ours", model=MODEL, threads=1) as up:
            assert 0 <= idle_percent(up.child("worker"), 1.0) < 200
            seconds = waits(up, form, 2, (0.0, 0.1))
            study = throughput.Study(images=images, options={})
            measured = throughput.measure(up, loop, study, blocks=1, size=2)
            assert len(up.rows(jobs.c.id)) == 2 + 1 + 2 + 1
    assert all(0 <= one < 60 for one in seconds)
    assert measured.same
    assert len(measured.service) == len(measured.bare) == 2
    assert min(*measured.service, *measured.bare, *measured.beside) > 0
    write_again = tmp_path / "again"
    case.write_bundle(write_again / "models" / MODEL, "tiny SegMamba", window=32)
    with ours(write_again, form, chosen()) as servers:
        killed([servers[1]], label_map, results, chosen())
    (row,) = results.rows
    assert row.extra["label_maps"] == CALLERS
    assert (row.extra["refused"], row.extra["lost"]) == (0, 0)
    assert row.extra["again"] < 300


@pytest.mark.slow
@pytest.mark.skipif(find_spec("locust") is None, reason="a peer, in .venv-bench alone")
def test_many_callers_ask_a_real_service(tmp_path: Path) -> None:
    case.write_bundle(tmp_path / "models" / MODEL, "tiny SegMamba", window=32)
    form = small_form(tmp_path / "study")
    results = Results.open("load", tmp_path, quick=True)
    held = load.wanted("SQLite", 50, results, chosen())
    with deployed(tmp_path, model=MODEL, threads=1, queue_size=1_000_000) as up:
        load.measure(up, form, held, results, folder=tmp_path, seconds=6.0)
        count = len(up.rows(jobs.c.id))
    assert count > 50
    assert {row.group.partition(",")[0] for row in results.rows} == {"GET /jobs/{id}", "POST /jobs"}
    assert all(row.extra["errors"] == 0 for row in results.rows if row.seconds)
