"""An S3 server of this test run's own: moto's, over real HTTP on a port of loopback."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import uuid4

import boto3
import httpx
from moto.server import ThreadedMotoServer

_REGION = "eu-central-1"
_RIGHTS = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}],
}


@dataclass(frozen=True)
class ObjectStorage:
    """A server that lets in whoever has its one key.

    Args:
        endpoint: its address.
        key: the id of the key.
        secret: what belongs to it.
    """

    endpoint: str
    key: str
    secret: str

    def environment(self, **replaced: str) -> dict[str, str]:
        """The variables by which every S3 client finds it, and fails soon where it is not."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": _REGION,
            "AWS_MAX_ATTEMPTS": "1",
            **replaced,
        }

    def client(self, service: str = "s3") -> Any:
        """A client that shares no code with what is tested."""
        return _client(self.endpoint, service, self.key, self.secret)

    def new_bucket(self) -> str:
        """The name of an empty bucket."""
        name = f"test-{uuid4().hex}"
        where = {"LocationConstraint": _REGION}
        self.client().create_bucket(Bucket=name, CreateBucketConfiguration=where)
        return name

    def keys(self, bucket: str) -> list[str]:
        """All keys of a bucket."""
        found = self.client().list_objects_v2(Bucket=bucket).get("Contents", [])
        return [entry["Key"] for entry in found]


@contextmanager
def object_storage() -> Iterator[ObjectStorage]:
    """A running server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    try:
        users = _client(endpoint, "iam", "any", "any")
        users.create_user(UserName="segmamba")
        users.put_user_policy(
            UserName="segmamba", PolicyName="all", PolicyDocument=json.dumps(_RIGHTS)
        )
        made: Mapping[str, str] = users.create_access_key(UserName="segmamba")["AccessKey"]
        # from here on it looks at signatures and rights
        httpx.post(f"{endpoint}/moto-api/reset-auth", content=b"0").raise_for_status()
        yield ObjectStorage(endpoint, made["AccessKeyId"], made["SecretAccessKey"])
    finally:
        httpx.post(f"{endpoint}/moto-api/reset-auth", content=b"inf")
        httpx.post(f"{endpoint}/moto-api/reset")
        server.stop()


@contextmanager
def narrow_pipe(endpoint: str, limit: int) -> Iterator[tuple[str, threading.Event]]:
    """The address of a way to a server, and what is set when it is stuck.

    It is, for everybody and for good, once more than ``limit`` bytes have gone to the server.
    """
    there = endpoint.removeprefix("http://").split(":")
    sent, stuck = 0, threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as ends:

        def carry(source: socket.socket, sink: socket.socket, *, back: bool) -> None:
            nonlocal sent
            with suppress(OSError):
                while chunk := source.recv(1 << 16):
                    sent += 0 if back else len(chunk)
                    if sent > limit:
                        stuck.set()
                        return
                    sink.sendall(chunk)
                sink.shutdown(socket.SHUT_WR)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near = ends.enter_context(listener.accept()[0])
                    far = ends.enter_context(socket.create_connection((there[0], int(there[1]))))
                    for source, sink, back in ((near, far, False), (far, near, True)):
                        arguments = {"source": source, "sink": sink, "back": back}
                        threading.Thread(target=carry, kwargs=arguments, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", stuck
        listener.shutdown(socket.SHUT_RDWR)


@cache
def _client(endpoint: str, service: str, key: str, secret: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=_REGION,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
    )
