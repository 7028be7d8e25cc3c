"""What the page is made of: nothing foreign, nothing inline, small, and as it was published."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from service.page.assets import STATIC, asset, names

ROOT = Path(__file__).parents[2]
VENDOR = STATIC / "vendor"
OURS = [name for name in names() if not name.startswith("vendor/")]
PAGES = [name for name in OURS if name.endswith(".html")]
MODULES = [name for name in OURS if name.endswith(".js")]
MOST_BYTES = 2 * 1000 * 1000
VOID = {"area", "br", "hr", "img", "input", "link", "meta"}


def read(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def test_niivue_is_what_was_published() -> None:
    said = (VENDOR / "niivue-0.69.0.sha256").read_text().split()
    library = VENDOR / said[1]
    assert hashlib.sha256(library.read_bytes()).hexdigest() == said[0]
    assert said[0] == "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
    assert (VENDOR / "niivue-0.69.0.LICENSE.txt").read_text().count("BSD 2-Clause License") == 1


def test_the_whole_page_is_small() -> None:
    total = sum(len(found.compressed) for name in names() if (found := asset(name)) is not None)
    assert total < MOST_BYTES
    first_visit = total - sum(
        len(found.compressed) for name in names() if "vendor" in name and (found := asset(name))
    )
    assert first_visit < MOST_BYTES / 20  # the viewer's library comes with the first picture


@pytest.mark.parametrize("name", OURS)
def test_nothing_of_ours_names_another_host(name: str) -> None:
    found = set(re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s\"']*", read(name)))
    assert found <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("name", MODULES)
def test_every_import_leads_to_a_name_that_is_there(name: str) -> None:
    for wanted, module in re.findall(r"import \{([^}]*)\} from \"\./([\w.]+)\"", read(name)):
        exported = read(f"js/{module}")
        for one in wanted.split(","):
            pattern = rf"export (async )?(const|function\*?|class) {one.strip()}\b"
            assert re.search(pattern, exported), f"{name}: {one} of {module}"


@pytest.mark.parametrize("name", MODULES)
def test_no_module_makes_markup_or_code_of_text(name: str) -> None:
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|\beval\(|new Function|document\.write", read(name)
    )


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_and_stays_small(name: str) -> None:
    text = read(name)
    assert re.match(r"// [A-Z][^\n]+[.:]\n", text)
    assert len(text.splitlines()) <= 300


def test_what_is_kept_in_the_browser_is_the_key_and_the_colours() -> None:
    stored = {
        match
        for name in MODULES
        for match in re.findall(r"(\w+Storage)\.setItem\(([^,]+),", read(name))
    }
    assert stored == {("sessionStorage", "PLACE"), ("localStorage", '"segmamba-theme"')}


def test_the_dashboard_is_the_one_that_is_tested() -> None:
    tested = ROOT / "docker/monitoring/grafana/dashboards/segmamba.json"
    assert (STATIC / "grafana-dashboard.json").read_bytes() == tested.read_bytes()


class Outline(HTMLParser):
    """The elements of a page, and whether each is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"line {self.getpos()[0]}: </{tag}>"

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open and self.open[-1] in ("script", "style"):
            self.inline.append(data)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_well_formed_and_has_nothing_inline(name: str) -> None:
    outline = Outline(read(name))
    attributes = [attribute for _, attribute in outline.elements]
    assert not outline.open
    assert not outline.inline
    assert not [a for a in attributes if "style" in a or any(key.startswith("on") for key in a)]
    ids = [a["id"] for a in attributes if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {
        value for a in attributes for key in ("for", "aria-labelledby") if (value := a.get(key))
    }
    assert targets <= set(ids)
    assert [tag for tag, _ in outline.elements].count("h1") in (1, 3)  # one of three views is shown


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_links_to_is_there(name: str) -> None:
    for tag, attributes in Outline(read(name)).elements:
        place = attributes.get("src") or attributes.get("href") or ""
        if tag in ("script", "link", "img", "a") and place.startswith("/page/"):
            assert place.removeprefix("/page/") in names()
