"""The rules, the dashboard and the queries in them, as the tests read them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "docker" / "monitoring"
RULES = sorted((MONITORING / "rules").glob("*.yml"))
CASES = sorted((MONITORING / "tests").glob("*.yml"))
DASHBOARD = json.loads(
    (MONITORING / "grafana" / "dashboards" / "segmamba.json").read_text(encoding="utf-8")
)
METRIC = re.compile(r"\b(segmamba_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def rules() -> Iterator[dict[str, Any]]:
    """Every rule, those that record and those that ring."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def alerts() -> dict[str, dict[str, Any]]:
    """Every rule that rings, by its name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panels() -> list[dict[str, Any]]:
    """Every panel that shows something."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def panel_queries() -> dict[str, str]:
    """The queries of the dashboard, by panel and letter."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in panels()
        for target in panel["targets"]
    }


def expressions() -> dict[str, str]:
    """Every query there is, by what asks it."""
    scaler = yaml.safe_load(
        (ROOT / "k8s" / "overlays" / "scale" / "worker-scaler.yaml").read_text()
    )
    ruled = {rule.get("alert") or rule["record"]: rule["expr"] for rule in rules()}
    (trigger,) = scaler["spec"]["triggers"]
    return {**ruled, **panel_queries(), "ScaledObject": trigger["metadata"]["query"]}


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Each metric in a query, with its matchers: label, operator, value."""
    for name, inner in METRIC.findall(expression):
        yield name, MATCHER.findall(inner)


def documented() -> dict[str, tuple[set[str], str]]:
    """Labels and meaning of each family, as the interface promises them."""
    text = (ROOT / "docs" / "api.md").read_text()
    rows = re.findall(r"^\| `(segmamba_\w+)` \|(.*?)\|(.*)\|$", text, re.MULTILINE)
    return {name: (set(re.findall(r"`(\w+)`", labels)), words) for name, labels, words in rows}


def family(series: str) -> str:
    """The family of a series; a histogram has three kinds of them."""
    known = documented()
    return series if series in known else re.sub(r"_(bucket|count|sum)$", "", series)
