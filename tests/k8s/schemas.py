"""Whether an object is one that a cluster takes: by the schemas of Kubernetes and of two operators.

An object without a schema is a failure, never a warning: nothing would have looked at it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import jsonschema
import kubernetes_validate

from tests.k8s.merging import Document

CRDS = Path(__file__).parent / "crds"
VERSIONS = ("1.30", kubernetes_validate.latest_version())
"""The oldest that does all that is used, and the newest whose schemas are known."""


@cache
def own_schemas() -> dict[tuple[str, str], Document]:
    """The schemas of objects that Kubernetes itself does not know."""
    found = {}
    for path in CRDS.glob("*.json"):
        schema = json.loads(path.read_text())
        members = schema["properties"]
        found[members["apiVersion"]["const"], members["kind"]["const"]] = schema
    return found


def problem(document: Document, version: str) -> str:
    """What is wrong with an object; empty if nothing is."""
    return _problem(json.dumps(document), version)


@cache
def _problem(text: str, version: str) -> str:
    """Overlays share most of their objects."""
    document = json.loads(text)
    named = document["apiVersion"], document["kind"]
    try:
        if named in own_schemas():
            jsonschema.Draft202012Validator(own_schemas()[named]).validate(document)
        else:
            kubernetes_validate.validate(document, version, strict=True)
    except jsonschema.ValidationError as error:  # the other one's error is its child
        return f"{document['kind']}: {'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        return f"{document['kind']}: no schema for {named[0]}"
    return ""
