"""The two kinds of patches that the overlays use: strategic merges, and lists of operations.

Only what is needed is known, and anything else is refused. What these functions make
is compared with what a real kustomize makes, wherever there is one.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

Document = dict[str, Any]

MERGED_BY = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}
"""Lists that Kubernetes merges, and by which member; every other list is replaced as a whole."""


def merge(base: Any, patch: Any, *, field: str = "") -> Any:
    """What a strategic merge patch leaves of a value."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return _merge_maps(base, patch)
    if isinstance(base, list) and isinstance(patch, list) and field in MERGED_BY:
        return _merge_lists(base, patch, key=MERGED_BY[field])
    return deepcopy(patch)


def _merge_maps(base: Document, patch: Document) -> Document:
    assert not any(name.startswith("$") for name in patch), f"an unknown directive: {patch}"
    merged = dict(base)
    for name, value in patch.items():
        merged[name] = merge(base[name], value, field=name) if name in base else _new(value)
    return {name: value for name, value in merged.items() if value is not None}


def _merge_lists(base: list[Any], patch: list[Any], *, key: str) -> list[Any]:
    """New elements come first, as kustomize has it."""
    merged = {element[key]: element for element in base}
    new = []
    for change in patch:
        known = merged.get(change[key])
        if change.get("$patch") == "delete":
            assert known is not None, f"nothing to delete: {change}"
            del merged[change[key]]
        elif known is None:
            new.append(_new(change))
        else:
            merged[change[key]] = merge(known, change)
    return [*new, *merged.values()]


def _new(value: Any) -> Any:
    """A value that is not there yet; a directive would have nothing to act on."""
    assert "$patch" not in str(value), f"nothing to patch: {value}"
    return deepcopy(value)


def operate(base: Document, operations: list[Document]) -> Document:
    """What a list of operations (RFC 6902) leaves; only removals of members are known."""
    changed = deepcopy(base)
    for operation in operations:
        assert operation["op"] == "remove", f"an unknown operation: {operation}"
        *way, last = operation["path"].lstrip("/").split("/")
        holder: Any = changed
        for name in way:
            holder = holder[name]
        del holder[last]  # a KeyError says that the target has no such member
    return changed
