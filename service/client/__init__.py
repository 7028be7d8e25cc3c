"""The service from a program's side: hand in studies, follow the jobs, fetch the label maps.

::

    from service.client import Client

    with Client("https://segmamba.example", key=key) as client:
        job = client.submit({"t1": t1, "t1ce": t1ce, "t2": t2, "flair": flair})
        if client.wait(job.id).succeeded:
            path.write_bytes(client.result(job.id))

This page is the door; its names are imported when first used. The rooms, from the outside in:
`client` has the verbs, `stream` follows one job, `upload` sends images, `wire` asks again until
there is an answer, `job` and `errors` are what comes back. `cli` and `cli_jobs` are the commands,
`batch` is what stands behind ``segmamba segment --server``: `find` looks for studies in `places`,
`submission` is the loop over many, `results` fetches, and `manifest` is what is remembered. Nothing
here needs the server's frameworks, its database or torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from service.client.client import Client
    from service.client.errors import (
        ClientError,
        ServerRefused,
        ServerUnreachable,
        UnknownAnswerError,
        WaitTimeoutError,
    )
    from service.client.job import Batch, Job, JobProgress, SubmitOptions
    from service.client.wire import Patience

__all__ = [
    "Batch",
    "Client",
    "ClientError",
    "Job",
    "JobProgress",
    "Patience",
    "ServerRefused",
    "ServerUnreachable",
    "SubmitOptions",
    "UnknownAnswerError",
    "WaitTimeoutError",
]

_HOMES: Final = {
    "Batch": "service.client.job",
    "Client": "service.client.client",
    "ClientError": "service.client.errors",
    "Job": "service.client.job",
    "JobProgress": "service.client.job",
    "Patience": "service.client.wire",
    "ServerRefused": "service.client.errors",
    "ServerUnreachable": "service.client.errors",
    "SubmitOptions": "service.client.job",
    "UnknownAnswerError": "service.client.errors",
    "WaitTimeoutError": "service.client.errors",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
