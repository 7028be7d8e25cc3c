"""Names are planted wherever a caller can put one, and looked for wherever the service speaks.

A real ``segmamba serve`` with debug logs, metrics, traces, audit log and keys meets studies that
are done, refused, cancelled and orphaned. Two texts may be in the job database and nowhere else:
the name of a batch, which its caller asks for again, and the label that the operator gave a key.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import signal
import socket
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import quote, quote_plus

import httpx
import nibabel as nib
import psutil
import pytest
from nibabel.nifti1 import Nifti1Extension

from service.auth.keys import KeyStore
from service.jobs.database import open_database
from tests.service.fakes import metric, wait_until
from tests.service.otlp import Collector, collector
from tests.service.servers import (
    Server,
    head_images,
    serve_process,
    wait_ready,
    write_tiny_bundle,
)

pytestmark = pytest.mark.slow

CARRIERS = (
    "File", "Type", "Part", "Desc", "Auxi", "Dbna", "Inte", "Comm", "Dicm", "Gzip", "Pati", "Agen",
    "Refe", "Cook", "Bagg", "Stat", "Head", "Idem", "Quer", "Path", "Jobi", "Modl", "Ttaa", "Fiel",
    "Meth", "Line", "Sock", "Parn", "Host", "Acce", "Wron", "Sche", "Last", "Batch", "Label",
)  # fmt: skip
TOKENS = {name: f"Zq{name}^DoeJ" for name in CARRIERS}
TOKENS |= {name: f"Zq{name}_DoeJ" for name in ("Batch", "Head", "Meth")}
IN_THE_DATABASE = ("Batch", "Label")
WITHOUT_A_JOB = {
    "worker ready", "worker leaves", "model loaded and warm", "a process ended", "shutting down",
    "no heartbeat",
}  # fmt: skip
"""Events that are about a process."""


@cache
def disguises(token: str) -> frozenset[bytes]:
    """A token, and its first word alone, as they look after what might happen to them."""
    found: set[bytes] = set()
    for text in (token, token[:6]):
        words = {text, text.lower(), text.upper(), quote(text), quote_plus(text)}
        for word in words:
            found |= {word.encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be")}
            found.add(word.encode().hex().encode())
        found |= set(_in_base64(text.encode()))
    return frozenset(found)


def _in_base64(data: bytes) -> Iterator[bytes]:
    """What is in any base64 text that has these bytes somewhere."""
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data)
        sure = whole[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield sure
        yield sure.replace(b"+", b"-").replace(b"/", b"_")


def test_every_disguise_is_seen_through() -> None:
    token = TOKENS["Desc"]
    for text in (
        f"x{token}y", token.lower(), f"/{quote(token)}?", json.dumps({"a": token}),
        base64.b64encode(b"y" + token.encode() + b"z").decode(), token.encode().hex(),
    ):  # fmt: skip
        assert found_in(text.encode(), ["Desc"]), text
    assert found_in(token.encode("utf-16"), ["Desc"])
    assert not found_in(b"Zq" * 99, list(CARRIERS))


def found_in(data: bytes, names: list[str]) -> list[str]:
    return [name for name in names if any(one in data for one in disguises(TOKENS[name]))]


def planted(data: bytes) -> bytes:
    """An image with a name in every text of its header, and one in the gzip header."""
    image = nib.Nifti1Image.from_bytes(gzip.decompress(data))
    for field, name in (
        ("descrip", "Desc"), ("aux_file", "Auxi"), ("db_name", "Dbna"), ("intent_name", "Inte"),
    ):  # fmt: skip
        image.header[field] = TOKENS[name].encode()
    image.header.extensions.append(Nifti1Extension("comment", TOKENS["Comm"].encode()))
    image.header.extensions.append(Nifti1Extension("afni", TOKENS["Dicm"].encode()))
    packed = io.BytesIO()
    with gzip.GzipFile(f"{TOKENS['Gzip']}.nii", "wb", 1, packed) as file:
        file.write(image.to_bytes())
    return packed.getvalue()


def dicom_like() -> bytes:
    """The beginning of a DICOM file, with a patient's name."""
    name = TOKENS["Pati"].encode()
    element = b"\x10\x00\x10\x00PN" + len(name).to_bytes(2, "little") + name
    return bytes(128) + b"DICM" + element + bytes(200)


Form = list[tuple[str, tuple[str, bytes, str, dict[str, str]]]]


def form(images: dict[str, bytes]) -> Form:
    part = {"X-Name": TOKENS["Part"]}
    return [
        (contrast, (f"{TOKENS['File']}.nii.gz", data, f"image/{TOKENS['Type']}", part))
        for contrast, data in images.items()
    ]


HEADERS = {
    "User-Agent": TOKENS["Agen"],
    "Referer": f"http://127.0.0.1/{TOKENS['Refe']}",
    "Cookie": f"name={TOKENS['Cook']}",
    "baggage": f"name={quote(TOKENS['Bagg'])}",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "tracestate": f"vendor={TOKENS['Stat']}",
    f"X-{TOKENS['Head']}": TOKENS["Head"],
}


class Visit:
    """What a caller does, and every answer that is not about a batch of his own."""

    def __init__(self, server: Server, key: str) -> None:
        self.server, self.client = server, server.client
        self.client.headers.update({**HEADERS, "X-API-Key": key})
        self.answers: list[bytes] = []
        self.jobs: list[str] = []

    def ask(self, method: str, path: str, status: int, **rest: object) -> httpx.Response:
        answer = self.client.request(method, path, **rest)  # type: ignore[arg-type]
        assert answer.status_code == status, answer.text
        body = answer.content
        if body[:2] == b"\x1f\x8b":
            body += gzip.decompress(body)
        self.answers.append(repr(answer.headers.multi_items()).encode() + body)
        return answer

    def submit(self, images: dict[str, bytes], status: int = 202, **data: str) -> str:
        answer = self.client.post(
            f"/jobs?name={TOKENS['Quer']}",
            files=form(images),
            data={"batch": TOKENS["Batch"], **data},
            headers={"Idempotency-Key": f"{TOKENS['Idem']}{len(self.jobs)}"},
        )
        assert answer.status_code == status, answer.text
        self.jobs.append(str(answer.json()["id"]))
        return self.jobs[-1]

    def state(self, job: str) -> str:
        return str(self.client.get(f"/jobs/{job}").json()["state"])

    def speak(self, words: str) -> None:
        """What no HTTP library would send."""
        address = (self.client.base_url.host, self.client.base_url.port or 80)
        with socket.create_connection(address, 10) as line:
            line.sendall(words.replace("\n", "\r\n").encode() + b"\r\n\r\n")
            line.settimeout(10)
            self.answers.append(line.recv(65536))


def refusals(visit: Visit, images: dict[str, bytes]) -> None:
    """Requests that are wrong, each with a name in the place where it is wrong."""
    ask = visit.ask
    files = form(images)
    ask("GET", f"/patients/{TOKENS['Path']}?name={TOKENS['Quer']}", 404)
    ask("GET", f"/jobs/{TOKENS['Jobi']}", 404)
    ask("DELETE", f"/jobs/{TOKENS['Jobi']}/result", 405)
    ask("GET", f"/batches/{TOKENS['Path']}", 404)
    ask("GET", f"/models/{TOKENS['Modl']}", 404)
    ask("GET", f"/jobs?state={TOKENS['Quer']}&limit={TOKENS['Quer']}", 422)
    ask("POST", "/jobs", 422, files=files, data={"model": TOKENS["Modl"]})
    ask("POST", "/jobs", 422, files=files, data={"tta": TOKENS["Ttaa"]})
    ask("POST", "/jobs", 422, files=files, data={"batch": TOKENS["Path"]})
    ask("POST", "/jobs", 422, files=[*files, (TOKENS["Fiel"], b"x")])
    ask("POST", "/jobs", 422, files=files, headers={"Idempotency-Key": f"{TOKENS['Idem']} x"})
    ask("POST", "/jobs", 415, content=b"x", headers={"Content-Type": TOKENS["Type"]})
    ask("POST", "/segment", 406, files=files, headers={"Accept": TOKENS["Acce"]})
    ask("GET", "/jobs", 401, headers={"X-API-Key": TOKENS["Wron"]})
    ask("GET", "/jobs", 401, headers={"X-API-Key": "", "Authorization": TOKENS["Sche"]})
    ask("GET", "/models", 200, headers={"X-Request-ID": f"{TOKENS['Head']} x"})
    ask("GET", "/models", 200, headers={"traceparent": TOKENS["Parn"]})
    ask(TOKENS["Meth"], "/jobs", 405)
    visit.speak(f"GET /{TOKENS['Line']} HTTP/9.9\nHost: {TOKENS['Host']}")
    visit.speak(
        f"GET /{TOKENS['Sock']} HTTP/1.1\nHost: {TOKENS['Host']}\nUpgrade: websocket\n"
        "Connection: Upgrade\nSec-WebSocket-Version: 13\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
    )


def studies(visit: Visit, images: dict[str, bytes], data: Path, seen: Collector) -> None:
    """A study that is done, one that is known, two that cannot be read, one that is orphaned."""
    done = visit.submit(images)
    wait_until(lambda: visit.state(done) == "succeeded", 120)
    for accept in ("application/gzip", "application/json"):
        visit.ask("GET", f"/jobs/{done}/result", 200, headers={"Accept": accept})
    visit.submit(images)
    assert visit.state(visit.jobs[-1]) == "succeeded"
    for bad in (dicom_like(), images["t1"][:-400]):
        failed = visit.submit({**images, "t1": bad})
        wait_until(lambda job=failed: visit.state(job) == "failed", 120)  # type: ignore[misc]
        visit.ask("GET", f"/jobs/{failed}/result", 422)
    events = visit.client.get(f"/jobs/{done}/events", headers={"Last-Event-ID": TOKENS["Last"]})
    assert events.status_code == 200
    # a worker hands over its spans every few seconds, and one that is killed takes the rest along
    traced = {*visit.jobs[:1], *visit.jobs[2:]}
    wait_until(lambda: {s.attributes["segmamba.job.id"] for s in seen.spans("job")} == traced, 60)
    orphan(visit, data)


def orphan(visit: Visit, data: Path) -> None:
    """Kill the worker in the middle of a study, and cancel the next attempt at it."""
    large = {name: planted(it) for name, it in head_images(shape=(72, 72, 72)).items()}
    job = visit.submit(large, tta="full", cache="false")
    address = f"/jobs/{job}"
    wait_until(lambda: visit.client.get(address).json()["progress"]["done"] > 0, 120)
    kept = b"".join(path.read_bytes() for path in (data / "blobs" / "inputs").rglob("t1"))
    assert found_in(kept, ["Gzip"]), "the names did come in"
    assert found_in(gzip.decompress(kept), ["Desc", "Auxi", "Dbna", "Inte", "Comm"])
    for child in psutil.Process(visit.server.process.pid).children():
        if "worker" in child.cmdline()[-3:]:
            child.send_signal(signal.SIGKILL)
    wait_until(lambda: visit.client.get(address).json()["attempts"] == 2, 240)
    assert visit.client.delete(address).status_code == 202
    assert visit.state(job) == "cancelled"
    visit.ask("GET", f"{address}/result", 410)


def test_no_planted_name_is_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_bundle(tmp_path / "models")
    data, scratch = tmp_path / "data", tmp_path / "scratch"
    scratch.mkdir()
    key = make_key(data)
    secret = key.split("_", 2)[2].encode()  # it may hold the separator too
    assert len(secret) > 20
    with collector() as seen:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", seen.endpoint)
        monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
        monkeypatch.setenv("TMPDIR", str(scratch))
        settings = {"log_level": "debug", "auth": "keys", "audit_log": tmp_path / "audit.log"}
        with serve_process(tmp_path, data_dir=data, **settings) as server:
            wait_ready(server.client, 240)
            visit = Visit(server, key)
            images = {name: planted(it) for name, it in head_images().items()}
            refusals(visit, images)
            studies(visit, images, data, seen)
            metrics = server.client.get("/metrics").content
            check_metrics(server.client)
            wait_until(lambda: not list((data / "blobs" / "inputs").glob("*")), 60)
            living = dict(everything(data))
            server.stop(signal.SIGTERM, 90)
        said = {name: (tmp_path / name).read_bytes() for name in ("server.log", "server.out")}
    database = b"".join(body for name, body in living.items() if name.startswith("jobs.sqlite"))
    assert found_in(database, list(CARRIERS)) == list(IN_THE_DATABASE)
    said["audit.log"] = (tmp_path / "audit.log").read_bytes()
    said |= {f"answer {number}": body for number, body in enumerate(visit.answers)}
    said |= {"metrics": metrics, "traces": b"".join(seen.bodies)}
    for name, body in {**living, **dict(everything(data)), **dict(everything(scratch))}.items():
        allowed = IN_THE_DATABASE if name.startswith("jobs.sqlite") else ()
        hidden = [one for one in CARRIERS if one not in allowed]
        assert not found_in(name.encode(), list(CARRIERS)), name
        assert not found_in(body, hidden), name
        assert secret not in body, name
    for name, body in said.items():
        assert not found_in(body, list(CARRIERS)), name
        assert secret not in body, name
    check_traces(seen, visit.jobs)
    check_lines(said["server.log"].decode(), visit.jobs)


def make_key(data: Path) -> str:
    database = open_database(f"sqlite:///{data / 'jobs.sqlite'}")
    store = KeyStore(database)
    store.create_table()
    _, token = store.create(TOKENS["Label"], scopes=["admin"])
    database.dispose()
    return token


def everything(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file below a folder by its path, what is packed also unpacked."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            body = path.read_bytes()
            packed = body[:2] == b"\x1f\x8b"
            yield str(path.relative_to(folder)), body + gzip.decompress(body) if packed else body


def check_metrics(client: httpx.Client) -> None:
    assert metric(client, 'segmamba_job_retries_total{cause="worker-lost"}') == 1
    assert metric(client, 'segmamba_result_cache_total{outcome="hit"}') == 1
    ended = {"succeeded": 1, "failed": 2, "cancelled": 1}
    for state, count in ended.items():
        assert metric(client, f'segmamba_jobs_ended_total{{state="{state}"}}') == count


def check_traces(seen: Collector, jobs: list[str]) -> None:
    attempts = [span.attributes["segmamba.job.id"] for span in seen.spans("job")]
    cached, orphaned = jobs[1], jobs[-1]
    assert cached not in attempts
    assert set(jobs) - {cached} == set(attempts)
    (again,) = [s for s in seen.spans("job") if s.attributes["segmamba.job.id"] == orphaned]
    assert again.attributes["segmamba.retry"] == "worker-lost"
    assert again.attributes["segmamba.stopped"] is True
    assert seen.paths == {"/v1/traces"}


def check_lines(log: str, jobs: list[str]) -> None:
    """Each line is JSON, and names the request or the job that it is about."""
    lines = [json.loads(line) for line in log.splitlines()]
    ours = [line for line in lines if line["logger"].startswith("service")]
    nameless = {line["event"] for line in ours if not line.get("job") and "request_id" not in line}
    assert nameless <= WITHOUT_A_JOB
    for job in jobs:
        about = [line for line in lines if job in json.dumps(line)]
        assert {line.get("job") for line in about} == {job}
        assert {"service.request", "service.worker"} & {line["logger"] for line in about}
    assert {line["level"] for line in lines} >= {"debug", "info", "warning"}
    events = {(line["event"], line.get("job")) for line in ours}
    assert ("a job goes back to the queue", jobs[-1]) in events
