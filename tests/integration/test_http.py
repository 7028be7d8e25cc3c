"""The whole service over real sockets: answers, back-pressure, cancellation, draining, hostility.

Two kinds of servers: one with a fake segmenter that can be held inside a window, in this process,
and ``segmamba serve`` with a real, tiny, untrained network in a process of its own.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import signal
import socket
import subprocess
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import nibabel as nib
import numpy as np
import pytest

from model_core.checkpoints import DEFAULT_MODEL, find_bundles
from model_core.imaging.nifti import read_label_map
from model_core.imaging.study import find_studies
from tests.service.fakes import (
    CATALOGUE,
    MODEL,
    FakeSegmenter,
    Gate,
    assert_problem,
    gzip_nifti,
    hired,
    image_bytes,
    make_settings,
    metric,
    running_api,
    running_app,
    service_of,
    study_files,
    wait_until,
)
from tests.service.servers import (
    COMMAND,
    HEAD_AFFINE,
    HEAD_SHAPE,
    Server,
    form_files,
    head_images,
    serve_process,
    wait_ready,
    write_tiny_bundle,
)

JSON = {"Accept": "application/json"}


# ------------------------------------------------------------------------- answers, fake network


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running_app() as client:
        yield client


def test_the_label_map_comes_as_a_file_with_the_run_in_its_headers(client: httpx.Client) -> None:
    response = client.post("/segment", files=study_files())
    assert response.status_code == 200
    headers = response.headers
    assert headers["content-type"] == "application/gzip"
    disposition = 'attachment; filename="segmentation_brats2021.nii.gz"'
    assert headers["content-disposition"] == disposition
    assert headers["cache-control"] == "no-store"
    assert headers["x-segmamba-model"] == MODEL
    assert headers["x-segmamba-backend"] == "torch"
    assert headers["x-segmamba-precision"] == "float32"
    assert headers["x-segmamba-label-scheme"] == "brats2021"
    assert json.loads(headers["x-segmamba-volumes-ml"])["WT"] == 0.6
    timings = json.loads(headers["x-segmamba-timings"])
    stages = ["read", "queue", "prepare", "infer", "restore", "postprocess", "measure", "encode"]
    assert list(timings) == stages
    labels, _ = read_label_map(response.content, argument="answer")
    expected = np.digitize(_array(image_bytes(0)), [1, 34, 67])
    np.testing.assert_array_equal(labels, expected)


def test_json_carries_the_same_file_and_the_same_figures(client: httpx.Client) -> None:
    plain = client.post("/segment", files=study_files())
    answer = client.post("/segment", files=study_files(), headers=JSON).json()
    assert base64.b64decode(answer["label_map"]["data"]) == plain.content
    assert answer["volumes_ml"] == json.loads(plain.headers["x-segmamba-volumes-ml"])
    assert list(answer["stage_seconds"]) == list(json.loads(plain.headers["x-segmamba-timings"]))
    assert answer["label_map"]["filename"] == "segmentation_brats2021.nii.gz"


def test_options_reach_the_segmenter_and_blank_ones_mean_the_cards_defaults() -> None:
    segmenter = FakeSegmenter()
    chosen = {"tta": "fast", "label_scheme": "brats2023", "postprocess": "false", "model": MODEL}
    chosen["window"] = "whole"
    with running_app(segmenter) as client:
        response = client.post("/segment", files=study_files(), data=chosen)
        client.post("/segment", files=study_files(), data=dict.fromkeys(chosen, ""))
        client.post("/segment", files=study_files(), data={"cache": "false"})
    assert 'filename="segmentation_brats2023.nii.gz"' in response.headers["content-disposition"]
    values = [(o.tta, o.label_scheme, o.postprocess, o.window) for o in segmenter.options]
    assert values == [("fast", "brats2023", False, "whole"), (None,) * 4, (None,) * 4]


def test_warnings_about_the_images_are_handed_on(client: httpx.Client) -> None:
    twins = study_files(t1ce=image_bytes(0))  # the same image as t1
    response = client.post("/segment", files=twins)
    warnings = json.loads(response.headers["x-segmamba-warnings"])
    assert any("t1ce" in warning for warning in warnings)
    assert client.post("/segment", files=twins, headers=JSON).json()["warnings"] == warnings


def test_another_model_is_loaded_on_first_use_and_shown() -> None:
    segmenters = {name: FakeSegmenter(name) for name in CATALOGUE}
    with running_app(segmenters=segmenters) as client:
        before = {
            entry["name"]: entry["loaded"] for entry in client.get("/models").json()["models"]
        }
        response = client.post("/segment", files=study_files(), data={"model": "other"})
        assert response.headers["x-segmamba-model"] == "other"
        assert client.get("/models/other").json()["loaded"] is True
        labels = 'backend="torch",device="cpu",model="other",precision="float32",version="1.0.0"'
        assert metric(client, f"segmamba_backend_info{{{labels}}}") == 1
    assert before == {"fake": True, "other": False, "third": False}
    assert segmenters["other"].warmed == 1
    assert segmenters["third"].warmed == 0


def test_two_applications_do_not_share_a_counter(client: httpx.Client) -> None:
    client.get("/health/live")
    with running_app() as other:
        assert metric(client, _requests("/health/live", 200)) >= 1
        assert metric(other, _requests("/health/live", 200)) == 0


def test_metrics_count_requests_stages_windows_and_causes() -> None:
    with running_app(FakeSegmenter(windows=3)) as client:
        client.post("/segment", files=study_files())
        client.post("/segment", files=study_files(t2=b""))
        assert metric(client, _requests("/segment", 200, "POST")) == 1
        assert metric(client, _requests("/segment", 422, "POST")) == 1
        assert metric(client, "segmamba_window_seconds_count") == 3
        assert metric(client, "segmamba_window_seconds_sum") == pytest.approx(0.03)
        assert metric(client, 'segmamba_stage_seconds_sum{stage="infer"}') == pytest.approx(0.02)
        assert metric(client, 'segmamba_stage_seconds_count{stage="queue"}') == 1
        assert metric(client, 'segmamba_errors_total{cause="input"}') == 1
        assert metric(client, "segmamba_queue_depth") == 0
        assert metric(client, "segmamba_ready") == 1


# ------------------------------------------------------------- readiness, back-pressure, draining


def test_ready_waits_for_a_worker_and_says_why() -> None:
    with running_api() as client:
        problem = assert_problem(client.get("/health/ready"), 503, "not-ready")
        assert "warmed up" in problem["detail"]
        assert client.get("/health/live").json() == {"status": "live"}
        with hired(service_of(client), lambda _: FakeSegmenter()):
            assert client.get("/health/ready").json() == {"status": "ready"}
        assert_problem(client.get("/health/ready"), 503, "not-ready")


def test_a_study_that_came_before_any_worker_is_done_when_one_comes() -> None:
    with running_api() as client:
        waiting = _in_thread(client)
        wait_until(lambda: metric(client, "segmamba_queue_depth") == 1)
        with hired(service_of(client), lambda _: FakeSegmenter()):
            assert waiting.result(20).status_code == 200


def _in_thread(client: httpx.Client, **data: str) -> Future[httpx.Response]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(
        lambda: httpx.post(f"{client.base_url}/segment", files=study_files(), data=data, timeout=60)
    )
    pool.shutdown(wait=False)
    return future


def test_the_server_answers_while_an_inference_runs() -> None:
    gate = Gate()
    with running_app(FakeSegmenter(on_window=gate)) as client:
        running = _in_thread(client)
        assert gate.entered.wait(10)
        for _ in range(5):
            assert client.get("/health/live").status_code == 200
        assert metric(client, "segmamba_jobs_running") == 1
        assert client.get("/models").status_code == 200
        assert client.post("/segment", files=study_files(t1=b"")).status_code == 422
        assert not running.done()
        gate.opened.set()
        assert running.result(20).status_code == 200


def test_a_full_queue_is_answered_at_once_with_retry_after() -> None:
    gate = Gate()
    settings = make_settings(queue_size=1)
    with running_app(FakeSegmenter(on_window=gate), settings=settings) as client:
        running = _in_thread(client)
        assert gate.entered.wait(10)
        waiting = _in_thread(client, cache="false")
        wait_until(lambda: metric(client, "segmamba_queue_depth") == 1)
        refused = client.post("/segment", files=study_files())
        assert_problem(refused, 429, "queue-full")
        assert int(refused.headers["retry-after"]) >= 1
        gate.opened.set()
        assert [running.result(20).status_code, waiting.result(20).status_code] == [200, 200]
        assert client.post("/segment", files=study_files()).status_code == 200


def test_a_caller_who_goes_away_stops_the_work_at_the_next_window() -> None:
    windows: list[int] = []
    entered = threading.Event()

    def note(number: int) -> None:
        windows.append(number)
        entered.set()

    segmenter = FakeSegmenter(windows=1000, window_seconds=0.02, on_window=note)
    with running_app(segmenter) as client:
        with send_without_waiting(client):
            assert entered.wait(20)
        wait_until(lambda: metric(client, "segmamba_jobs_running") == 0)
        stopped_after = len(windows)
        assert stopped_after < 900
        cause = 'segmamba_errors_total{cause="client-disconnected"}'
        wait_until(lambda: metric(client, cause) == 1)
        segmenter.windows = 1
        assert client.post("/segment", files=study_files()).status_code == 200
        assert len(windows) == stopped_after + 1


def send_without_waiting(client: httpx.Client) -> socket.socket:
    """The connection of a caller that has sent a study and may go away."""
    request = httpx.Request("POST", f"{client.base_url}/segment", files=study_files())
    body = request.read()
    lines = [
        b"POST /segment HTTP/1.1",
        *(name + b": " + value for name, value in request.headers.raw),
    ]
    raw = socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=20)
    raw.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    return raw


def test_a_process_that_drains_refuses_work_and_keeps_the_study() -> None:
    gate = Gate()
    settings = make_settings(grace_seconds=1)
    with running_app(FakeSegmenter(on_window=gate), settings=settings) as client:
        running, _ = _in_thread(client), gate.entered.wait(10)
        waiting = _in_thread(client, cache="false")
        wait_until(lambda: metric(client, "segmamba_queue_depth") == 1)
        service_of(client).drain()
        assert_problem(waiting.result(10), 503, "shutting-down")
        assert_problem(client.get("/health/ready"), 503, "shutting-down")
        assert_problem(client.post("/segment", files=study_files()), 503, "shutting-down")
        problem = assert_problem(running.result(10), 503, "shutting-down")
        address = re.search(r"/jobs/[0-9a-f]{32}", problem["detail"])
        assert address
        gate.opened.set()
        wait_until(lambda: client.get(address[0]).json()["state"] == "succeeded")


# ------------------------------------------------------------------------------- hostile images


def _nifti(array: np.ndarray, affine: np.ndarray | None = None) -> bytes:
    return gzip_nifti(nib.Nifti1Image(array, np.eye(4) if affine is None else affine))


def _bomb() -> bytes:
    """A small file that would inflate to more than a gigabyte if it were believed."""
    image = nib.Nifti1Image(np.zeros((9, 9, 9), np.float32), np.eye(4))
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [squeeze.compress(image.to_bytes())]
    parts += [squeeze.compress(bytes(1 << 20)) for _ in range(64)]
    return b"".join([*parts, squeeze.flush()])


def _header_claiming(shape: tuple[int, ...], affine: np.ndarray = np.eye(4)) -> bytes:  # noqa: B008
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.float32)
    header["vox_offset"] = 352
    header["sform_code"] = 1
    header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
    return gzip.compress(header.binaryblock + bytes(4) + bytes(8192))


def _with_nan() -> np.ndarray:
    array = np.ones((12, 12, 12), np.float32)
    array[3, 3, 3] = np.nan
    return array


HOSTILE = {
    "text": b"hello",
    "gzip of text": gzip.compress(b"hello" * 1000),
    "cut gzip": image_bytes()[: len(image_bytes()) // 2],
    "damaged gzip": image_bytes()[:300] + bytes(200) + image_bytes()[500:],
    "gzip bomb": _bomb(),
    "claims 30000 cubed": _header_claiming((30000, 30000, 30000)),
    "claims more than it has": _header_claiming((200, 200, 200)),
    "negative dimensions": _header_claiming((5, 5, 5))[:40] + b"\xff" * 40,
    "two-dimensional": _nifti(np.ones((12, 12), np.float32)),
    "four channels": _nifti(np.ones((12, 12, 12, 4), np.float32)),
    "one slice": _nifti(np.ones((64, 64, 1), np.float32)),
    "complex": _nifti(np.ones((12, 12, 12), np.complex64)),
    "NaN": _nifti(_with_nan()),
    "constant": _nifti(np.ones((12, 12, 12), np.float32)),
    "all zero": _nifti(np.zeros((12, 12, 12), np.float32)),
    "singular affine": _header_claiming((12, 12, 12), np.diag([0.0, 0, 0, 1])),
    "huge spacing": _nifti(np.ones((12, 12, 12), np.float32), np.diag([1e9, 1, 1, 1])),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "zip": b"PK\x03\x04" + bytes(100),
    "header only": gzip.compress(bytes(348)),
    "zeros": bytes(4096),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_image_is_refused_by_field_and_the_service_goes_on(
    client: httpx.Client, name: str
) -> None:
    response = client.post("/segment", files=study_files(t2=HOSTILE[name]))
    problem = response.json()
    assert_problem(response, 422, problem["type"].rsplit(":", 1)[1])
    assert problem["field"] == "t2"
    assert client.post("/segment", files=study_files()).status_code == 200


def test_an_image_with_too_many_voxels_is_refused_before_it_is_inflated() -> None:
    with running_app(settings=make_settings(max_megavoxels=1)) as client:
        files = study_files(flair=_header_claiming((200, 100, 51)))
        problem = assert_problem(client.post("/segment", files=files), 422, "image")
        assert problem["field"] == "flair"


@pytest.mark.parametrize("seed", range(20))
def test_a_file_with_random_damage_never_breaks_the_service(
    client: httpx.Client, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    raw = bytearray(gzip.decompress(image_bytes()))
    for position in rng.integers(0, 360, size=8):
        raw[position] = rng.integers(0, 256)
    data = bytes(raw) if seed % 2 else gzip.compress(bytes(raw), 1)
    response = client.post("/segment", files=study_files(t1ce=data))
    assert response.status_code in (200, 422)
    assert client.get("/health/live").status_code == 200


def test_a_request_that_is_no_http_leaves_the_service_running(client: httpx.Client) -> None:
    url = client.base_url
    for noise in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"POST /segment HTTP/9.9\r\n\r\n"):
        with socket.create_connection((url.host, url.port or 80), timeout=5) as raw:
            raw.sendall(noise)
            raw.shutdown(socket.SHUT_WR)
            raw.recv(4096)
    assert client.get("/health/live").status_code == 200


# ------------------------------------------------------------- the real thing in its own process


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    write_tiny_bundle(folder / "models")
    write_tiny_bundle(folder / "models", "second")
    return folder


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    with serve_process(place, log_level="debug") as server:
        wait_ready(server.client)
        yield server


def test_the_map_equals_the_command_lines_voxel_by_voxel(server: Server, place: Path) -> None:
    images = head_images()
    arguments = []
    for contrast, data in images.items():
        (place / f"{contrast}.nii.gz").write_bytes(data)
        arguments += [f"--{contrast}", str(place / f"{contrast}.nii.gz")]
    by_cli = place / "by_cli.nii.gz"
    # what decides about build and precision here decides about the server's too
    chosen = {k: v for k, v in os.environ.items() if k.startswith(("SEGMAMBA_", "ONEDNN_"))}
    environment = {**chosen, "SEGMAMBA_MODELS": str(place / "models"), "PATH": "/usr/bin:/bin"}
    # the server's number of threads: in bfloat16 another one is another order of summation
    output = ["-o", str(by_cli), "--model", "tiny", "--device", "cpu", "--threads", "1"]
    subprocess.run(
        [*COMMAND, "segment", *arguments, *output], env=environment, check=True, timeout=120
    )
    response = server.client.post("/segment", files=form_files(images))
    assert response.status_code == 200
    (place / "by_http.nii.gz").write_bytes(response.content)
    ours, theirs = nib.load(place / "by_http.nii.gz"), nib.load(by_cli)
    labels = np.asarray(ours.dataobj)
    assert labels.tobytes() == np.asarray(theirs.dataobj).tobytes()
    assert labels.shape == HEAD_SHAPE
    assert len(np.unique(labels)) > 2
    np.testing.assert_array_equal(ours.affine, HEAD_AFFINE)
    np.testing.assert_array_equal(ours.affine, theirs.affine)


def test_schemes_and_tta_are_those_of_the_options(server: Server) -> None:
    files = form_files(head_images())
    maps = {}
    for scheme in ("brats2021", "brats2023"):
        data = {"label_scheme": scheme, "tta": "fast"}
        response = server.client.post("/segment", files=files, data=data)
        assert json.loads(response.headers["x-segmamba-tta"])["passes"] == 4
        image = nib.Nifti1Image.from_bytes(gzip.decompress(response.content))
        maps[scheme] = np.asarray(image.dataobj)
    assert 4 in maps["brats2021"]
    np.testing.assert_array_equal(
        np.where(maps["brats2021"] == 4, 3, maps["brats2021"]), maps["brats2023"]
    )


def test_the_server_answers_while_a_real_network_runs(server: Server) -> None:
    files = form_files(head_images())
    with ThreadPoolExecutor(1) as pool:
        post = httpx.post
        url = f"{server.client.base_url}/segment"
        options = {"tta": "full", "cache": "false"}
        running = pool.submit(post, url, files=files, data=options, timeout=120)
        wait_until(lambda: metric(server.client, "segmamba_jobs_running") == 1 or running.done())
        answered = 0
        while not running.done():
            assert server.client.get("/health/live").status_code == 200
            answered += 1
        assert running.result().status_code == 200
    assert answered >= 3


def test_the_cards_and_the_backend_are_shown(server: Server) -> None:
    listed = server.client.get("/models").json()
    assert listed["default"] == "tiny"
    cards = {entry["name"]: entry["card"] for entry in listed["models"]}
    assert {"tiny", "second"} <= set(cards)
    assert cards["tiny"]["window"] == [32, 32, 32]
    answer = server.client.post("/segment", files=form_files(head_images()), headers=JSON).json()
    shown = [
        line
        for line in server.client.get("/metrics").text.splitlines()
        if line.startswith("segmamba_backend_info{") and 'model="tiny"' in line
    ]
    assert len(shown) == 1
    assert f'backend="{answer["backend"]}"' in shown[0]
    assert answer["weights_sha256"] == cards["tiny"]["weights"]["sha256"]


def test_an_unknown_model_and_a_path_are_refused(server: Server, place: Path) -> None:
    for name in ("nothing", str(place / "models" / "second")):
        response = server.client.post(
            "/segment", files=form_files(head_images()), data={"model": name}
        )
        assert assert_problem(response, 422, "option")["field"] == "model"
        assert name not in response.text


def test_the_log_is_json_and_knows_nothing_of_the_upload(server: Server) -> None:
    named = [(contrast, ("JANE_DOE.nii.gz", data)) for contrast, data in head_images().items()]
    server.client.post("/segment", files=named, headers={"X-Request-ID": "look-for-me"})
    wait_until(lambda: "look-for-me" in server.log.read_text())
    assert any(event.get("event") == "model loaded and warm" for event in server.events())
    assert "JANE" not in server.log.read_text()


def test_an_idle_server_exits_soon_after_sigterm(place: Path) -> None:
    with serve_process(place) as server:
        wait_ready(server.client)
        with socket.create_connection((server.client.base_url.host, server.client.base_url.port)):
            assert server.stop(signal.SIGTERM, timeout=20) < 10
        assert server.process.returncode in (0, -signal.SIGTERM)


@pytest.mark.slow
def test_sigterm_during_a_segmentation_lets_it_finish(place: Path) -> None:
    with serve_process(place, grace_seconds=120) as server, ThreadPoolExecutor(1) as pool:
        wait_ready(server.client)
        url = f"{server.client.base_url}/segment"
        files = form_files(head_images())
        running = pool.submit(httpx.post, url, files=files, data={"tta": "full"}, timeout=120)
        wait_until(lambda: metric(server.client, "segmamba_jobs_running") == 1)
        server.stop(signal.SIGTERM, timeout=150)
        assert running.result().status_code == 200


@pytest.mark.slow
def test_the_default_model_is_ready_within_a_minute(tmp_path: Path) -> None:
    _require_default_model()
    with serve_process(tmp_path, DEFAULT_MODEL) as server:
        wait_ready(server.client, 60)
        listed = server.client.get("/models").json()
    assert listed["default"] == DEFAULT_MODEL
    assert [entry["loaded"] for entry in listed["models"] if entry["default"]] == [True]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_case_gives_the_command_lines_voxels_on_its_own_grid(
    real_cases: Path, tmp_path: Path
) -> None:
    _require_default_model()
    case = sorted(path for path in real_cases.iterdir() if path.is_dir())[-1]
    study = find_studies(case)[0]
    by_cli, by_http = tmp_path / "by_cli.nii.gz", tmp_path / "by_http.nii.gz"
    subprocess.run(
        [*COMMAND, "segment", str(case), "-o", str(by_cli), "--device", "cpu"],
        check=True,
        timeout=400,
    )
    images = {contrast: path.read_bytes() for contrast, path in study.paths.items()}
    with serve_process(tmp_path, DEFAULT_MODEL) as server:
        wait_ready(server.client, 120)
        response = server.client.post("/segment", files=form_files(images), timeout=400)
    assert response.status_code == 200
    by_http.write_bytes(response.content)
    ours, theirs, source = (nib.load(path) for path in (by_http, by_cli, study.paths["t1"]))
    assert np.asarray(ours.dataobj).tobytes() == np.asarray(theirs.dataobj).tobytes()
    assert ours.shape == source.shape
    np.testing.assert_array_equal(ours.affine, source.affine)
    assert ours.header.get_zooms() == source.header.get_zooms()


def _require_default_model() -> None:
    if DEFAULT_MODEL not in find_bundles():
        pytest.skip("the default model is not in this checkout")


def _array(data: bytes) -> np.ndarray:
    return np.asarray(nib.Nifti1Image.from_bytes(gzip.decompress(data)).dataobj)


def _requests(route: str, status: int, method: str = "GET") -> str:
    labels = f'method="{method}",route="{route}",status="{status}"'
    return f"segmamba_requests_total{{{labels}}}"
