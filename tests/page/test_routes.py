"""How the page is sent: to whom, as what, with which policy, and compressed."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from model_core.types import CONTRASTS
from service.errors import NotReadyError
from service.page import sample
from service.page.assets import STATIC, names
from service.routes.page import POLICY
from tests.service.fakes import make_settings, running_api

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    settings = make_settings(data_dir=tmp_path_factory.mktemp("data"))
    with running_api(settings) as client:
        yield client


def test_a_browser_gets_the_page(client: httpx.Client) -> None:
    answer = client.get("/", headers={"Accept": BROWSER})
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text.startswith("<!doctype html>")
    assert "Accept" in answer.headers["vary"]


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", "image/png", "text/plain"])
def test_a_program_gets_the_pointer(client: httpx.Client, accept: str | None) -> None:
    answer = client.get("/", headers={"Accept": accept} if accept else {})
    assert answer.json()["openapi"] == "/openapi.json"
    assert answer.json()["links"]["jobs"] == "/jobs"


@pytest.mark.parametrize("path", ["/docs", *(f"/page/{name}" for name in names())])
def test_every_part_is_sent_whole_under_the_policy(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    name = path.removeprefix("/page/") if path != "/docs" else "docs.html"
    assert answer.status_code == 200
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == (STATIC / name).read_bytes()
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_policy_lets_nothing_inline_run_and_nothing_foreign_load() -> None:
    assert "default-src 'none'" in POLICY
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
    assert "*" not in POLICY


def test_who_understands_no_gzip_gets_none(client: httpx.Client) -> None:
    answer = client.get("/page/page.css", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in answer.headers
    assert answer.content == (STATIC / "page.css").read_bytes()


def test_what_has_not_changed_is_not_sent_again(client: httpx.Client) -> None:
    first = client.get("/page/page.css")
    again = client.get("/page/page.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    plain = {"If-None-Match": first.headers["etag"], "Accept-Encoding": "identity"}
    assert (
        client.get("/page/page.css", headers=plain).status_code == 200
    )  # another form, another tag


def test_only_what_has_its_release_in_its_name_is_kept_without_asking(client: httpx.Client) -> None:
    for name in names():
        kept = "immutable" in client.get(f"/page/{name}").headers["cache-control"]
        assert kept == ("0.69.0" in name), name


@pytest.mark.parametrize(
    "path",
    ["/page/", "/page/none.js", "/page/../assets.py", "/page/%2e%2e/assets.py", "/page/vendor",
     "/page/sample/seg.nii.gz", "/page/sample/t1"],
)  # fmt: skip
def test_nothing_else_is_sent(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:segmamba:problem:not-found"


def test_the_sample_study_is_drawn_once_by_another_process(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "SIZE", "small")
    sizes = set()
    for contrast in CONTRASTS:
        answer = client.get(f"/page/sample/{contrast}.nii.gz").raise_for_status()
        header = gzip.decompress(answer.content)[:348]
        sizes.add(tuple(int.from_bytes(header[i : i + 2], "little") for i in (42, 44, 46)))
        monkeypatch.setattr(sample, "_draw", pytest.fail)
    assert sizes == {(96, 96, 62)}


def test_a_sample_that_cannot_be_drawn_is_a_problem_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "_SEGMAMBA", "raise SystemExit(3)")
    with running_api(make_settings(data_dir=tmp_path)) as client:
        answer = client.get("/page/sample/t1.nii.gz")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "60"
    assert not list(tmp_path.glob("*sample*"))


def test_a_failure_to_draw_the_sample_is_remembered_for_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "_SEGMAMBA", "raise SystemExit(3)")
    with pytest.raises(NotReadyError):
        sample.sample_file(tmp_path, "t1")
    with monkeypatch.context() as at_once:
        at_once.setattr(sample, "_draw", lambda _: pytest.fail("it was drawn again"))
        with pytest.raises(NotReadyError, match="could not be drawn") as caught:
            sample.sample_file(tmp_path, "t1")
        assert 0 < caught.value.retry_after <= 60
    later = sample.time.monotonic() + 61
    drawn: list[Path] = []
    monkeypatch.setattr(sample, "_draw", drawn.append)
    monkeypatch.setattr(sample.time, "monotonic", lambda: later)
    sample.sample_file(tmp_path, "t1")
    assert drawn == [tmp_path / "sample"]


def test_nobody_waits_while_the_sample_is_drawn_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, end = threading.Event(), threading.Event()

    def draw(folder: Path) -> None:
        begun.set()
        assert end.wait(20)
        folder.mkdir()
        for contrast in CONTRASTS:
            (folder / f"Phantom_{sample.SEED:04d}_{contrast}.nii.gz").write_bytes(b"drawn")

    monkeypatch.setattr(sample, "_draw", draw)
    path = "/page/sample/t1.nii.gz"
    with (
        running_api(make_settings(data_dir=tmp_path)) as client,
        ThreadPoolExecutor(1) as elsewhere,
    ):
        first = elsewhere.submit(client.get, path)
        try:
            assert begun.wait(20)
            answer = client.get(path, timeout=5)
        finally:
            end.set()
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
        assert answer.json()["detail"] == "The sample study is being drawn."
        assert first.result().content == client.get(path).content == b"drawn"
