"""The tools behind the official ``mcp`` package: names, schemas, hints and errors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

from model_core.errors import SegMambaError
from service.assistant.answers import NOTICE
from service.assistant.folder import AllowedFolder
from service.assistant.tools import JobTools, StudyTools
from service.client.client import Client
from service.version import release

_INSTRUCTIONS: Final = (
    "Segmentation of brain tumours in MRI by a running SegMamba service. Studies are named by "
    f"their paths below the folder that the user allowed. {NOTICE} Report quality flags together "
    "with any figure."
)
_READS: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_ADDS: Final = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
)
_ENDS: Final = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)
_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


def make_server(
    client: Client, folder: AllowedFolder | None, *, allow_segment: bool = False
) -> MCPServer[object]:
    """A server with the tools that are allowed; the others do not exist.

    Args:
        client: of the running service.
        folder: below it studies may be named; without one, none may.
        allow_segment: whether jobs may be made and cancelled.
    """
    server: MCPServer[object] = MCPServer(
        "segmamba", title="SegMamba service", instructions=_INSTRUCTIONS, version=release(),
        log_level="WARNING",
    )  # fmt: skip
    jobs = JobTools(client)
    for question in (jobs.list_models, jobs.list_jobs, jobs.job_state, jobs.job_statistics):
        server.add_tool(_plainly(question), annotations=_READS)
    if folder is not None:
        studies = StudyTools(client, folder)
        server.add_tool(_plainly(studies.inspect_study), annotations=_READS)
        if allow_segment:
            server.add_tool(_plainly(studies.segment_study), annotations=_ADDS)
    if allow_segment:
        server.add_tool(_plainly(jobs.cancel_job), annotations=_ENDS)
    return server


def _plainly(tool: Callable[_Arguments, _Answer]) -> Callable[_Arguments, _Answer]:
    """The same tool, telling what is wrong in the project's words, without a path."""

    @functools.wraps(tool)
    def told(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Answer:
        try:
            return tool(*arguments, **options)
        except SegMambaError as error:
            raise ToolError(str(error)) from None
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise ToolError(f"a file of the study cannot be read ({why})") from None

    return told
