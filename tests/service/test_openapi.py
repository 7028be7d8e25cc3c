"""The OpenAPI document is valid, and its examples are what it says they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import validate

from service.app import create_app
from service.form import FIELDS
from service.schemas import SegmentationAnswer
from tests.service.fakes import CATALOGUE, make_settings, study_files

APP = create_app(make_settings(), catalogue=lambda: CATALOGUE)
DOCUMENT: dict[str, Any] = APP.openapi()


def resolve(node: Any) -> Any:
    """The document without references."""
    if isinstance(node, dict) and "$ref" in node:
        target: Any = DOCUMENT
        for key in node["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        return resolve(target)
    if isinstance(node, dict):
        return {key: resolve(value) for key, value in node.items()}
    return [resolve(value) for value in node] if isinstance(node, list) else node


def examples() -> Iterator[Any]:
    """Every example of a response body with the schema that stands beside it."""
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                for media, content in response.get("content", {}).items():
                    named = content.get("examples", {}).items()
                    found = [(name, example["value"]) for name, example in named]
                    found += [("example", content["example"])] if "example" in content else []
                    for name, value in found:
                        yield pytest.param(
                            content.get("schema"),
                            value,
                            id=f"{method} {path} {status} {media} {name}",
                        )
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for number, value in enumerate(schema.get("examples", [])):
            yield pytest.param(schema, value, id=f"{name} {number}")


def test_the_document_is_valid_openapi() -> None:
    validate(DOCUMENT)


def test_there_are_examples_for_every_refusal_of_segment() -> None:
    responses = DOCUMENT["paths"]["/segment"]["post"]["responses"]
    refusals = {status for status in responses if status >= "400"}
    assert refusals == {
        "400", "401", "403", "404", "406", "408", "413", "415", "421", "422", "429", "500", "502",
        "503", "504", "507",
    }  # fmt: skip
    for status in refusals:
        assert list(responses[status]["content"]) == ["application/problem+json"]


@pytest.mark.parametrize(("schema", "example"), list(examples()))
def test_an_example_fits_its_schema(schema: Any, example: Any) -> None:
    assert schema
    jsonschema.validate(resolve(example), resolve(schema))


def test_a_problem_example_says_its_own_status() -> None:
    for parameters in examples():
        _, value = parameters.values
        if "status" in value and isinstance(value["status"], int):
            assert f" {value['status']} " in f" {parameters.id} " or parameters.id == "Problem 0"


def test_the_form_lists_the_fields_that_are_read(small: httpx.Client) -> None:
    body = DOCUMENT["paths"]["/segment"]["post"]["requestBody"]["content"]["multipart/form-data"]
    properties = body["schema"]["properties"]
    of_scans = {"preprocess", "n4"}  # what they do to real scans is shown with real scans
    for name, schema in properties.items():
        for value in schema.get("enum", []) if name not in of_scans else ():
            response = small.post("/segment", files=study_files(), data={name: value})
            assert response.status_code == 200, (name, value)
    ways = [set(way["required"]) for way in body["schema"]["oneOf"]]
    assert ways == [{"t1", "t1ce", "t2", "flair"}, {"dicom"}, {"dicomweb", "study_uid"}]
    assert set(properties) == set(FIELDS)


def test_real_answers_fit_the_document(small: httpx.Client) -> None:
    def check(response: httpx.Response, path: str, method: str = "get") -> None:
        answers = DOCUMENT["paths"][path][method]["responses"][str(response.status_code)]
        media = response.headers["content-type"].split(";")[0]
        jsonschema.validate(response.json(), resolve(answers["content"][media]["schema"]))

    json_please = {"Accept": "application/json"}
    check(small.get("/"), "/")
    check(small.get("/models"), "/models")
    check(small.get("/models/fake"), "/models/{name}")
    check(small.get("/models/none"), "/models/{name}")
    check(small.get("/health/live"), "/health/live")
    check(small.get("/health/ready"), "/health/ready")
    check(small.post("/segment", files=study_files(), headers=json_please), "/segment", "post")
    check(small.post("/segment", files=study_files(t1=None)), "/segment", "post")
    check(small.post("/segment"), "/segment", "post")


def test_the_example_answer_is_a_complete_answer() -> None:
    responses = DOCUMENT["paths"]["/segment"]["post"]["responses"]
    example = responses["200"]["content"]["application/json"]["example"]
    assert SegmentationAnswer.model_validate(example).label_map.encoding == "base64"
