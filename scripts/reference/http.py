"""The reference of the HTTP interface, from the OpenAPI document that the service itself gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from scripts.reference.markdown import anchor, table

HEAD: Final = """# The HTTP interface, route by route

Made by `make reference` from `/openapi.json`. What can be relied on, with examples, is told in
[the interface](../api.md); problems and their causes in [its table](../api.md#errors).
"""
PROBLEM: Final = "#/components/schemas/Problem"
Json = Mapping[str, Any]


def page() -> str:
    """All routes, then all schemas."""
    from service.app import create_app
    from service.settings import Settings

    document = create_app(Settings()).openapi()
    forms: dict[str, str] = {}
    parts = [HEAD.rstrip()]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            name = f"{method.upper()} {path}"
            parts += [part.rstrip() for part in _operation(name, operation, forms) if part]
    parts.append("## Schemas")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts += [part.rstrip() for part in _schema(name, schema) if part]
    return "\n\n".join(parts) + "\n"


def _operation(name: str, operation: Json, forms: dict[str, str]) -> Iterator[str]:
    yield f"## {name}"
    stop = "" if operation["summary"].endswith("?") else "."
    yield f"**{operation['summary']}{stop}** {operation.get('description', '')}"
    if operation.get("security"):
        yield "Asks for a key or a token where the service is set up to."
    rows = [
        (f"`{given['name']}`", given["in"], _kind(given["schema"]), given.get("description", ""))
        for given in operation.get("parameters", [])
    ]
    yield table(("Parameter", "In", "Type", ""), rows) if rows else ""
    yield from _body(name, operation, forms)
    yield table(("Answer", "Content", ""), map(_answer, operation["responses"].items()))


def _body(name: str, operation: Json, forms: dict[str, str]) -> Iterator[str]:
    content = operation.get("requestBody", {}).get("content", {})
    for media, given in content.items():
        schema = given["schema"]
        rows = [_property(item, schema) for item in schema.get("properties", {}).items()]
        fields = table((f"Field of `{media}`", "Type", ""), rows)
        if fields in forms:
            yield f"The form of [{forms[fields]}](#{anchor(forms[fields])})."
            continue
        forms[fields] = name
        yield fields
        yield _ways(schema)


def _ways(schema: Json) -> str:
    ways = [", ".join(f"`{name}`" for name in way["required"]) for way in schema.get("oneOf", [])]
    return f"Required: {'; or '.join(ways)}." if ways else ""


def _answer(item: tuple[str, Json]) -> tuple[str, str, str]:
    status, response = item
    content = response.get("content", {})
    kinds = [_media(media, given.get("schema", {})) for media, given in content.items()]
    causes = [cause for given in content.values() for cause in given.get("examples", {})]
    headers = [f"`{name}`" for name in response.get("headers", {})]
    parts = [
        response["description"].rstrip("."),
        f"causes {', '.join(f'`{cause}`' for cause in causes)}"
        if causes and _fails(status)
        else "",
        f"headers {', '.join(headers)}" if headers else "",
    ]
    return status, ", ".join(kinds), "; ".join(part for part in parts if part)


def _fails(status: str) -> bool:
    return status[0] in "45"


def _media(media: str, schema: Json) -> str:
    if schema.get("$ref") == PROBLEM:
        return "[problem](#problem)"
    kind = _kind(schema)
    return f"`{media}`" + (f": {kind}" if kind.startswith("[") else "")


def _kind(schema: Json) -> str:
    """A schema in a few words; one with a name of its own leads to it."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{anchor(name)})"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if schema.get("pattern"):
        return f"{schema['type']} `{schema['pattern']}`"
    words = (str(schema.get("type", "any")), str(schema.get("format", "")))
    return " ".join(word for word in words if word)


def _property(item: tuple[str, Json], parent: Json) -> tuple[str, str, str]:
    name, schema = item
    needed = "" if name in parent.get("required", ()) or "oneOf" in parent else " (optional)"
    return f"`{name}`", _kind(schema) + needed, schema.get("description", "")


def _schema(name: str, schema: Json) -> Iterator[str]:
    yield f"### {name}"
    yield schema.get("description", "")
    rows = [_property(item, schema) for item in schema.get("properties", {}).items()]
    yield table(("Member", "Type", ""), rows) if rows else ""
