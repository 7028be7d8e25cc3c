"""Every query asks for what the service really shows; every alert has its runbook."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.jobs.records import STATES, RetryCause
from service.metrics import STAGE_BUCKETS
from service.problems import HTTP_KINDS, INTERNAL, PROBLEM_TABLE, WORKER_LOST
from tests.k8s.overlays import load
from tests.monitoring.watching import (
    CASES,
    MONITORING,
    ROOT,
    alerts,
    documented,
    expressions,
    family,
    rules,
    selectors,
)
from tests.service.fakes import running_app

ADDED = {"job", "instance", "namespace"}
"""Labels that a scraper adds."""
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()
CAUSES = {kind.cause for kind in (*PROBLEM_TABLE.values(), *HTTP_KINDS.values())} | {
    INTERNAL.cause, WORKER_LOST.cause,
}  # fmt: skip
VALUES: dict[tuple[str, str], set[str]] = {
    ("segmamba_errors_total", "cause"): CAUSES,
    ("segmamba_job_retries_total", "cause"): set(get_args(RetryCause)),
    ("segmamba_jobs_ended_total", "state"): set(STATES),
    ("segmamba_model_swaps_total", "result"): {"ok", "broken"},
    ("segmamba_stage_seconds_bucket", "le"): {str(float(bound)) for bound in STAGE_BUCKETS},
}


@pytest.fixture(scope="module")
def exposed() -> dict[str, set[str]]:
    """The families that a running service shows, with the names of their series."""
    with running_app() as client:
        families = list(text_string_to_metric_families(client.get("/metrics").text))
    endings = {
        "histogram": ("_bucket", "_count", "_sum"),
        "counter": ("_total",),
    }
    return {
        f"{family.name}{ending}": set()
        for family in families
        for ending in endings.get(family.type, ("",))
    }


@pytest.mark.parametrize("asker", expressions())
def test_a_query_asks_for_series_and_labels_that_exist(
    asker: str, exposed: dict[str, set[str]]
) -> None:
    for series, matchers in selectors(expressions()[asker]):
        assert series in exposed
        labels, words = documented()[family(series)]
        for label, operator, value in matchers:
            assert label in labels | ADDED | {"le"}
            known = VALUES.get((series, label))
            for word in value.split("|") if known and operator.startswith("=") else ():
                assert word in known, f"{label} is never {word}"  # type: ignore[operator]
            if label == "stage":
                assert f"`{value}`" in words


def test_recorded_series_are_those_that_are_asked_for() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = {
        name
        for expression in expressions().values()
        for name in re.findall(r"segmamba:\w+:\w+", expression)
    }
    assert asked <= recorded
    assert len(recorded) == 14


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_what_is_wrong_how_urgent_and_where_to_read_on(name: str) -> None:
    alert = alerts()[name]
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["summary"].endswith(".")
    assert alert["annotations"]["runbook"] == f"docs/runbooks.md#{name.lower()}"
    assert f"\n## {name}\n" in RUNBOOKS


def test_the_runbooks_are_those_of_the_alerts_and_each_has_its_three_parts() -> None:
    parts = re.split(r"^## ", RUNBOOKS, flags=re.MULTILINE)[1:]
    assert [part.split("\n")[0] for part in parts] == list(alerts())
    for part in parts:
        for word in ("**Means.**", "**Look.**", "**Do.**"):
            assert word in part, part.split("\n")[0]


def cases() -> list[dict[str, Any]]:
    return [case for path in CASES for case in yaml.safe_load(path.read_text())["tests"]]


@pytest.mark.parametrize("name", alerts())
def test_an_alert_is_tried_where_it_rings_and_where_it_does_not(name: str) -> None:
    def rings(check: dict[str, Any]) -> bool:
        return any(f'"{name}"' in sample["labels"] for sample in check["exp_samples"])

    checks = [
        [check for check in case["promql_expr_test"] if "ALERTS" in check["expr"]]
        for case in cases()
    ]
    assert any(any(map(rings, one)) for one in checks)
    assert any(one and not all(map(rings, one)) for one in checks)


def test_prometheus_reads_the_rules_and_scrapes_under_the_name_that_they_ask_for() -> None:
    (config,) = load(MONITORING / "prometheus.yml")
    assert config["rule_files"] == ["rules/*.yml"]
    (scrape,) = config["scrape_configs"]
    asked = {
        value
        for expression in expressions().values()
        for value in re.findall(r'\bjob="(\w+)"', expression)
    }
    assert asked == {scrape["job_name"]}
