"""A real PACS of this test run's own: Debian's Orthanc with its DICOMweb plugin, on loopback."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

PROGRAM = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "segmamba", "correct horse"

REFUSE_OTHERS = """
function ReceivedInstanceFilter(dicom, origin, info)
  return dicom.Modality ~= 'OT'
end
"""
"""It stores nothing whose modality is OT."""


@dataclass(frozen=True)
class Orthanc:
    """A running server; `url` is the root of its DICOMweb services.

    Args:
        root: address of its own interface.
        log: what it said.
    """

    root: str
    log: Path

    @property
    def url(self) -> str:
        return f"{self.root}/dicom-web"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that let a client in."""
        return {"SEGMAMBA_DICOMWEB_USER": USER, "SEGMAMBA_DICOMWEB_PASSWORD": PASSWORD}

    def client(self) -> httpx.Client:
        """A client of Orthanc's own interface, which shares no code with what is tested."""
        return httpx.Client(base_url=self.root, auth=(USER, PASSWORD), timeout=30)

    def files(self) -> Mapping[str, bytes]:
        """Every instance it has, as a file, by SOPInstanceUID."""
        with self.client() as client:
            return {
                one["MainDicomTags"]["SOPInstanceUID"]: client.get(
                    f"/instances/{one['ID']}/file"
                ).content
                for one in client.get("/instances?expand").json()
            }


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Orthanc]:
    """A server that keeps its data below a folder; skips the test where there is no Orthanc."""
    if not Path(PROGRAM).exists() or not PLUGIN.exists():
        pytest.skip("no Orthanc with DICOMweb here (Debian: orthanc, orthanc-dicomweb)")
    folder.mkdir(parents=True, exist_ok=True)
    port, log = _free_port(), folder / "orthanc.log"
    configuration = _write_configuration(folder, port)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PROGRAM, str(configuration)], stdout=output, stderr=subprocess.STDOUT, cwd=folder
        )
    server = Orthanc(f"http://127.0.0.1:{port}", log)
    try:
        deadline = time.monotonic() + 60
        while not _answers(server, process):
            assert time.monotonic() < deadline, "Orthanc did not come up"
            time.sleep(0.05)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(server: Orthanc, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, server.log.read_text(errors="replace")[-2000:]
    try:
        with server.client() as client:
            return client.get("/dicom-web/studies").status_code == 200
    except httpx.TransportError:
        return False


def _write_configuration(folder: Path, port: int) -> Path:
    script = folder / "filter.lua"
    script.write_text(REFUSE_OTHERS)
    path = folder / "orthanc.json"
    settings = {
        "Name": "TEST",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,  # whoever is not on loopback is turned away
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "Plugins": [str(PLUGIN)],
        "LuaScripts": [str(script)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    path.write_text(json.dumps(settings))
    return path


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
