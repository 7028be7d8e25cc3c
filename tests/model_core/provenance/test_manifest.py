"""run.json: whole, valid, without a word about the patient, and refused when it is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from model_core.errors import InputError
from model_core.provenance.manifest import RunManifest, read_manifest, schema_text
from tests.model_core.provenance.runs import FirstRun

SCHEMA = Path(__file__).parents[3] / "model_core" / "provenance" / "run.schema.json"


def changed(run: FirstRun, **fields: Any) -> bytes:
    return json.dumps({**json.loads(run.run_json.read_text()), **fields}).encode()


def test_what_is_written_is_read_again(run: FirstRun) -> None:
    assert read_manifest(run.run_json) == run.manifest
    assert read_manifest(run.run_json.read_bytes()) == run.manifest


def test_it_is_valid_by_the_schema_that_is_packaged(run: FirstRun) -> None:
    assert SCHEMA.read_text() == schema_text()
    schema = json.loads(SCHEMA.read_text())
    stored = json.loads(run.run_json.read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    validator.validate(stored)
    stored["inputs"]["t1"]["decoded_sha256"] = "short"
    assert not validator.is_valid(stored)


def test_it_names_no_path_no_file_and_no_folder(run: FirstRun) -> None:
    text = run.run_json.read_text()
    names = {part for path in run.study.iterdir() for part in (path.name, path.stem)}
    assert not [name for name in (*names, "Secret", str(run.folder)) if name in text]
    assert "/" not in text.replace("segmamba-statistics/1", "")


def test_a_field_of_a_later_release_is_passed_over(run: FirstRun) -> None:
    assert read_manifest(changed(run, added_later={"deep": [1]})) == run.manifest


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"schema_name": "other"}, "schema_name segmamba-run"),
        ({"schema_version": 2}, "schema_version 1"),
        ({"model": {"name": "Jane Doe"}}, "faults in model"),
        ({"inputs": {"Jane Doe": {}}, "started": "Jane Doe"}, "faults in inputs, started"),
    ],
)
def test_a_fault_is_told_by_its_field_and_nothing_of_the_file_is_repeated(
    run: FirstRun, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_manifest(changed(run, **fields))
    assert says in str(caught.value)
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"run"', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"run\.json"):
        read_manifest(data)


def test_every_field_is_required_but_those_that_may_be_empty(run: FirstRun) -> None:
    stored = json.loads(run.run_json.read_text())
    may_be_empty = {
        "schema_name", "schema_version", "statistics", "flags", "warnings",
    }  # fmt: skip
    for name in set(RunManifest.model_fields) - may_be_empty:
        cut = {key: value for key, value in stored.items() if key != name}
        with pytest.raises(InputError, match=name):
            read_manifest(json.dumps(cut).encode())
