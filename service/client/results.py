"""Fetching what a job left, and putting it where the user wants it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from typing import Final, NoReturn

from service.client.client import Client
from service.client.errors import UnknownAnswerError
from service.client.manifest import Entry
from service.client.places import Place

_TABLE: Final = "statistics.csv"
"""The file of a result that has its measures as rows."""


def fetch_results(client: Client, entry: Entry, place: Place, *, figures: bool = False) -> None:
    """Fetch a job's label map and whatever else was asked for; the label map appears last.

    Args:
        client: the server that has them.
        entry: the study; it is told the label map's checksum, and the figures.
        place: where the results go.
        figures: whether the measures are wanted for a table.

    Raises:
        ServerRefused: there is no result.
        UnknownAnswerError: the report is none.
        OSError: the files cannot be written.
    """
    assert entry.job is not None
    files: dict[str, bytes] = {}
    if entry.archive:
        files[entry.archive] = client.archive(entry.job)
    report = client.report(entry.job) if entry.report else None
    data = client.result(entry.job) if report is None else _label_map(report)
    if entry.report:
        files[entry.report] = f"{json.dumps(report, indent=2)}\n".encode()
    if entry.output.lower().endswith(".nii"):
        data = gzip.decompress(data)
    files[entry.output] = data
    if figures:
        fetch_figures(client, entry)
    place.put(files)
    entry.result_sha256 = hashlib.sha256(data).hexdigest()


def fetch_figures(client: Client, entry: Entry) -> None:
    """Fetch the measures of a study, as rows with a header.

    Raises:
        ServerRefused: there are none.
    """
    assert entry.job is not None
    entry.figures = client.file(entry.job, _TABLE).decode()


def _label_map(report: dict[str, object]) -> bytes:
    """Take the label map out of a report: what remains is what ``segmamba segment`` writes."""
    part = report.pop("label_map", None)
    text = part.get("data") if isinstance(part, dict) else None
    try:
        return base64.b64decode(text or "", validate=True) or _no_label_map()
    except (TypeError, ValueError):
        _no_label_map()


def _no_label_map() -> NoReturn:
    raise UnknownAnswerError("the server's report comes without a label map")
