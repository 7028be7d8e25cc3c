"""Attacks on their way: raw sockets, many at a time, and what came back on each."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from tests.hostile.traffic import NAME, Attack

AT_A_TIME = 24
LONGEST_SECONDS = 90.0
"""For one connection; a server that says nothing for so long has hung."""
LARGEST_ANSWER = 2**22
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_JOB = re.compile(rb"\r\nlocation: (/jobs/[0-9a-f]{32})\r\n", re.IGNORECASE)
_WAIT = re.compile(rb"\r\nretry-after: \d+\r\n", re.IGNORECASE)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Tally:
    """What came back."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often an attack of a kind was answered with a status."""
    bad: list[tuple[Attack, bytes]] = field(default_factory=list)
    """Answers that should not be."""
    jobs: list[str] = field(default_factory=list)
    """Addresses of jobs that were made."""
    studies: dict[str, Attack] = field(default_factory=dict)
    """Those of hostile files among them."""
    refused: list[tuple[Attack, bytes]] = field(default_factory=list)
    """Studies of hostile files that did not become jobs."""
    silent: int = 0
    """Connections that had to be given up."""

    @property
    def answers(self) -> Counter[int]:
        """How often each status came."""
        found: Counter[int] = Counter()
        for (_, status), times in self.statuses.items():
            found[status] += times
        return found

    def note(self, attack: Attack, answer: bytes) -> None:
        """Take down what one connection brought."""
        for status in map(int, _STATUS.findall(answer)):
            self.statuses[attack.kind, status] += 1
            later = status in (503, 507) and _WAIT.search(answer)
            if status >= 500 and not later:
                self.bad.append((attack, answer))
        if NAME in answer or b"Traceback" in answer or b"root:" in answer:
            self.bad.append((attack, answer))
        job = _JOB.search(answer)
        if job is not None:
            self.jobs.append(job[1].decode())
        if attack.entry is not None and job is not None:
            self.studies[self.jobs[-1]] = attack
        elif attack.entry is not None:
            self.refused.append((attack, answer))


async def storm(host: str, port: int, attacks: Iterable[Attack], tally: Tally) -> None:
    """Carry out all attacks, `AT_A_TIME` at a time."""
    waiting = iter(attacks)

    async def caller() -> None:
        for attack in waiting:  # shared by all callers
            try:
                async with asyncio.timeout(LONGEST_SECONDS):
                    tally.note(attack, await carry_out(host, port, attack))
            except TimeoutError:
                tally.silent += 1
                tally.bad.append((attack, b"no answer in time"))

    await asyncio.gather(*(caller() for _ in range(AT_A_TIME)))


async def carry_out(host: str, port: int, attack: Attack) -> bytes:
    """Send an attack; what the server said, as far as its caller stayed to hear it."""
    reader, writer = await asyncio.open_connection(host, port)
    said = b""
    try:
        with suppress(OSError):  # a server may hang up on such a caller at any time
            for piece in attack.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(attack.pause)
            said = await _hear(reader, writer, attack)
    finally:
        with suppress(OSError):  # it may be closed already
            if attack.ending in ("first", "reset"):
                line = writer.get_extra_info("socket")
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.close()
            await writer.wait_closed()
    return said


async def _hear(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, attack: Attack
) -> bytes:
    if attack.ending in ("close", "reset"):
        return b""
    if attack.ending == "first":
        return await reader.read(1000)
    if attack.ending == "half":
        writer.write_eof()
    said = b""
    with suppress(ConnectionError):  # what came before a reset has been heard
        while (more := await reader.read(2**16)) and len(said) < LARGEST_ANSWER:
            said += more
    return said
