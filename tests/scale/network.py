"""A network of its own for a test: hosts are network namespaces, and one switch is between them.

Everything lies in namespaces: neither the machine's addresses nor its routes are touched. A host's
cable can be pulled, which nobody is told of, as when a switch fails; and a host can lose its power.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

SUBNET = "10.213.77.0/24"
_CLONE_NEWNET = 0x40000000
_OWN = Path("/proc/thread-self/ns/net")


class Host:
    """A machine of the network, as far as the network can tell.

    Args:
        network: that it is in.
        name: of its namespace.
        number: its place at the switch.
    """

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.name, self.address = name, f"10.213.77.{number}"
        self._network, self._port = network, f"port{number}"
        self._namespace = network.namespace(name)
        switch = network.namespace("switch")
        network.add_namespace(name)
        peer = ("peer", "name", self._port, "netns", switch)
        self._ip("link", "add", "eth0", "type", "veth", *peer)
        _ip("-n", switch, "link", "set", self._port, "master", "bridge", "up")
        self._ip("address", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self._ip("link", "set", device, "up")
        self._started: list[subprocess.Popen[bytes]] = []

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and whatever it starts meanwhile, is on this host."""
        before = os.open(_OWN, os.O_RDONLY)
        try:
            with Path(f"/run/netns/{self._namespace}").open("rb") as there:
                _move_to(there.fileno())
            yield
        finally:
            _move_to(before)
            os.close(before)

    def start(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        """A process on this host, with these variables beside ours; it ends with the power."""
        with log.open("wb") as file, self.entered():
            variables = {**os.environ, **environment}
            process = subprocess.Popen(command, stdout=file, stderr=file, env=variables)
        self._started.append(process)

    def cut(self) -> None:
        """Pull the cable out of the switch."""
        _ip("-n", self._network.namespace("switch"), "link", "set", self._port, "down")

    def mend(self) -> None:
        """Plug it in again."""
        _ip("-n", self._network.namespace("switch"), "link", "set", self._port, "up")

    def lose_power(self) -> None:
        """End everything at once; nobody hears of it, for the cable goes first."""
        self.cut()
        for number in self.processes():
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        for process in self._started:
            process.wait(20)

    def processes(self) -> list[int]:
        """The numbers of what runs here."""
        return [int(word) for word in _ip("netns", "pids", self._namespace).split()]

    def _ip(self, *words: str) -> str:
        return _ip("-n", self._namespace, *words)


class Network:
    """Hosts at one switch; a context, at whose end all of it is gone."""

    def __init__(self) -> None:
        self._prefix = f"segmamba-{uuid4().hex[:8]}"
        self._namespaces: list[str] = []
        self.hosts: list[Host] = []

    def __enter__(self) -> Network:
        switch = self.add_namespace("switch")
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            host.lose_power()
        for namespace in self._namespaces:
            _ip("netns", "delete", namespace)

    def host(self, name: str) -> Host:
        """Another machine."""
        host = Host(self, name, len(self.hosts) + 1)
        self.hosts.append(host)
        return host

    def add_namespace(self, name: str) -> str:
        """Make the namespace of a machine, or of the switch; what it is called."""
        namespace = self.namespace(name)
        _ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        return namespace

    def namespace(self, name: str) -> str:
        """What the namespace of a machine, or of the switch, is called."""
        return f"{self._prefix}-{name}"


def hindrance() -> str | None:
    """Why there can be no such network here, and what to do about it; None where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root (sudo, or a container with CAP_SYS_ADMIN)"
    if shutil.which("ip") is None:
        return "iproute2 is not installed (make servers)"
    try:
        with Network() as network, network.host("probe").entered():
            return None
    except (subprocess.CalledProcessError, OSError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return f"this system allows no network namespaces: {said.strip()}"


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=30)
    return done.stdout


def _move_to(descriptor: int) -> None:
    """Move this thread into a network namespace (setns, which Python 3.11 does not have)."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
