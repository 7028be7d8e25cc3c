"""What runs on the hosts: PostgreSQL, an S3 server, and this project's processes."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import boto3

from tests.scale.network import SUBNET, Host
from tests.service.fakes import wait_until
from tests.service.jobs.postgres import Cluster
from tests.service.servers import COMMAND

API_PORT = 8000
STORE_PORT = 5000
BUCKET = "studies"
NOTICES_DEAD_CALLERS = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "30s",
}
NOTICES_A_DEAD_SERVER = (
    "connect_timeout=5&keepalives_idle=10&keepalives_interval=5&keepalives_count=3"
    "&tcp_user_timeout=20000"
)
"""As docs/how-to/capacity.md asks for, on both ends of a connection."""


class DatabaseHost(Cluster):
    """PostgreSQL on a host; the others may come in.

    Args:
        folder: for its data.
        host: that it runs on.
    """

    def __init__(self, folder: Path, host: Host) -> None:
        self.host = host
        super().__init__(folder)
        with (self.data / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {SUBNET} trust\n")

    def start(self) -> None:
        """Start, and wait until it answers."""
        given = {"listen_addresses": self.host.address, "fsync": "off"} | NOTICES_DEAD_CALLERS
        settings = " ".join(f"-c {name}={value}" for name, value in given.items())
        options = f"-p {self.port} -k {self.folder} {settings}"
        log = str(self.folder / "server.log")
        with self.host.entered():
            self._run("pg_ctl", "-D", str(self.data), "-w", "-l", log, "-o", options, "start")

    def _url(self, database: str) -> str:
        where = f"{self.host.address}:{self.port}/{database}"
        return f"postgresql://tester@{where}?{NOTICES_A_DEAD_SERVER}"


class StoreHost:
    """moto's S3 server on a host; its log tells every request.

    Args:
        folder: for its log.
        host: that it runs on.
    """

    def __init__(self, folder: Path, host: Host) -> None:
        self.host, self._log = host, folder / "store.log"
        self.endpoint = f"http://{host.address}:{STORE_PORT}"
        command = ["-m", "moto.server", "-H", host.address, "-p", str(STORE_PORT)]
        host.start([sys.executable, *command], {}, self._log)
        wait_until(lambda: "Running on" in self._log.read_text(), 60)
        self._client = boto3.client("s3", **self._access())
        self._client.create_bucket(Bucket=BUCKET)

    def environment(self) -> dict[str, str]:
        """The variables by which every S3 client finds it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_RETRY_MODE": "standard",
            "AWS_MAX_ATTEMPTS": "10",
        }

    def keys(self) -> set[str]:
        """All that lies in the bucket."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return {entry["Key"] for page in pages for entry in page.get("Contents", ())}

    def writings(self, key: str) -> int:
        """How often an object has been written."""
        return len(re.findall(rf'"PUT /{BUCKET}/{re.escape(key)}\W', self._log.read_text()))

    def _access(self) -> dict[str, str]:
        return {
            "endpoint_url": self.endpoint,
            "region_name": "us-east-1",
            "aws_access_key_id": "any",
            "aws_secret_access_key": "any",
        }


def start_api(host: Host, folder: Path, environment: Mapping[str, str]) -> str:
    """``segmamba api`` on a host; its address."""
    variables = {"SEGMAMBA_HOST": host.address, "SEGMAMBA_PORT": str(API_PORT)}
    start_segmamba(host, "api", folder, {**environment, **variables})
    return f"http://{host.address}:{API_PORT}"


def start_segmamba(host: Host, command: str, folder: Path, environment: Mapping[str, str]) -> None:
    """A process of this project on a host, with a folder that no other host has."""
    own = {"SEGMAMBA_DATA_DIR": str(folder / host.name), "SEGMAMBA_WORKER_ID": host.name}
    host.start([*COMMAND, command], {**environment, **own}, folder / f"{host.name}.log")
