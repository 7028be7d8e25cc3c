"""One table answers every exception, in one shape, and says nothing that it should not."""

from __future__ import annotations

import errno
import inspect
import json
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from model_core import errors as core
from service import errors
from service.jobs.blobs import StorageUnreachableError
from service.openapi import kinds_by_cause
from service.problems import INTERNAL, PROBLEM_TABLE, problem_kind, problem_response
from tests.service.fakes import FakeSegmenter, assert_problem, running_app, study_files

API_PAGE = Path(__file__).parents[2] / "docs" / "api.md"

TREE = [
    kind
    for module in (core, errors)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, core.SegMambaError)
    and kind not in (core.SegMambaError, errors.ServiceError, errors.UnavailableError)
]


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_of_the_tree_has_an_answer(kind: type[Exception]) -> None:
    row = problem_kind(kind.__new__(kind))
    assert row is not INTERNAL
    assert 400 <= row.status < 600


@pytest.mark.parametrize(
    ("error", "status", "cause"),
    [
        (core.BundleError("the tensor x"), 500, "model"),
        (core.InputError("a", expected="b", got="c", way_out="d"), 422, "input"),
        (core.ImageError("a", expected="b", got="c", way_out="d"), 422, "image"),
        (core.NumericalError("window 3"), 500, "numerical"),
        (MemoryError(), 503, "out-of-memory"),
        (core.KernelMemoryError("scratch"), 503, "out-of-memory"),
        (RecursionError("deep"), 500, "internal"),
        (errors.QueueFullError("full", retry_after=7), 429, "queue-full"),
        (sa.exc.OperationalError("SELECT", {}, Exception()), 503, "database"),
        (sa.exc.InterfaceError("SELECT", {}, Exception()), 503, "database"),
        (sa.exc.TimeoutError(), 503, "database"),
        (sa.exc.ProgrammingError("SELEC", {}, Exception()), 500, "internal"),
        (StorageUnreachableError("EndpointConnectionError"), 503, "storage"),
        (OSError(), 500, "internal"),
    ],
)
def test_the_nearest_ancestor_speaks(error: Exception, status: int, cause: str) -> None:
    row = problem_kind(error)
    assert (row.status, row.cause) == (status, cause)


def test_an_input_error_keeps_its_four_parts() -> None:
    response = problem_response(core.StudyError("t2", expected="b", got="c", way_out="d"))
    problem = json.loads(bytes(response.body))
    assert [problem[key] for key in ("field", "expected", "got", "way_out")] == [
        "t2",
        "b",
        "c",
        "d",
    ]


def test_unavailable_says_when_to_come_back() -> None:
    response = problem_response(errors.QueueFullError("full", retry_after=17))
    assert response.headers["retry-after"] == "17"


@pytest.mark.parametrize(
    "error",
    [sa.exc.OperationalError("SELECT", {}, Exception("secret")), StorageUnreachableError("secret")],
)
def test_what_is_away_is_said_to_be_back_soon_and_no_more(error: Exception) -> None:
    response = problem_response(error)
    assert response.headers["retry-after"] == "5"
    assert b"secret" not in bytes(response.body)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_our_own_words_and_logged(
    number: int, caplog: pytest.LogCaptureFixture
) -> None:
    response = problem_response(OSError(number, "No space left on device", "/data/secret"))
    problem = json.loads(bytes(response.body))
    assert (problem["status"], problem["type"]) == (507, "urn:segmamba:problem:storage-full")
    assert response.headers["retry-after"] == "600"
    assert "secret" not in str(problem)
    [told] = caplog.records
    assert (told.__dict__["cause"], told.__dict__["exception"]) == ("storage-full", "OSError")


def test_causes_tell_kinds_apart() -> None:
    shared = {kind.cause for kind in PROBLEM_TABLE.values()}
    # three ways to be short of memory are one cause on purpose, and three of a database to be away
    assert len(shared) == len(PROBLEM_TABLE) - 4


@pytest.mark.parametrize("cause", sorted(kinds_by_cause()))
def test_every_cause_is_documented_with_its_status(cause: str) -> None:
    kind = kinds_by_cause()[cause]
    rows = [line for line in API_PAGE.read_text("utf-8").splitlines() if f"`{cause}`" in line]
    assert any(f"| {kind.status} |" in row for row in rows)


class Broken(FakeSegmenter):
    """Fails with an error of choice once it is warm."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(on_window=self.fail)
        self.error = error

    def fail(self, _number: int) -> None:
        raise self.error


SECRET = "JANE_DOE /data/patients/1970"


@pytest.mark.parametrize(
    ("error", "status", "cause"),
    [
        (ValueError(SECRET), 500, "internal"),
        (SystemExit(SECRET), 500, "internal"),
        (core.BundleError(SECRET), 500, "model"),
        (core.BackendError(SECRET), 500, "backend"),
        (MemoryError(SECRET), 503, "out-of-memory"),
        (core.NumericalError("window 2 of 8 holds NaN"), 500, "numerical"),
        (core.ShapeError("sides are multiples of 16"), 422, "shape"),
    ],
)
def test_an_inference_that_fails_is_answered_and_the_next_one_runs(
    error: BaseException, status: int, cause: str, capfd: pytest.CaptureFixture[str]
) -> None:
    segmenter = Broken(error)
    with running_app(segmenter) as client:
        response = client.post("/segment", files=study_files())
        assert_problem(response, status, cause)
        assert SECRET not in response.text
        segmenter.on_window = lambda _number: None
        assert client.post("/segment", files=study_files()).status_code == 200
    printed = capfd.readouterr()
    assert SECRET not in printed.out + printed.err


@pytest.mark.parametrize("path", ["/nothing", "/segment/x", "/models/none", "/health", "/%00"])
def test_an_unknown_address_is_a_problem(small: httpx.Client, path: str) -> None:
    assert_problem(small.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/segment", "POST"),
        ("DELETE", "/models", "GET"),
        ("POST", "/metrics", "GET"),
        ("PUT", "/jobs", "GET, POST"),
        ("OPTIONS", f"/jobs/{'0' * 32}", "GET, DELETE"),
        ("FOO", "/openapi.json", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_a_problem(
    small: httpx.Client, method: str, path: str, allowed: str
) -> None:
    response = small.request(method, path)
    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("accept", ["text/html", "application/problem+json"])
def test_an_impossible_accept_is_a_problem(small: httpx.Client, accept: str) -> None:
    response = small.post("/segment", files=study_files(), headers={"Accept": accept})
    assert_problem(response, 406, "not-acceptable")


def test_another_media_type_is_a_problem(small: httpx.Client) -> None:
    assert_problem(small.post("/segment", json={}), 415, "unsupported-media-type")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tta", "FULL"),
        ("label_scheme", "brats2019"),
        ("postprocess", "perhaps"),
        ("model", "../../etc"),
    ],
)
def test_an_option_outside_its_values_is_named(small: httpx.Client, field: str, value: str) -> None:
    response = small.post("/segment", files=study_files(), data={field: value})
    problem = assert_problem(response, 422, "option")
    assert problem["field"] == field
    assert value not in response.text
