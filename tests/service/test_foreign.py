"""Pages of other sites get nowhere through a browser where no key stands in their way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest

from service.auth.guard import Guard
from service.auth.keys import KeyStore
from tests.service.fakes import (
    assert_problem,
    make_settings,
    running_api,
    service_of,
    study_files,
)

EVIL = "evil.example"
CROSS = {"Sec-Fetch-Site": "cross-site", "Origin": f"https://{EVIL}"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """On loopback, without keys."""
    with running_api() as client:
        yield client


@contextmanager
def with_keys(**settings: Any) -> Iterator[httpx.Client]:
    """On loopback, where callers need a key; the client has one."""
    with running_api(make_settings(**settings)) as client:
        keys = KeyStore(service_of(client).engine.database)
        _, key = keys.create("a", scopes=["segment"])
        client.__dict__["app"].state.guard = Guard("keys", keys=keys)
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


def by(client: httpx.Client, host: str, path: str = "/jobs") -> httpx.Response:
    return client.get(path, headers={"Host": host})


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:9999", "127.8.9.1", "[::1]", "[::1]:1"],
)
def test_names_of_loopback_are_this_service(client: httpx.Client, host: str) -> None:
    assert by(client, host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        EVIL, f"{EVIL}:8000", f"127.0.0.1.{EVIL}", f"localhost.{EVIL}", "192.0.2.1", "0.0.0.0",
        "[2001:db8::1]", "2130706433", f"a@{EVIL}", "127.0.0.1@x", "127.0.0.1#", "[::1", "",
    ],
)  # fmt: skip
def test_a_name_that_leads_here_from_elsewhere_is_refused(client: httpx.Client, host: str) -> None:
    assert_problem(by(client, host), 421, "foreign-host")


def test_it_is_refused_at_every_door_and_nothing_is_told(client: httpx.Client) -> None:
    for path in client.get("/openapi.json").json()["paths"]:
        refused = assert_problem(by(client, EVIL, path), 421, "foreign-host")
        assert EVIL not in str(refused)


def test_a_request_without_a_name_is_refused(client: httpx.Client) -> None:
    connection = HTTPConnection(client.base_url.host, client.base_url.port, timeout=10)
    connection.putrequest("GET", "/jobs", skip_host=True)
    connection._http_vsn_str = "HTTP/1.0"  # type: ignore[attr-defined]
    connection.endheaders()
    assert connection.getresponse().status in (400, 421)
    connection.close()


def test_other_names_may_be_listed() -> None:
    with running_api(make_settings(allowed_hosts="viewer.example")) as client:
        assert by(client, "Viewer.Example:443").status_code == 200
        assert by(client, "localhost").status_code == 200
        assert_problem(by(client, EVIL), 421, "foreign-host")


def test_with_keys_every_name_is_taken_unless_some_are_listed() -> None:
    with with_keys() as client:
        assert by(client, EVIL).status_code == 200
    with with_keys(allowed_hosts="viewer.example") as client:
        assert by(client, "viewer.example").status_code == 200
        assert_problem(by(client, EVIL), 421, "foreign-host")


def test_on_another_address_every_name_is_taken() -> None:
    settings = make_settings(host="0.0.0.0", auth="off", allow_unauthenticated=True)
    with running_api(settings) as client:
        assert by(client, "segmamba.example").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        CROSS,
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
        {"Origin": f"https://{EVIL}"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_a_foreign_pages_form_is_refused_and_makes_no_job(
    client: httpx.Client, headers: dict[str, str]
) -> None:
    before = client.get("/jobs").json()
    for path in ("/jobs", "/segment"):
        answer = client.post(path, files=study_files(), headers=headers)
        assert_problem(answer, 403, "foreign-origin")
    assert client.get("/jobs").json() == before


def test_a_foreign_page_cancels_and_deletes_nothing(client: httpx.Client) -> None:
    job = client.post("/jobs", files=study_files()).json()["links"]["self"]
    assert_problem(client.delete(job, headers=CROSS), 403, "foreign-origin")
    assert_problem(client.post(f"{job}/cancel", headers=CROSS), 403, "foreign-origin")
    assert client.get(job).json()["state"] == "queued"
    assert client.delete(job).status_code == 202


def test_programs_and_the_services_own_pages_may_post(client: httpx.Client) -> None:
    own = f"http://127.0.0.1:{client.base_url.port}"
    for headers in (
        {},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": own},
        {"Origin": own},
    ):
        assert client.post("/jobs", files=study_files(), headers=headers).status_code == 202


def test_a_listed_page_may_post() -> None:
    with running_api(make_settings(cors_origins=f"https://{EVIL}")) as client:
        assert client.post("/jobs", files=study_files(), headers=CROSS).status_code == 202
        other = {**CROSS, "Origin": "https://other.example"}
        assert_problem(client.post("/jobs", files=study_files(), headers=other), 403,
                       "foreign-origin")  # fmt: skip


def test_where_a_key_is_needed_no_page_has_one_by_itself() -> None:
    with with_keys() as client:
        assert client.post("/jobs", files=study_files(), headers=CROSS).status_code == 202
        del client.headers["Authorization"]
        assert_problem(
            client.post("/jobs", files=study_files(), headers=CROSS), 401, "unauthenticated"
        )
