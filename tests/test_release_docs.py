"""What the pages of a release say is so: versions, excerpts, named tests, licences."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

from model_core.errors import OptionError
from scripts import third_party

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
STOP = re.compile(r"^## \d+\. .*\((?P<path>\.\./[^)]+)\)$", re.MULTILINE)


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def without_indents(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines())


def stops() -> Iterator[tuple[str, list[str]]]:
    """The files of the tour, in order, with the excerpts below each."""
    text = read("docs/tour.md")
    found = list(STOP.finditer(text))
    for stop, after in zip(found, [*found[1:], None], strict=True):
        section = text[stop.end() : after.start() if after else None]
        yield stop["path"].removeprefix("../"), FENCE.findall(section)


TOUR = list(stops())


def test_the_tour_has_six_to_ten_files_of_all_rooms() -> None:
    assert 6 <= len(TOUR) <= 10
    assert {path.split("/")[0] for path, _ in TOUR} == {"model_core", "service", "training"}


@pytest.mark.parametrize(("path", "excerpts"), TOUR, ids=[path for path, _ in TOUR])
def test_an_excerpt_of_the_tour_stands_in_its_file(path: str, excerpts: list[str]) -> None:
    (excerpt,) = excerpts
    assert without_indents(excerpt).strip() in without_indents(read(path))


def versions_in_the_guide() -> dict[str, str]:
    rows = re.findall(
        r"^\| ([^|]+?) \| ([^|]+?) \| [^|]+ \|$", read("docs/upgrade.md"), re.MULTILINE
    )
    return {what.split(" (")[0]: version.strip("`") for what, version in rows}


def test_the_upgrade_guide_names_the_versions_of_this_release() -> None:
    from model_core.checkpoints.card import FORMAT_VERSION
    from model_core.inference.segmentation import SCHEMA_VERSION as REPORT
    from model_core.metrics.evaluate import JSON_SCHEMA
    from model_core.ops.native_library import ABI
    from model_core.provenance.manifest import SCHEMA_VERSION as RUN
    from service.jobs.queue import APPLICATION_VERSION
    from service.jobs.tables import SCHEMA_VERSION as TABLES
    from training.loop.checkpoint import FORMAT

    found = versions_in_the_guide()
    assert found["job tables"] == str(TABLES)
    assert found["name of the queue's application"] == APPLICATION_VERSION
    assert found["model bundle"] == str(FORMAT_VERSION)
    assert found["report"] == str(REPORT)
    assert found["`run.json`"] == str(RUN)
    assert found["evaluation"] == JSON_SCHEMA
    assert found["training checkpoint"] == str(FORMAT)
    assert found["kernels"] == str(ABI)
    assert found["queue tables of DBOS"] == "of DBOS 3.4"
    assert "dbos>=3.4,<3.5" in read("pyproject.toml")


def test_job_tables_of_another_version_end_the_start_as_the_guide_says(tmp_path: Path) -> None:
    import sqlalchemy as sa

    from service.jobs.engine import JobEngine

    url = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    engine = JobEngine(url)
    with engine.database.begin() as connection:
        connection.execute(sa.text("UPDATE segmamba_schema SET version = 999"))
    engine.close()
    with pytest.raises(OptionError, match="whose job tables are of version 999") as raised:
        JobEngine(url)
    assert raised.value.got.removesuffix("999") in read("docs/upgrade.md")


def test_tables_without_an_index_that_came_later_get_it(tmp_path: Path) -> None:
    import sqlalchemy as sa

    from service.jobs.engine import JobEngine
    from service.jobs.tables import jobs

    url = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    engine = JobEngine(url)
    with engine.database.begin() as connection:
        connection.execute(sa.text("DROP INDEX segmamba_jobs_newest"))
    engine.close()
    engine = JobEngine(url)
    found = {index["name"] for index in sa.inspect(engine.database).get_indexes("segmamba_jobs")}
    engine.close()
    assert {index.name for index in jobs.indexes} <= found


def named_tests(page: str) -> list[tuple[str, str]]:
    """(file, test) for each test that a page names behind the link to its file."""
    pairs = []
    for place, names in re.findall(
        r"\(\.\./\.\./(tests/[\w/]+\.py)\)(?:: ((?:`test_\w+`(?:, )?)+))?", read(page)
    ):
        pairs += [(place, name) for name in re.findall(r"`(test_\w+)`", names)] or [(place, "")]
    return pairs


@pytest.mark.parametrize(("path", "name"), named_tests("docs/concepts/threat-model.md"))
def test_a_defence_in_the_threat_model_has_the_test_that_it_names(path: str, name: str) -> None:
    assert f"def {name or 'test_'}" in read(path)


def test_every_decision_has_a_status_and_is_listed_once_in_order() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    listed = re.findall(r"^\| \[(\d+)\]\((\d{4})-", read("docs/adr/0001-record-decisions.md"), re.M)
    numbers = [int(path.name[:4]) for path in records]
    assert numbers == list(range(1, len(records) + 1))
    assert [int(number) for number, _ in listed] == numbers[1:]
    assert all(int(number) == int(name) for number, name in listed)
    for path, number in zip(records, numbers, strict=True):
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {number}. ")
        assert "\n**Status:** " in text
        assert len(text.splitlines()) < 45, "more than a screen"


def test_the_changelog_keeps_its_headings() -> None:
    text = read("CHANGELOG.md")
    version = tomllib.loads(read("pyproject.toml"))["project"]["version"]
    headings = re.findall(r"^## \[([^\]]+)\]( - \d{4}-\d\d-\d\d)?$", text, re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert all(date for _, date in headings[1:])
    assert version == "0.1.0" or headings[1][0] == version
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds


def not_as_pinned() -> list[str]:
    pinned = third_party.pins()
    names = {package.name for package in third_party.closure(third_party.requirements())}
    return [
        name
        for name in sorted(names & set(pinned))
        if importlib.metadata.version(name).partition("+")[0] != pinned[name]
    ]


def test_the_list_of_third_parties_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    if other := not_as_pinned():
        pytest.skip(f"other releases than in constraints.txt are installed: {', '.join(other)}")
    assert third_party.main(["--check"]) == 0, capsys.readouterr().out


def test_the_default_installation_brings_only_licences_that_are_allowed() -> None:
    packages = third_party.closure(third_party.requirements())
    assert {"torch", "dbos", "pydicom", "starlette"} <= {package.name for package in packages}
    bad = {p.name: p.licence for p in packages if third_party.forbidden_in(p.licence)}
    assert not bad
    assert not [name for name in third_party.ALLOWED if re.match(r"A?GPL", name)]


def test_so_do_the_extras_in_the_table() -> None:
    packages = third_party.closure(third_party.requirements(*third_party.EXTRAS))
    assert not {p.name: p.licence for p in packages if third_party.forbidden_in(p.licence)}


@pytest.mark.parametrize(
    ("expression", "forbidden"),
    [
        ("MIT", set()),
        ("AGPL-3.0-only", {"AGPL-3.0-only"}),
        ("GPL-2.0-or-later OR MIT", set()),
        ("MIT AND GPL-3.0-only", {"GPL-3.0-only"}),
        ("Apache-2.0 WITH LLVM-exception", set()),
        ("(BSD-3-Clause AND MIT) OR GPL-2.0-only", set()),
    ],
)
def test_an_expression_is_as_free_as_its_best_choice(expression: str, forbidden: set[str]) -> None:
    assert third_party.forbidden_in(expression) == forbidden


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License-Expression": "MIT OR Apache-2.0"}, "MIT OR Apache-2.0"),
        ({"License": "Apache License 2.0"}, "Apache-2.0"),
        ({"License": "see LICENSE", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
    ],
)
def test_a_licence_is_found_where_a_package_says_it(fields: dict[str, str], licence: str) -> None:
    metadata = Message()
    for name, value in fields.items():
        metadata[name] = value
    assert third_party.licence_of(metadata) == licence


def test_a_package_that_names_no_licence_is_not_passed_over() -> None:
    metadata = Message()
    metadata["Name"] = "strange"
    metadata["License"] = "GPLv3"
    with pytest.raises(ValueError, match="strange: licence 'GPLv3' is unknown"):
        third_party.licence_of(metadata)
