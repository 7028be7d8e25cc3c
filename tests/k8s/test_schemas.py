"""Every object is one that a cluster takes, and one that nobody can judge is refused."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest

from tests.k8s.schemas import CRDS, VERSIONS, own_schemas, problem
from tests.k8s.variants import VARIANTS, documents_of, the


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_fits_its_schema(variant: str, version: str) -> None:
    wrong = [words for d in documents_of(variant) if (words := problem(d, version))]
    assert not wrong


def test_an_object_without_a_schema_is_a_failure() -> None:
    stranger = {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "it"}}
    assert problem(stranger, VERSIONS[-1]) == "Thing: no schema for example.org/v1"


@pytest.mark.parametrize(
    ("kind", "name", "place"),
    [
        ("Deployment", "segmamba-worker", ("spec", "template", "spec")),
        ("NetworkPolicy", "segmamba-outward", ("spec",)),
        ("ScaledObject", "segmamba-worker", ("spec",)),
        ("ScaledObject", "segmamba-worker", ("spec", "advanced")),
        ("ServiceMonitor", "segmamba", ("spec", "selector")),
        ("PrometheusRule", "segmamba", ("spec",)),
    ],
)
def test_a_member_that_does_not_exist_is_refused(
    kind: str, name: str, place: tuple[str, ...]
) -> None:
    document = deepcopy(the(documents_of("scale"), kind, name))
    inner: Any = document
    for step in place:
        inner = inner[step]
    inner["replicaz"] = 1
    assert "replicaz" in problem(document, VERSIONS[-1])


@pytest.mark.parametrize("schema", own_schemas().values(), ids=lambda s: s["properties"]["kind"])
def test_a_schema_of_an_operator_leaves_no_member_open(schema: dict[str, Any]) -> None:
    def open_maps(value: Any) -> list[Any]:
        if isinstance(value, list):
            return [found for element in value for found in open_maps(element)]
        if not isinstance(value, dict):
            return []
        here = [value] if "properties" in value and value.get("type") == "object" else []
        here = [v for v in here if v.get("additionalProperties") is not False]
        return here + [found for member in value.values() for found in open_maps(member)]

    assert not open_maps(schema)


def test_each_schema_says_where_it_is_from() -> None:
    for path in CRDS.glob("*.json"):
        assert "crd" in json.loads(path.read_text())["$comment"], path.name
