"""An archive over real HTTP on loopback that answers as a test tells it to, however badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydicom.dataset import Dataset

from service.dicomweb.servers import DicomwebServer

JSON = "application/dicom+json"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: bytes = b""
    kind: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False
    """Close the connection instead of answering."""
    claimed: int | None = None
    """Content-Length, where it is not that of the body."""


Script = Callable[[Request], Answer]


@dataclass
class Archive:
    """What was asked, and where to ask."""

    url: str
    requests: list[Request] = field(default_factory=list)

    def server(self, **options: Any) -> DicomwebServer:
        return DicomwebServer(name="archive", url=self.url, **{"timeout_s": 5.0, **options})

    def asked(self, method: str) -> list[str]:
        return [request.path for request in self.requests if request.method == method]


@contextmanager
def scripted_archive(script: Script) -> Iterator[Archive]:
    """A server whose every answer the script gives."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            request = Request(
                self.command, parts.path, parse_qs(parts.query), dict(self.headers), self._body()
            )
            archive.requests.append(request)
            answer = script(request)
            if answer.hang_up:
                self.close_connection = True
                return
            self.send_response(answer.status)
            length = len(answer.body) if answer.claimed is None else answer.claimed
            for name, value in {
                "Content-Type": answer.kind, "Content-Length": str(length), **answer.headers,
            }.items():  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)
            self.close_connection |= length != len(answer.body)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        archive = Archive(f"http://127.0.0.1:{http.server_address[1]}/dicom-web")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield archive
        finally:
            http.shutdown()
            thread.join()


def listing(tag: str, *uids: str) -> Answer:
    """A QIDO-RS answer that names UIDs."""
    return Answer(body=json.dumps([{tag: {"vr": "UI", "Value": [uid]}} for uid in uids]).encode())


def multipart(*datasets: Dataset) -> Answer:
    """A WADO-RS answer."""
    body = b""
    for dataset in datasets:
        file = BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        body += b"--edge\r\nContent-Type: application/dicom\r\n\r\n" + file.getvalue() + b"\r\n"
    kind = 'multipart/related; type="application/dicom"; boundary=edge'
    return Answer(body=body + b"--edge--\r\n", kind=kind)


@dataclass
class Study:
    """The script of an archive that has one study and says so page by page."""

    study: str
    datasets: list[Dataset]
    page: int = 1000

    def __call__(self, request: Request) -> Answer:
        words = request.path.removeprefix("/dicom-web/").split("/")
        if words[:2] != ["studies", self.study]:
            return Answer(404)
        if words[2:] == ["series"]:
            series = dict.fromkeys(str(one.SeriesInstanceUID) for one in self.datasets)
            return listing("0020000E", *self.paged(list(series), request))
        inside = [one for one in self.datasets if one.SeriesInstanceUID == words[3]]
        if len(words) == 5:
            uids = [str(one.SOPInstanceUID) for one in inside]
            return listing("00080018", *self.paged(uids, request))
        return multipart(*(one for one in inside if one.SOPInstanceUID == words[5]))

    def paged(self, uids: list[str], request: Request) -> list[str]:
        start = int(request.query.get("offset", ["0"])[0])
        return uids[start : start + self.page]
