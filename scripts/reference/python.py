"""The reference of the two doors for Python programs, from signatures and docstrings."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from scripts.reference.markdown import anchor, cell, first_sentence, from_docstring, table

HEAD: Final = """# Python

Made by `make reference` from signatures and docstrings. These names are the supported interface
([what that promises](../releases.md#what-is-promised)); all others may change with any release.

"""
DOORS: Final = ("model_core", "service.client")
TYPES: Final = "model_core.types"
WIDTH: Final = 88


def page() -> str:
    """Both doors."""
    return HEAD + "\n".join(_door(import_module(name)) for name in DOORS) + _words()


def _door(module: ModuleType) -> str:
    names = [name for name in module.__all__ if name != "__version__"]
    rows = [
        (f"[`{name}`](#{anchor(name)})", first_sentence(_doc(getattr(module, name))))
        for name in names
    ]
    parts = [f"## {module.__name__}", from_docstring(module.__doc__), table(("Name", ""), rows)]
    parts += [_entry(name, getattr(module, name)) for name in names]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _words() -> str:
    """The aliases that signatures use, with what they stand for."""
    tree = ast.parse(inspect.getsource(import_module(TYPES)))
    rows = [
        (f"`{node.targets[0].id}`", f"`{ast.unparse(node.value)}`", _explained(after))
        for node, after in zip(tree.body, [*tree.body[1:], None], strict=True)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    ]
    return f"\n## Words in signatures\n\nFrom `{TYPES}`.\n\n{table(('Name', 'Is', ''), rows)}"


def _explained(node: ast.stmt | None) -> str:
    """The string that stands below a name in a source, if there is one."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return cell(str(node.value.value).replace("``", "`"))
    return ""


def _doc(thing: Any) -> str:
    return inspect.cleandoc(thing.__doc__ or "").split("\n\n")[0].replace("``", "`")


def _entry(name: str, thing: Any) -> str:
    parts = [f"### {name}", _made(name, thing), from_docstring(thing.__doc__)]
    if not inspect.isclass(thing):
        return "\n\n".join(parts)
    if "\nAttributes:" not in inspect.cleandoc(thing.__doc__ or ""):
        parts.append(_fields(thing))
    parts += list(_members(name, thing))
    return "\n\n".join(part.rstrip() for part in parts if part)


def _made(name: str, thing: Any) -> str:
    """How it is called or made; what is validated field by field has a table instead."""
    if inspect.isclass(thing) and issubclass(thing, Exception):
        bases = ", ".join(base.__name__ for base in thing.__bases__)
        return f"```python\nclass {name}({bases})\n```"
    if hasattr(thing, "model_fields"):
        return f"```python\nclass {name}\n```"
    return _code(name, inspect.signature(thing))


def _members(name: str, thing: type) -> Iterator[str]:
    """Public methods and properties, with those of bases of this project."""
    for member, value in _own(thing):
        documented = value.fget if isinstance(value, property) else getattr(value, "func", value)
        text = from_docstring(documented.__doc__)
        if not inspect.isfunction(value):
            yield f"#### {name}.{member}\n\n`{_text(_returned(documented))}`\n\n{text}"
            continue
        yield f"#### {name}.{member}()\n\n{_code(member, inspect.signature(value))}\n\n{text}"


def _own(thing: type) -> Iterator[tuple[str, Any]]:
    seen: set[str] = set()
    for base in thing.__mro__:
        if not base.__module__.startswith(("model_core", "service")):
            continue
        for member, value in vars(base).items():
            callable_ = inspect.isfunction(value) or isinstance(value, property)
            computed = type(value).__name__ == "cached_property"
            if not member.startswith("_") and member not in seen and (callable_ or computed):
                seen.add(member)
                yield member, value


def _returned(function: Any) -> Any:
    return inspect.signature(function).return_annotation


def _code(name: str, signature: inspect.Signature) -> str:
    words = _parameters(signature)
    given = _text(signature.return_annotation)
    arrow = "" if given in ("None", "") else f" -> {given}"
    line = f"{name}({', '.join(words)}){arrow}"
    if len(line) > WIDTH:
        line = f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){arrow}"
    return f"```python\n{line}\n```"


def _parameters(signature: inspect.Signature) -> list[str]:
    words: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        words.append(_parameter(parameter))
    return words


def _parameter(parameter: inspect.Parameter) -> str:
    word = f"{parameter.name}: {_text(parameter.annotation)}"
    if parameter.default is parameter.empty:
        return word
    default = repr(parameter.default)
    if default == "<factory>":
        return f"{word} = ..."
    if len(default) > 40:  # an object with many fields
        default = f"{type(parameter.default).__name__}()"
    return f"{word} = {default}"


def _text(annotation: Any) -> str:
    if annotation is inspect.Signature.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _fields(thing: type) -> str:
    """Annotated names of a class and its bases here, with the line that explains each."""
    rows: dict[str, tuple[str, str, str]] = {}
    for base in reversed(thing.__mro__):
        if base.__module__.startswith(("model_core", "service")):
            rows |= {row[0]: row for row in _rows(base)}
    explained = [row for row in rows.values() if row[2] or hasattr(thing, "model_fields")]
    return table(("Field", "Type", ""), explained) if explained else ""


def _rows(base: type) -> Iterator[tuple[str, str, str]]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
    assert isinstance(tree, ast.ClassDef)
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if node.target.id.startswith("_"):
            continue
        yield f"`{node.target.id}`", f"`{ast.unparse(node.annotation)}`", _explained(after)
