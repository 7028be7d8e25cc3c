"""From the content of a report to one HTML file, by the templates beside this module."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from model_core.report.words import STATEMENT

if TYPE_CHECKING:
    from jinja2 import Environment

PageName = Literal["study", "compare"]


def render(page: PageName, content: Mapping[str, Any]) -> str:
    """Fill a template; every text is escaped, and a name that is missing is an error."""
    template = _environment().get_template(f"{page}.html.jinja")
    return template.render(statement=STATEMENT, **content)


@lru_cache(1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("model_core.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
