"""A form is read under caps, whatever its chunks, and refused at the first thing wrong."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from service.errors import MalformedUploadError, UnsupportedMediaError
from service.form import UploadLimits
from service.uploads import read_segment_form
from tests.service.fakes import (
    assert_problem,
    image_bytes,
    make_settings,
    metric,
    running_api,
    running_app,
    service_of,
    study_files,
    wait_until,
)


class Read(NamedTuple):
    """What was read of a form."""

    images: Mapping[str, bytes]
    options: Mapping[str, str]


LIMITS = UploadLimits(body_bytes=10_000, file_bytes=4_000, seconds=5)
BOUNDARY = "xYz-boundary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str, data: bytes, filename: str | None = "scan.nii.gz") -> bytes:
    named = f'; filename="{filename}"' if filename else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + data + b"\r\n"


def body_of(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def read(chunks: list[bytes], *, content_type: str = CONTENT_TYPE, gone: bool = False) -> Read:
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.disconnect"} if gone else {"type": "http.request", "body": b""})

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    headers = [(b"content-type", content_type.encode())]
    scope = {"type": "http", "method": "POST", "path": "/segment", "headers": headers}

    async def whole() -> Read:
        async with read_segment_form(Request(scope, receive), LIMITS, spooled) as form:
            images = {name: image.path.read_bytes() for name, image in form.images.items()}
            for name, image in form.images.items():
                assert image.sha256 == hashlib.sha256(images[name]).hexdigest()
                assert image.size == len(images[name])
                assert image.path.stat().st_mode & 0o077 == 0
            return Read(images, form.options)

    with tempfile.TemporaryDirectory() as spool:

        def spooled() -> Path:
            return Path(spool) / uuid4().hex

        try:
            return asyncio.run(whole())
        finally:
            assert list(Path(spool).iterdir()) == [], "nothing stays in the spool"


IMAGES = {"t1": b"one", "t1ce": b"\r\n--two", "t2": b"\x00\xff" * 40, "flair": b"\r\n\r\n"}
WHOLE = body_of(*(part(name, data) for name, data in IMAGES.items()), part("tta", b"fast", None))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(WHOLE)), max_size=12))
def test_the_form_does_not_depend_on_how_the_network_cuts_it(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    chunks = [WHOLE[a:b] for a, b in itertools.pairwise(edges)]
    form = read(chunks)
    assert form.images == IMAGES
    assert form.options == {"tta": "fast"}


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_never_raise_anything_but_a_refusal(noise: bytes) -> None:
    with pytest.raises(MalformedUploadError):
        read([noise])


@pytest.mark.parametrize("end", range(1, len(WHOLE) - 4, 29))
def test_a_body_that_ends_early_is_refused(end: int) -> None:
    with pytest.raises(MalformedUploadError):
        read([WHOLE[:end]])


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "application/x-www-form-urlencoded", "text/plain"]
)
def test_another_media_type_is_refused(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaError):
        read([WHOLE], content_type=content_type)


@pytest.mark.parametrize("boundary", ["", "; boundary=", "; boundary=" + 300 * "x"])
def test_a_boundary_that_cannot_be_is_refused(boundary: str) -> None:
    with pytest.raises(MalformedUploadError):
        read([WHOLE], content_type="multipart/form-data" + boundary)


def test_a_caller_who_goes_away_is_no_malformed_upload() -> None:
    with pytest.raises(ClientDisconnect):
        read([WHOLE[:50]], gone=True)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    limits = make_settings(max_upload_mb=2, max_file_mb=1)
    with running_app(settings=limits) as client:
        yield client


def send(client: httpx.Client, body: bytes, content_type: str = CONTENT_TYPE) -> httpx.Response:
    return client.post("/segment", content=body, headers={"Content-Type": content_type})


@pytest.mark.parametrize("contrast", ["t1", "t1ce", "t2", "flair"])
def test_a_missing_image_is_named(client: httpx.Client, contrast: str) -> None:
    response = client.post("/segment", files=study_files(**{contrast: None}))
    problem = assert_problem(response, 422, "input")
    assert problem["field"] == contrast
    assert problem["got"] == "no such field"


def test_an_empty_image_is_named(client: httpx.Client) -> None:
    problem = assert_problem(client.post("/segment", files=study_files(t2=b"")), 422, "input")
    assert (problem["field"], problem["got"]) == ("t2", "an empty file")


def test_a_repeated_field_is_named(client: httpx.Client) -> None:
    files = [*study_files(), ("t1ce", ("again.nii.gz", image_bytes()))]
    problem = assert_problem(client.post("/segment", files=files), 422, "option")
    assert problem["field"] == "t1ce"
    assert "twice" in problem["got"]


def test_an_unknown_field_is_refused_without_repeating_its_name(client: httpx.Client) -> None:
    files = [*study_files(), ("JANE_DOE", ("x.nii.gz", image_bytes()))]
    response = client.post("/segment", files=files)
    problem = assert_problem(response, 422, "option")
    assert "t1, t1ce, t2, flair" in problem["expected"]
    assert "JANE" not in response.text


def test_an_image_beyond_its_cap_is_named(client: httpx.Client) -> None:
    files = study_files(flair=bytes(1024 * 1024 + 1))
    problem = assert_problem(client.post("/segment", files=files), 413, "upload-too-large")
    assert (problem["field"], problem["expected"]) == ("flair", "at most 1 MiB")


def test_an_option_beyond_its_cap_is_named(client: httpx.Client) -> None:
    response = client.post("/segment", files=study_files(), data={"tta": "x" * 5000})
    assert assert_problem(response, 413, "upload-too-large")["field"] == "tta"


def test_a_body_beyond_its_cap_is_refused_by_its_declared_length(client: httpx.Client) -> None:
    response = send(client, part("t1", bytes(3 * 1024 * 1024)))
    assert assert_problem(response, 413, "upload-too-large")["field"] == "body"


def test_a_body_beyond_its_cap_is_refused_while_it_streams(client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"preamble"
        for _ in range(48):
            yield bytes(64 * 1024)

    response = client.post("/segment", content=chunks(), headers={"Content-Type": CONTENT_TYPE})
    assert response.status_code in (400, 413)  # no boundary at the start is broken framing too
    many = b"".join(part(name, bytes(1000 * 1024)) for name in ("t1", "t1ce", "t2"))
    response = client.post("/segment", content=iter([many]), headers={"Content-Type": CONTENT_TYPE})
    assert assert_problem(response, 413, "upload-too-large")["field"] == "body"


def test_too_many_part_headers_are_refused(client: httpx.Client) -> None:
    head = "".join(f"X-{number}: y\r\n" for number in range(200))
    body = f"--{BOUNDARY}\r\n{head}\r\n".encode()
    assert_problem(send(client, body), 400, "malformed-upload")


def test_an_upload_that_takes_too_long_is_ended() -> None:
    with running_api(make_settings(upload_seconds=1)) as client:
        with start_upload(client) as raw:
            answer = raw.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408")
        wait_until(lambda: metric(client, 'segmamba_errors_total{cause="upload-timeout"}') == 1)
        assert files_of(client) == []


def test_a_caller_who_goes_away_during_the_upload_leaves_nothing(client: httpx.Client) -> None:
    cause = 'segmamba_errors_total{cause="client-disconnected"}'
    before, kept = metric(client, cause), files_of(client)
    with start_upload(client):
        pass
    wait_until(lambda: metric(client, cause) > before)
    assert files_of(client) == kept
    assert client.post("/segment", files=study_files()).status_code == 200


def test_an_upload_that_finds_the_disk_full_is_told_so_and_leaves_nothing(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, kept = os.open, files_of(client)

    def onto_a_full_disk(path: Path, flags: int, mode: int) -> int:
        os.close(really(path, flags, mode))
        return really("/dev/full", os.O_WRONLY)

    monkeypatch.setattr("service.form_reader.os.open", onto_a_full_disk)
    for content in (image_bytes(), bytes(100_000)):  # noticed when the file is closed, and at once
        response = client.post("/segment", files=study_files(t1=content))
        assert_problem(response, 507, "storage-full")
    assert files_of(client) == kept


def test_uploads_on_their_way_are_promised_room(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, both = files_of(client), 100 + 5000 + len(WHOLE)
    free = 512 * 1024 * 1024 + both - 1  # for either of them
    monkeypatch.setattr(service_of(client).room, "_free", lambda: free)
    with start_upload(client, WHOLE[:100]):
        wait_until(lambda: len(files_of(client)) == len(kept) + 1)
        assert_problem(send(client, WHOLE), 507, "storage-full")
    wait_until(lambda: files_of(client) == kept)
    assert send(client, WHOLE).status_code == 422, "there is room again, and these are no images"


def test_a_body_of_unknown_length_is_promised_the_most_that_is_taken(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_of(client).room, "_free", lambda: (512 + 1) * 1024 * 1024)
    type_only = {"Content-Type": CONTENT_TYPE}
    for path, status in (("/segment", 422), ("/inspect", 200)):
        response = client.post(path, content=iter([WHOLE]), headers=type_only)
        assert_problem(response, 507, "storage-full")
        assert client.post(path, content=WHOLE, headers=type_only).status_code == status


def test_images_are_gone_when_their_job_has_ended(client: httpx.Client) -> None:
    assert client.post("/segment", files=study_files(), data={"cache": "false"}).status_code == 200
    wait_until(lambda: all("results" in path.parts for path in files_of(client)))


def test_images_on_their_way_lie_on_the_data_disk_and_nowhere_else(
    client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    service = service_of(client)
    kept = files_of(client)
    with start_upload(client, part("t1", bytes(100_000))):
        wait_until(lambda: len(files_of(client)) == len(kept) + 1)
        (new,) = set(files_of(client)) - set(kept)
        assert new.parent == service.blobs.spool
        assert new.is_relative_to(service.settings.data_dir)
        assert new.stat().st_dev == Path(service.settings.storage_url).stat().st_dev
    wait_until(lambda: files_of(client) == kept)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x", "t1"])
def test_a_thousand_images_are_refused_at_the_first_that_is_too_many(
    client: httpx.Client, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, made = service_of(client).blobs, list[Path]()

    def spooled() -> Path:
        made.append(blobs.spool / uuid4().hex)
        return made[-1]

    monkeypatch.setattr(blobs, "spooled", spooled)
    body = part("t1", b"x") + body_of(*[part(name, b"x")] * 1000)
    assert_problem(send(client, body), 422, "option")
    assert len(made) == 1
    assert not made[0].exists()


def test_a_file_name_is_never_a_path(client: httpx.Client, tmp_path: Path) -> None:
    kept = files_of(client)
    aims = [tmp_path / "absolute", service_of(client).blobs.spool / "climbed"]
    for aim, name in zip(aims, (str(aims[0]), "../.spool/climbed"), strict=True):
        parts = [part(contrast, image_bytes(), name) for contrast in IMAGES]
        response = send(client, body_of(*parts, part("cache", b"false", None)))
        assert response.status_code == 200, response.text
        assert not aim.exists()
        assert "climbed" not in str(response.headers)
    wait_until(lambda: all("results" in path.parts for path in files_of(client)))
    assert len(files_of(client)) == len(kept) + 4  # a label map and an archive each


def files_of(client: httpx.Client) -> list[Path]:
    """All files that the service keeps, the database aside."""
    blobs = Path(service_of(client).settings.storage_url)
    return sorted(path for path in blobs.rglob("*") if path.is_file())


def start_upload(client: httpx.Client, sent: bytes = b"") -> socket.socket:
    """Send the beginning of a form and no more, and announce 5000 bytes beyond."""
    start = sent or f"--{BOUNDARY}\r\n".encode()
    url = client.base_url
    raw = socket.create_connection((url.host, url.port or 80), timeout=20)
    raw.sendall(
        f"POST /segment HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: {CONTENT_TYPE}\r\n"
        f"Content-Length: {len(start) + 5000}\r\n\r\n".encode()
        + start
    )
    return raw
