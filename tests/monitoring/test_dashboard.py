"""The dashboard is one that Grafana can read; how it looks is not judged here."""

from __future__ import annotations

from typing import Any

import pytest

from tests.k8s.overlays import load
from tests.monitoring.watching import (
    DASHBOARD,
    METRIC,
    MONITORING,
    documented,
    expressions,
    family,
    panels,
)

GRAFANA = MONITORING / "grafana"


def test_panels_have_numbers_of_their_own_and_do_not_lie_on_each_other() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers) > 20
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + column, place["y"] + line)
            for column in range(place["w"])
            for line in range(place["h"])
        }
        assert max(column for column, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows_in_which_unit_and_asks_the_chosen_source(
    panel: dict[str, Any],
) -> None:
    assert panel["description"].endswith(".") or panel["description"].endswith(").")
    assert panel["fieldConfig"]["defaults"]["unit"]
    sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
    assert {source["uid"] for source in sources} == {"${datasource}"}
    letters = [target["refId"] for target in panel["targets"]]
    assert letters == sorted(set(letters))
    if panel["type"] in ("stat", "table"):
        assert all(target["instant"] for target in panel["targets"])


def test_the_source_that_panels_ask_is_a_variable_of_the_dashboard() -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["name"], variable["type"]) == ("datasource", "datasource")
    (source,) = load(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")[0]["datasources"]
    assert source["type"] == variable["query"] == "prometheus"


def test_every_family_that_the_service_shows_is_watched() -> None:
    watched = {
        family(name) for query in expressions().values() for name, _ in METRIC.findall(query)
    }
    assert set(documented()) - watched == set()
