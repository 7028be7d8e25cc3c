"""Which tools there are, how they are marked, how they say no: the real client, in one process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import mcp
import pytest
import typer
from typer.testing import CliRunner

from model_core.errors import OptionError
from service.assistant import cli
from service.assistant.folder import AllowedFolder
from service.assistant.server import make_server
from service.client import Client, Patience
from tests.service.client.conftest import write_study
from tests.service.client.server import job_server

QUICK = Patience(outage_s=0.1, first_contact_s=0.1, busy_s=0.1, first_pause_s=0.01)
READING = {"list_models", "list_jobs", "job_state", "job_statistics"}


def asked(
    work: Callable[[mcp.Client], Awaitable[Any]],
    address: str = "http://127.0.0.1:9",
    **allowed: Any,
) -> Any:
    """What a client gets from a server of these permissions."""

    async def run() -> Any:
        with Client(address, patience=QUICK) as client:
            folder = allowed.pop("folder", None)
            server = make_server(client, AllowedFolder(folder) if folder else None, **allowed)
            async with mcp.Client(server) as assistant:
                return await work(assistant)

    return anyio.run(run)


async def tools(client: mcp.Client) -> dict[str, Any]:
    return {tool.name: tool for tool in (await client.list_tools()).tools}


def test_what_is_not_allowed_does_not_exist(tmp_path: Path) -> None:
    assert set(asked(tools)) == READING
    assert set(asked(tools, folder=tmp_path)) == READING | {"inspect_study"}
    every = asked(tools, folder=tmp_path, allow_segment=True)
    assert set(every) == READING | {"inspect_study", "segment_study", "cancel_job"}
    hints = {name: tool.annotations for name, tool in every.items()}
    assert {name for name, hint in hints.items() if hint.read_only_hint} == {
        *READING, "inspect_study",
    }  # fmt: skip
    assert {name for name, hint in hints.items() if hint.destructive_hint} == {"cancel_job"}
    assert all(tool.output_schema["properties"] for tool in every.values())


def test_jobs_are_made_listed_and_cancelled_and_a_refusal_is_told_in_the_services_words(
    tmp_path: Path,
) -> None:
    write_study(tmp_path / "A", "A")

    async def work(client: mcp.Client) -> None:
        made = await client.call_tool("segment_study", {"path": "A", "tta": "fast"})
        job = made.structured_content
        assert job is not None
        assert running.last.form == {"tta": "fast"}
        assert running.last.id == job["id"]
        ended = await client.call_tool("cancel_job", {"job_id": job["id"]})
        assert ended.structured_content is not None
        assert ended.structured_content["state"] == "cancelled"
        listed = await client.call_tool("list_jobs", {"limit": 1})
        assert listed.structured_content is not None
        assert [one["id"] for one in listed.structured_content["jobs"]] == [job["id"]]
        refused = await client.call_tool("job_state", {"job_id": "0" * 32})
        assert refused.is_error
        assert "the server refused (not-found): There is no such job." in str(refused.content)

    with job_server() as running:
        asked(work, running.url, folder=tmp_path, allow_segment=True)


def test_a_file_that_cannot_be_read_is_told_without_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path / "A", "A")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/secret/path")

    monkeypatch.setattr("service.assistant.folder.find_one", denied)

    async def work(client: mcp.Client) -> str:
        return str((await client.call_tool("inspect_study", {"path": "A"})).content)

    told = asked(work, folder=tmp_path)
    assert "cannot be read (Permission denied)" in told
    assert "secret" not in told


@pytest.fixture
def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(cli.mcp)
    return app


def refusal(command: typer.Typer, *words: str) -> str:
    done = CliRunner().invoke(command, words)
    assert isinstance(done.exception, OptionError)
    return str(done.exception)


def test_the_command_says_what_it_lacks(
    command: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEGMAMBA_SERVER", raising=False)
    assert "expected --folder beside it" in refusal(command, "--allow-segment")
    assert "SEGMAMBA_SERVER" in refusal(command, "--folder", str(tmp_path))
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert 'pip install "segmamba-service[mcp]"' in refusal(command, "--folder", str(tmp_path))
