"""A batch of studies for a service: what ``segmamba segment --server`` asks for, and who takes it.

This room knows no HTTP. Whoever can talk to a service offers a function of a `Batch` that gives an
exit code, in the entry-point group ``segmamba.batch``.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from model_core.errors import OptionError

GROUP: Final = "segmamba.batch"
_IN_FLIGHT: Final = 8
_OF_THIS_MACHINE: Final = (
    "device", "backend", "precision", "threads", "memory_limit", "preview", "run", "series",
    "t1", "t1ce", "t2", "flair", "dicom",
)  # fmt: skip
"""Options that a batch has no use for: the service has its own machine, and studies are found."""
_OF_THE_RUN: Final = (
    "model", "tta", "label_scheme", "postprocess", "window", "allow_fewer_passes", "preprocess",
    "grid", "n4", "seg_type",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What was asked for.

    Attributes:
        sources: folders, or prefixes such as ``s3://bucket/prefix``.
        output: likewise: where results and the manifest go.
        server: address of the service.
        key_file: where the caller's key is; None: in the environment, if anywhere.
        options: how to segment, by the names of the service's form; those that were chosen.
        report: whether each study's report is wanted.
        archive: whether each study's archive is wanted.
        table: where the figures of all studies are wanted as CSV.
        in_flight: studies that wait or run at the service at a time.
        retry_failed: whether studies that failed earlier are tried again.
        overwrite: whether results that nothing is known of are replaced.
    """

    sources: Sequence[str]
    output: str
    server: str
    key_file: Path | None = None
    options: Mapping[str, str | bool]
    report: bool = False
    archive: bool = False
    table: Path | None = None
    in_flight: int
    retry_failed: bool = False
    overwrite: bool = False


def hand_over(batch: Batch) -> int:
    """Give a batch to the service's client; its exit code.

    Raises:
        OptionError: there is no client here.
    """
    for entry in importlib.metadata.entry_points(group=GROUP):
        taker: Callable[[Batch], int] = entry.load()
        return taker(batch)
    raise OptionError(
        "--server",
        expected="the client of a service, installed beside this command",
        got="none",
        way_out="Install segmamba-service whole, or leave --server out to segment here.",
    )


def batch_of(context: Any) -> Batch:
    """The batch that the options of ``segmamba segment`` ask for.

    Args:
        context: of the command; typer's private copy of click has its type.

    Raises:
        OptionError: no source, or options that do not go with a service.
    """
    given = context.params
    chosen = [name for name in _OF_THIS_MACHINE if _was_typed(context, name)]
    if chosen:
        raise _does_not_fit(f"--{chosen[0].replace('_', '-')}")
    if not given["studies"]:
        raise OptionError(
            "studies",
            expected="a folder of studies, or a prefix such as s3://bucket/prefix",
            got="none",
            way_out="See: segmamba segment --help",
        )
    for name in ("report", "archive"):
        _require_same_place(f"--{name}", given[name], given["output"])
    options = {name: given[name] for name in _OF_THE_RUN if _was_typed(context, name)}
    return Batch(
        sources=given["studies"],
        output=given["output"],
        server=given["server"],
        key_file=_path(given["key_file"]),
        options=options,
        report=given["report"] is not None,
        archive=given["archive"] is not None,
        table=_path(given["table"]),
        in_flight=given["in_flight"] or _IN_FLIGHT,
        retry_failed=given["retry_failed"],
        overwrite=given["overwrite"],
    )


def refuse_alone(given: Mapping[str, object]) -> None:
    """Refuse options that mean nothing without a service.

    Raises:
        OptionError: one of them was given.
    """
    for option, value in given.items():
        if value not in (None, False):
            raise OptionError(
                option,
                expected="it together with --server",
                got="it alone",
                way_out="Name the service with --server, or leave it out.",
            )


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _was_typed(context: Any, name: str) -> bool:
    """Whether it stands in the command; what variables say of this machine is no request."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _does_not_fit(option: str) -> OptionError:
    return OptionError(
        option,
        expected="to be left out together with --server",
        got="a value",
        way_out="The service runs on its own machine and takes whole folders; one study goes with "
        "segmamba submit.",
    )


def _require_same_place(option: str, wished: str | None, output: str) -> None:
    if wished is not None and wished.rstrip("/") != output.rstrip("/"):
        raise OptionError(
            option,
            expected="the place of --output, together with --server",
            got="another",
            way_out="A batch keeps all files of a study side by side: name the same place twice.",
        )
