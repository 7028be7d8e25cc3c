"""What an overlay amounts to: its resources, components and patches resolved, without kustomize.

A file, a patch target or a generated map that is missing is an error here, as it is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.k8s.merging import Document, merge, operate

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "k8s"
OVERLAYS = sorted(path.parent for path in MANIFESTS.glob("overlays/*/kustomization.yaml"))
COMPONENTS = sorted(path.parent for path in MANIFESTS.glob("components/*/kustomization.yaml"))
CLUSTER_WIDE = {"Namespace"}
KNOWN = {
    "apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator", "patches",
    "images",
}  # fmt: skip


class UnresolvedError(Exception):
    """An overlay names something that is not there."""


def name_of(path: Path) -> str:
    return path.name


def load(path: Path) -> list[Document]:
    """The documents of a YAML file."""
    if not path.is_file():
        raise UnresolvedError(f"no such file: {path}")
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def resolve(folder: Path, documents: list[Document] | None = None) -> list[Document]:
    """The objects of a kustomization, or what a component makes of those that are there.

    Raises:
        UnresolvedError: a resource, a patch's target or a map to merge with is missing.
    """
    (plan,) = load(folder / "kustomization.yaml")
    assert set(plan) <= KNOWN, f"{folder}: this resolver knows no {sorted(set(plan) - KNOWN)}"
    found = list(documents or [])
    for place in plan.get("resources", ()):
        path = folder / place
        found += resolve(path) if path.is_dir() else load(path)
    found = _generated(plan, folder, found)
    for place in plan.get("components", ()):
        found = resolve(folder / place, found)
    for patch in plan.get("patches", ()):
        found = _patched(patch, folder, found)
    return [_finished(document, plan) for document in found]


def _generated(plan: Document, folder: Path, documents: list[Document]) -> list[Document]:
    """Maps of settings, without the hash that kustomize adds to their names."""
    found = list(documents)
    for wish in plan.get("configMapGenerator", ()):
        data = dict(line.split("=", 1) for line in wish.get("literals", ()))
        data |= {place: (folder / place).read_text() for place in wish.get("files", ())}
        if wish.get("behavior") == "merge":
            (old,) = _targets({"kind": "ConfigMap", "name": wish["name"]}, found)
            found[found.index(old)] = {**old, "data": {**old["data"], **data}}
        else:
            metadata = {"name": wish["name"]}
            found.append(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
            )
    return found


def _patched(patch: Document, folder: Path, documents: list[Document]) -> list[Document]:
    change: Any = (
        yaml.safe_load(patch["patch"]) if "patch" in patch else load(folder / patch["path"])[0]
    )
    wanted = patch.get("target") or {"kind": change["kind"], **change["metadata"]}
    found = []
    targets = _targets(wanted, documents)
    for document in documents:
        if document not in targets:
            found.append(document)
        elif isinstance(change, list):
            found.append(operate(document, change))
        elif change.get("$patch") != "delete":
            found.append(merge(document, change))
    return found


def _targets(wanted: Document, documents: list[Document]) -> list[Document]:
    """Those that a patch means: by kind, by a pattern of names, by namespace where it is said."""
    found = [
        document
        for document in documents
        if document["kind"] == wanted["kind"]
        and re.fullmatch(wanted["name"], document["metadata"]["name"])
        and wanted.get("namespace") in (None, document["metadata"].get("namespace"))
    ]
    if not found:
        raise UnresolvedError(f"no {wanted['kind']} {wanted['name']} to patch")
    return found


def _finished(document: Document, plan: Document) -> Document:
    namespace = plan.get("namespace")
    if namespace and document["kind"] not in CLUSTER_WIDE:
        metadata = {**document["metadata"], "namespace": namespace}
        document = {**document, "metadata": metadata}
    for image in plan.get("images", ()):
        for container in containers(document):
            if container["image"] == image["name"]:
                container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
    return document


def pod_of(document: Document) -> Document | None:
    """The pod that a workload starts."""
    if document["kind"] == "Pod":
        return dict(document["spec"])
    pod: Document | None = document.get("spec", {}).get("template", {}).get("spec")
    return pod


def containers(document: Document) -> Iterator[Document]:
    """Every container of a workload, those that start first among them."""
    pod = pod_of(document) or {}
    yield from pod.get("initContainers", ())
    yield from pod.get("containers", ())


def settings_of(container: Document, documents: list[Document]) -> dict[str, str]:
    """The variables of a container that have their value in the manifests."""
    maps = {d["metadata"]["name"]: d["data"] for d in documents if d["kind"] == "ConfigMap"}
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        if "configMapRef" in source:
            found |= maps[source["configMapRef"]["name"]]
    return found | {v["name"]: v["value"] for v in container.get("env", ()) if "value" in v}
