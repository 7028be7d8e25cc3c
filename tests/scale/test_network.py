"""The network that the faults happen in: apart from the machine's own, and as it claims to be."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.scale.network import Host, Network, hindrance

pytestmark = pytest.mark.slow


@pytest.fixture
def network() -> Iterator[Network]:
    if (why := hindrance()) is not None:
        pytest.skip(why)
    with Network() as network:
        yield network


def answers(host: Host) -> threading.Thread:
    """A thread on a host that answers one caller after the other with one word."""
    with host.entered():
        listener = socket.create_server((host.address, 7777))

        def answer() -> None:
            with listener:
                for _ in range(2):
                    with listener.accept()[0] as caller:
                        caller.sendall(b"here")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
    return thread


def heard(host: Host) -> bytes:
    with socket.create_connection((host.address, 7777), timeout=2) as connection:
        return connection.recv(4)


def test_hosts_hear_each_other_until_the_cable_is_pulled(network: Network) -> None:
    one, two = network.host("one"), network.host("two")
    thread = answers(two)
    with pytest.raises(OSError, match=r"unreachable|timed out|refused"):
        heard(two)  # nothing of it is seen from the machine's own network
    with one.entered():
        assert heard(two) == b"here"
        two.cut()
        with pytest.raises(OSError, match=r"timed out|No route"):
            heard(two)
        two.mend()
        assert heard(two) == b"here"
    thread.join(5)
    assert not thread.is_alive()


def test_a_host_without_power_has_no_processes_and_the_others_keep_theirs(
    network: Network,
) -> None:
    one, two = network.host("one"), network.host("two")
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    running = []
    for host in (one, two):
        with host.entered():
            running.append(subprocess.Popen(sleeper))
    assert [host.processes() for host in (one, two)] == [[one.pid] for one in running]
    one.lose_power()
    assert running[0].wait(5) == -9
    assert running[1].poll() is None
    running[1].kill()
    running[1].wait(5)


def test_nothing_is_left_of_it(network: Network) -> None:
    inner = Network()
    with inner:
        inner.host("one")
        names = subprocess.run(["ip", "netns"], check=True, capture_output=True, text=True).stdout
        assert inner.namespace("one") in names
    names = subprocess.run(["ip", "netns"], check=True, capture_output=True, text=True).stdout
    assert inner.namespace("one") not in names
    assert inner.namespace("switch") not in names
