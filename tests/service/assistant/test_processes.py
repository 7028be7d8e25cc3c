"""``segmamba mcp`` as an assistant sees it: the real client, the real service, three processes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters

from model_core.types import CONTRASTS
from tests.dicom_series import PLANTED
from tests.dicom_studies import STUDY_UID, uid_of_series, write_study
from tests.service.servers import (
    COMMAND,
    Server,
    head_images,
    serve_process,
    wait_ready,
    write_tiny_bundle,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
READING = {"list_models", "list_jobs", "job_state", "job_statistics", "inspect_study"}
WRITING = {"segment_study", "cancel_job"}
NOBODY = "0" * 32


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("service")
    write_tiny_bundle(folder / "models")
    with serve_process(folder) as running:
        wait_ready(running.client)
        yield running


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outer") / "studies"
    for contrast, data in head_images().items():
        (folder / "DOE").mkdir(parents=True, exist_ok=True)
        (folder / "DOE" / f"DOE_{contrast}.nii.gz").write_bytes(data)
    (folder.parent / "secret").mkdir()
    (folder / "way_out").symlink_to(folder.parent / "secret")
    return folder


def with_client(work: Callable[[Client], Awaitable[None]], address: object, *words: object) -> None:
    """Let a client work with a server of its own."""

    async def run() -> None:
        arguments = [*COMMAND[1:], "mcp", "--server", str(address), *map(str, words)]
        with anyio.fail_after(90):
            parameters = StdioServerParameters(command=COMMAND[0], args=arguments, cwd=ROOT)
            async with Client(parameters) as client:
                await work(client)

    anyio.run(run)


async def answer(client: Client, tool: str, **arguments: object) -> dict[str, Any]:
    """What a tool answers, the same as structure and as text."""
    told = await client.call_tool(tool, dict(arguments))
    assert not told.is_error, told.content
    assert told.structured_content is not None
    (part,) = told.content
    assert part.type == "text"
    assert json.loads(part.text) == told.structured_content
    found: dict[str, Any] = told.structured_content
    return found


async def refusal(client: Client, tool: str, **arguments: object) -> str:
    told = await client.call_tool(tool, dict(arguments))
    assert told.is_error
    (part,) = told.content
    assert part.type == "text"
    return part.text


def test_by_default_there_are_only_tools_that_read(server: Server, studies: Path) -> None:
    async def work(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == READING
        for tool in tools.values():
            assert tool.annotations is not None
            assert tool.annotations.read_only_hint
            assert tool.output_schema is not None
            assert tool.description
        assert "unknown" in (await refusal(client, "segment_study", path="DOE")).lower()
        models = {model["name"]: model for model in (await answer(client, "list_models"))["models"]}
        assert [name for name, model in models.items() if model["default"]] == ["tiny"]
        assert models["tiny"]["limitations"] == "means nothing"
        assert await answer(client, "list_jobs") == {"jobs": []}
        assert "not-found" in await refusal(client, "job_state", job_id=NOBODY)
        assert "job_id" in await refusal(client, "job_state", job_id="../models")
        found = await answer(client, "inspect_study", path="DOE")
        assert (found["kind"], found["missing"]) == ("nifti", [])
        assert [one["contrast"] for one in found["series"]] == list(CONTRASTS)
        assert "research" in found["notice"]
        assert "DOE" not in json.dumps(found)
        for path in ("../secret", "way_out", "/etc"):
            assert "leads out" in await refusal(client, "inspect_study", path=path)

    with_client(work, server.client.base_url, "--folder", studies)


def test_a_dicom_study_is_inspected_without_a_word_of_the_patient(
    server: Server, tmp_path: Path
) -> None:
    write_study(tmp_path / "study")

    async def work(client: Client) -> None:
        found = await answer(client, "inspect_study", path="study")
        assert sorted(s["contrast"] for s in found["series"] if s["chosen"]) == sorted(CONTRASTS)
        told = json.dumps(found)
        planted = [value for value in PLANTED.values() if len(value) > 2]  # F stands in FLAIR
        secrets = [STUDY_UID, *map(uid_of_series, CONTRASTS), *planted]
        assert not [secret for secret in secrets if secret in told]

    with_client(work, server.client.base_url, "--folder", tmp_path)


def test_with_permission_a_study_is_segmented_and_measured(server: Server, studies: Path) -> None:
    async def work(client: Client) -> None:
        tools = {tool.name: tool.annotations for tool in (await client.list_tools()).tools}
        assert set(tools) == READING | WRITING
        segment, cancel = tools["segment_study"], tools["cancel_job"]
        assert segment is not None
        assert cancel is not None
        assert (segment.read_only_hint, segment.destructive_hint) == (False, False)
        assert (cancel.read_only_hint, cancel.destructive_hint) == (False, True)
        job = await answer(client, "segment_study", path="DOE", label_scheme="brats2023")
        early = await client.call_tool("job_statistics", {"job_id": job["id"]})
        state = job["state"]
        while state in ("queued", "running"):
            await anyio.sleep(0.2)
            state = (await answer(client, "job_state", job_id=job["id"]))["state"]
        assert state == "succeeded"
        found = await answer(client, "job_statistics", job_id=job["id"])
        assert early.is_error or early.structured_content == found
        same = server.client.get(f"/jobs/{job['id']}/files/report.json").json()
        volumes = {one["name"]: one["volume_ml"] for one in found["structures"]}
        assert volumes == pytest.approx(same["volumes_ml"], abs=1e-3)
        assert {flag["code"] for flag in found["flags"]} == {f["code"] for f in same["quality"]}
        assert found["label_scheme"] == "brats2023"
        assert "research" in found["notice"]
        assert (await answer(client, "cancel_job", job_id=job["id"]))["state"] == "succeeded"
        listed = (await answer(client, "list_jobs", state="succeeded", limit=1))["jobs"]
        assert [one["id"] for one in listed] == [job["id"]]
        wrong = await refusal(client, "segment_study", path="DOE", model="other")
        assert "model" in wrong

    with_client(work, server.client.base_url, "--folder", studies, "--allow-segment")


def test_a_service_that_is_away_is_told_of() -> None:
    async def work(client: Client) -> None:
        assert {t.name for t in (await client.list_tools()).tools} == READING - {"inspect_study"}
        assert "no answer from http://127.0.0.1:9" in await refusal(client, "list_models")

    with_client(work, "http://127.0.0.1:9")
