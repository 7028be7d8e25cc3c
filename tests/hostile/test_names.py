"""Names that callers make up for jobs, batches and models name nothing, on either database."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.service.fakes import assert_problem, make_settings, running_api
from tests.service.jobs.conftest import cluster as cluster

NAMES = (
    "%00", "a%00b", "..%2f..%2fetc%2fpasswd", "%ff%fe", "%ed%a0%80", "'%20OR%201=1--", "*", "%25",
    "%0d%0aSet-Cookie:%20a=b", "a" * 5000, "0" * 31, "0" * 33, "0" * 31 + "%0a", "A" * 32,
    "%EF%BC%90" * 32, "-1", "1e9", "None", "{job_id}",
)  # fmt: skip
QUERIES = (
    "before=9223372036854775808", f"before={'9' * 400}", "before=0", "before=-1", "before=1.5",
    "before=%00", "limit=0", "limit=201", f"limit={'9' * 400}", "limit=nan", "batch=%00",
    "batch=a%0a", "batch=", f"batch={'a' * 65}", "batch=%ff", "state=%00", "state=ended", "state=",
)  # fmt: skip


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
)
def client(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """Of an application on an empty database."""
    settings = make_settings()
    if request.param == "postgresql":
        url = request.getfixturevalue("cluster").new_database()
        settings = make_settings(jobs_url=url)
    with running_api(settings) as client:
        yield client


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_cannot_be_one_is_unknown(client: httpx.Client, name: str) -> None:
    for place in ("/jobs/{}", "/jobs/{}/events", "/jobs/{}/result", "/batches/{}", "/models/{}"):
        assert_problem(client.get(place.format(name)), 404, "not-found")
    for place in ("/jobs/{}", "/batches/{}"):
        assert_problem(client.delete(place.format(name)), 404, "not-found")


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_outside_its_values_is_refused(client: httpx.Client, query: str) -> None:
    problem = assert_problem(client.get(f"/jobs?{query}"), 422, "option")
    assert problem["field"] == query.split("=")[0]


def test_the_last_page_has_the_largest_number(client: httpx.Client) -> None:
    answer = client.get("/jobs", params={"before": 2**63 - 1, "batch": "a-_9" * 16})
    assert answer.json() == {"jobs": [], "next": None}
