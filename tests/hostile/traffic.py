"""What strangers may send to the door instead of requests: a seeded mixture, as bytes on a wire.

Every attack is one connection: what is sent, how slowly, and how the caller leaves. Studies made of
the files of `tests.hostile.corpus` are among them; those get through the door and end as jobs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from model_core.types import CONTRASTS
from tests.hostile.corpus import SHAPE, Hostile, corpus
from tests.model_core.imaging.builders import nifti_bytes, random_image

Ending = Literal["read", "half", "first", "close", "reset"]
"""read: until the server has closed · half: the same, and say first that nothing more comes ·
first: the beginning of the answer, then a reset · close, reset: at once."""

BOUNDARY = b"xYz-boundary"
FORM = b"multipart/form-data; boundary=" + BOUNDARY
HOST = b"Host: 127.0.0.1"
NAME = b"JANE_DOE_1970"
"""A patient's name where a client might put one; it must never come back, nor reach the log."""


@dataclass(frozen=True)
class Attack:
    """One connection."""

    kind: str
    pieces: tuple[bytes, ...]
    ending: Ending = "read"
    pause: float = 0.0
    entry: Hostile | None = None
    """The hostile file that travels as an image of a study."""


Maker = Callable[[random.Random, Sequence[str]], Attack]
"""Makes an attack from a source of chance and the addresses of some jobs."""


def mixture(seed: int, count: int, jobs: Sequence[str]) -> Iterator[Attack]:
    """So many attacks; ``jobs`` may grow meanwhile, and later attacks know the later ones."""
    chance = random.Random(seed)
    makers, weights = zip(*MAKERS.items(), strict=True)
    for _ in range(count):
        yield chance.choices(makers, weights)[0](chance, jobs)


def studies(seed: int) -> Iterator[Attack]:
    """Each file of the corpus once, in one of four places, in random order."""
    chance = random.Random(seed)
    for entry in chance.sample(corpus(), len(corpus())):
        contrast = chance.choice(CONTRASTS)
        body = form({**good_images(), contrast: content(entry)}, {"cache": b"false"})
        yield Attack("study", (post("/jobs", body),), entry=entry)


@cache
def content(entry: Hostile) -> bytes:
    return entry.make()


@cache
def good_images() -> dict[str, bytes]:
    """Of the corpus's own shape."""
    return {name: nifti_bytes(random_image(SHAPE, seed=n)) for n, name in enumerate(CONTRASTS)}


# Requests, and forms


def request(
    target: bytes | str, method: bytes | str = b"GET", *headers: bytes, body: bytes = b"",
    host: bytes = HOST,
) -> bytes:  # fmt: skip
    """A request after which the server closes; a body has its length only if a header says it."""
    line = b" ".join((as_bytes(method), as_bytes(target), b"HTTP/1.1"))
    return b"\r\n".join((line, host, b"Connection: close", *headers, b"", b"")) + body


def post(target: str, body: bytes, content_type: bytes = FORM, *headers: bytes) -> bytes:
    """A whole POST request."""
    length = b"Content-Length: %d" % len(body)
    return request(target, "POST", b"Content-Type: " + content_type, length, *headers, body=body)


def as_bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def part(name: bytes, data: bytes, filename: bytes | None = None, *headers: bytes) -> bytes:
    named = b'; filename="%s"' % filename if filename is not None else b""
    head = b'Content-Disposition: form-data; name="%s"%s' % (name, named)
    return b"\r\n".join((b"--" + BOUNDARY, head, *headers, b"", data, b""))


def form(images: dict[str, bytes], options: dict[str, bytes] | None = None) -> bytes:
    parts = [part(name.encode(), data, NAME + b".nii") for name, data in images.items()]
    parts += [part(name.encode(), value) for name, value in (options or {}).items()]
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


def tiny_form(chance: random.Random, **options: bytes) -> bytes:
    """Four images of a few random bytes: quick to send, refused when they are read."""
    images = {name: chance.randbytes(chance.randint(1, 300)) for name in CONTRASTS}
    return form(images, options)


ROUTES = ("/segment", "/jobs")
READABLE = (
    "/", "/openapi.json", "/health/live", "/health/ready", "/models", "/models/tiny", "/jobs",
)  # fmt: skip


def address(chance: random.Random, jobs: Sequence[str]) -> str:
    """Of a job or its result; it need not exist."""
    job = chance.choice(jobs) if jobs and chance.random() < 0.8 else f"/jobs/{'0' * 32}"
    return job + chance.choice(("", "/result"))


# Makers


def broken_form(chance: random.Random, _jobs: Sequence[str]) -> Attack:
    whole = tiny_form(chance, tta=b"fast")
    field = part(b"t1", b"x", NAME)
    broken = [
        lambda: whole[: chance.randrange(len(whole))],
        lambda: whole.replace(BOUNDARY, b"another"),
        lambda: whole.replace(b"\r\n", b"\n"),
        lambda: damaged(chance, whole),
        lambda: b"",
        lambda: chance.randbytes(chance.randint(1, 2000)),
        lambda: field * 2 + whole,
        lambda: part(NAME, b"x") + whole,
        lambda: part(b"", b"x") + whole,
        lambda: part(b"../../t1", b"x") + whole,
        lambda: part(b"t1", b"x", b"../../../../etc/cron.d/x") + whole,
        lambda: part(b"t1", b"x", b"a\0b\xff\xfe") + whole,
        lambda: part(b"t" * 5000, b"x") + whole,
        lambda: part(b"t1", b"x", NAME, *[b"X-%d: y" % n for n in range(100)]) + whole,
        lambda: part(b"t1", b"x", NAME, b"X: " + b"y" * 10_000) + whole,
        lambda: part(b"t1", b"x", NAME, b"Content-Transfer-Encoding: base64") + whole,
        lambda: field.replace(b"Content-Disposition", b"Content-Nonsense") + whole,
        lambda: field.replace(b'name="t1"', b"name=") + whole,
        lambda: field.replace(b'name="t1"', b"name*=utf-8''t1%00") + whole,
        lambda: b"--" + BOUNDARY + b"\r\n\r\n\r\n" + whole,
        lambda: b"--" + BOUNDARY + b"--\r\n" + whole,
        lambda: part(b"t1", whole) + whole,
        lambda: whole + whole,
    ]
    return Attack("broken form", (post(chance.choice(ROUTES), chance.choice(broken)()),))


def damaged(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 20)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


CONTENT_TYPES = (
    b"", b"text/plain", b"application/json", b"application/x-www-form-urlencoded",
    b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/form-data; boundary=\"",
    b"multipart/form-data; boundary=" + b"x" * 300, b"multipart/form-data; boundary=\xff\xfe",
    b"multipart/mixed; boundary=xYz-boundary", b"multipart/form-data; boundary=a; boundary=b",
    b"multipart/form-data; charset=utf-7; boundary*=utf-16''%00", b"\xff" * 50, b";;;=;=",
    b"multipart/form-data; boundary*0=xYz; boundary*1=-boundary", b"a/b" * 3000,
)  # fmt: skip


def wrong_type(chance: random.Random, _jobs: Sequence[str]) -> Attack:
    sent = post(chance.choice(ROUTES), tiny_form(chance), chance.choice(CONTENT_TYPES))
    return Attack("wrong type", (sent,))


def lying_length(chance: random.Random, _jobs: Sequence[str]) -> Attack:
    body = tiny_form(chance)
    length = chance.choice(
        (b"0", b"1", b"%d" % (len(body) // 2), b"%d" % (len(body) + 1), b"%d" % 10**5, b"-1",
         b"%d" % 10**9, b"1" * 25, b"+5", b"0x10", b"1_0", b"\xb2", b"", b"abc", b"5, 5", b"5,6")
    )  # fmt: skip
    again = [b"Content-Length: 3"] if chance.random() < 0.2 else []
    kind = b"Content-Type: " + FORM
    sent = request(
        chance.choice(ROUTES), "POST", kind, b"Content-Length: " + length, *again, body=body
    )
    return Attack("lying length", (sent,), chance.choice(("read", "half", "close", "reset")))


def aborted(chance: random.Random, _jobs: Sequence[str]) -> Attack:
    """A good study, or one of noise, that ends in the middle."""
    body = form(good_images()) if chance.random() < 0.5 else tiny_form(chance)
    sent = post(chance.choice(ROUTES), body)
    sent = sent[: chance.randrange(1, len(sent))]
    step = len(sent) // chance.randint(1, 6) + 1
    pieces = tuple(sent[n : n + step] for n in range(0, len(sent), step))
    ending: Ending = chance.choice(("reset", "reset", "close", "half"))
    return Attack("aborted", pieces, ending, pause=chance.choice((0, 0.01, 0.1)))


def abandoned(chance: random.Random, _jobs: Sequence[str]) -> Attack:
    """A good study whose caller does not wait for its answer."""
    sent = post("/segment", form(good_images(), {"cache": b"false"}))
    return Attack("abandoned", (sent, b""), "reset", pause=chance.choice((0, 0.01, 0.1, 0.3)))


def huge_head(chance: random.Random, _jobs: Sequence[str]) -> Attack:
    size = chance.choice((1000, 10_000, 70_000, 300_000))
    heads = [
        lambda: request("/health/live", "GET", b"X-Filler: " + b"a" * size),
        lambda: request("/health/live", "GET", *[b"X-%d: a" % n for n in range(size // 10)]),
        lambda: request("/jobs?" + "a" * size),
        lambda: request("/jobs/" + "a" * size),
        lambda: request("/health/live", "GET", b"X-API-Key: " + b"k" * size),
        lambda: request("/jobs", "G" * size),
        lambda: b"GET / HTTP/1.1\r\n" + b"A" * size,
    ]
    sent = chance.choice(heads)()
    return Attack("huge head", (sent,), "read" if sent.endswith(b"\r\n\r\n") else "half")


ABSURD = (
    b"", b"none", b"fast", b"brats2021", b"nonsense", b"-1", b"1e308", b"NaN", b"\0", b"\xff\xfe",
    b"true", b"null", b"[]", b"{}", b"../../etc/passwd", b"' OR 1=1 --", b"${jndi:ldap://x}",
    b"%s%n", b"\r\nSet-Cookie: a=b", b"\xed\xa0\x80", "\U0001f9e0".encode(), b"a" * 300, b"x" * 64,
    b"tiny", b"__class__", b"high",
)  # fmt: skip
OPTIONS = ("model", "tta", "label_scheme", "postprocess", "window", "priority", "batch", "cache")


def absurd_options(chance: random.Random, _jobs: Sequence[str]) -> Attack:
    """Studies of noise; a few have options that are allowed and become jobs."""
    options = {name: chance.choice(ABSURD) for name in chance.sample(OPTIONS, 3)}
    return Attack("absurd options", (post(chance.choice(ROUTES), tiny_form(chance, **options)),))


CLIMBING = (
    b"../../../etc/passwd", b"..%2f..%2fetc%2fpasswd", b"%2e%2e/%2e%2e/etc/passwd",
    b"..%252f..%252fetc", b"....//....//etc/passwd", b"..\\..\\windows\\win.ini", b"%00", b"a%00b",
    b"..%c0%af..%c0%afetc", b"/etc/passwd", b"//etc/passwd", b"%2fetc%2fpasswd", b"~root", b".",
    b"..", b"%2e", b"%2e%2e", b"%", b"%zz", b"%ff%fe", b"\xff\xfe", b"%ed%a0%80", b"a" * 5000,
    b"'%20OR%201=1--", b"%0d%0aSet-Cookie:%20a=b", b"*", b"jobs.sqlite", b"..;/admin", b"{job_id}",
    "\u2025/\u2025/etc".encode(), b"0" * 32, b"A" * 32, b"0" * 33, b"-1", b"1e9", b"%3Cscript%3E",
)  # fmt: skip


def climbing(chance: random.Random, _jobs: Sequence[str]) -> Attack:
    places = (
        b"/jobs/%s", b"/jobs/%s/events", b"/jobs/%s/result", b"/batches/%s", b"/models/%s", b"/%s",
        b"/jobs?batch=%s", b"/jobs?state=%s",
    )  # fmt: skip
    target = chance.choice(places) % chance.choice(CLIMBING)
    return Attack("climbing", (request(target, chance.choice(("GET", "GET", "DELETE", "HEAD"))),))


METHODS = (
    "PUT", "PATCH", "TRACE", "CONNECT", "OPTIONS", "HEAD", "DELETE", "POST", "get", "PROPFIND",
    "FOO", "G" * 40, "GET\tPOST", "\x00", "",
)  # fmt: skip


def wrong_method(chance: random.Random, jobs: Sequence[str]) -> Attack:
    target = chance.choice((*READABLE, "/segment", "/metrics", "/batches/x", f"/jobs/{'0' * 32}"))
    return Attack("wrong method", (request(target, chance.choice(METHODS)),))


UNKNOWN = (
    "/admin", "/docs", "/redoc", "/.env", "/.git/config", "/wp-login.php", "/cgi-bin/test.cgi",
    "/v1/jobs", "/segment/", "/segment/x", "/jobs/", "//jobs", "/jobs//events", "/metrics/x",
    "/health", "/models/tiny/weights", "/openapi.yaml", "/static/../jobs", "/favicon.ico", "/?x=1",
)  # fmt: skip


def unknown_route(chance: random.Random, _jobs: Sequence[str]) -> Attack:
    sent = request(chance.choice(UNKNOWN), chance.choice(("GET", "POST", "DELETE")))
    return Attack("unknown route", (sent,))


HEADER_VALUES = (
    b"", b"bytes=0-", b"bytes=5-2", b"bytes=-1", b"bytes=" + b"0-0," * 500, b"*/*;q=2", b"q=;;",
    b"application/json;q=nan", b"text/html, " * 200, b"\xff\xfe", b"a\0b", b"-1", b"9" * 40,
    b"\xc2\xb2", b"1e3", b"NaN", b"None", b" " * 50, b"k" * 200, b"key with spaces", b"../../x",
    b"\xd9\xa3", b"100-continue", b"respond-async", b"identity;q=0", b"W/\"x\"", b"0", b"now",
    b"http://[::1", b"null", b"http://evil.example", b"cross-site", b"file:///etc/passwd",
)  # fmt: skip
HEADER_NAMES = (
    b"Range", b"Accept", b"Idempotency-Key", b"Last-Event-ID", b"If-None-Match", b"If-Range",
    b"Accept-Encoding", b"X-Request-ID", b"X-API-Key", b"Authorization", b"Expect", b"Upgrade",
    b"Prefer", b"Origin", b"Sec-Fetch-Site", b"Cookie", b"Forwarded", b"TE",
    b"X-Forwarded-For", b"traceparent",
)  # fmt: skip


def bad_headers(chance: random.Random, jobs: Sequence[str]) -> Attack:
    headers = [
        b"%s: %s" % (name, chance.choice(HEADER_VALUES)) for name in chance.sample(HEADER_NAMES, 3)
    ]
    if chance.random() < 0.1:
        sent = post(chance.choice(ROUTES), tiny_form(chance), FORM, *headers)
    else:
        sent = request(chance.choice((*READABLE, address(chance, jobs))), "GET", *headers)
    return Attack("bad headers", (sent,))


HOSTS = (
    b"", b"x", b"evil.example", b"127.0.0.1.evil.example", b"127.0.0.1:99999999", b"127.0.0.1@x",
    b"[::1", b"[::1]:80", b"localhost:", b"\xff\xfe", b"127.0.0.1, x", b"0", b"a" * 5000, b"../..",
    b"127.0.0.1\tx", b"LOCALHOST", b"2130706433", b"127.1", b"\xe2\x93\x9bocalhost", b"..",
)  # fmt: skip


def foreign_host(chance: random.Random, jobs: Sequence[str]) -> Attack:
    target, method = chance.choice(READABLE), chance.choice(("GET", "DELETE", "POST"))
    sent = request(target, method, host=b"Host: " + chance.choice(HOSTS))
    return Attack("foreign host", (sent,))


def bad_query(chance: random.Random, _jobs: Sequence[str]) -> Attack:
    numbers = (b"0", b"-1", b"1", b"200", b"201", b"%d" % 2**31, b"%d" % 2**63, b"9" * 400, b"1.5",
               b"NaN", b"", b"%00", b"\xff", b"1e5", b"%EF%BC%91", b"None")  # fmt: skip
    names = (b"limit", b"before", b"batch", b"state", NAME)
    pairs = [b"%s=%s" % (chance.choice(names), chance.choice(numbers)) for _ in range(2)]
    return Attack("bad query", (request(b"/jobs?" + b"&".join(pairs)),))


def leaving_follower(chance: random.Random, jobs: Sequence[str]) -> Attack:
    """Somebody who asks for a job's events and is gone."""
    job = chance.choice(jobs) if jobs else f"/jobs/{'0' * 32}"
    known = b"Last-Event-ID: " + chance.choice((b"0", b"1", b"99999", b"x", b"\xff"))
    sent = request(f"{job}/events", "GET", b"Accept: text/event-stream", known)
    ending: Ending = chance.choice(("first", "first", "close", "reset", "half"))
    return Attack("leaving follower", (sent, b""), ending, pause=chance.choice((0, 0.05)))


def smuggled(chance: random.Random, _jobs: Sequence[str]) -> Attack:
    """Two ways to say where a request ends, and a second request in the gap."""
    inner = request("/jobs", "DELETE")
    chunked, length = b"Transfer-Encoding: chunked", b"Content-Length: %d" % len(inner)
    kind = b"Content-Type: " + FORM
    shapes = [
        (b"Content-Length: 4", chunked, b"5c\r\n" + inner + b"\r\n0\r\n\r\n"),
        (length, chunked, b"0\r\n\r\n" + inner),
        (chunked, b"Transfer-Encoding: identity", b"0\r\n\r\n" + inner),
        (b"Transfer-Encoding : chunked", length, b"0\r\n\r\n" + inner),
        (b"Transfer-Encoding:\x0bchunked", length, b"0\r\n\r\n" + inner),
        (b"X: y\r\n Transfer-Encoding: chunked", length, b"0\r\n\r\n" + inner),
        (b"X: y\nTransfer-Encoding: chunked", length, b"0\r\n\r\n" + inner),
        (b"Content-Length: 0", length, inner),
        (chunked, b"X: y", b"ffffffffffffffff\r\n" + inner),
        (chunked, b"X: y", b"-1\r\n" + inner),
        (chunked, b"X: y", b"5;" + b"e" * 9000 + b"\r\nhello\r\n0\r\n\r\n"),
        (chunked, b"X: y", b"0\r\n" + b"T: y\r\n" * 500 + b"\r\n"),
        (b"Transfer-Encoding: gzip, chunked", b"X: y", b"0\r\n\r\n" + inner),
    ]
    first, second, body = chance.choice(shapes)
    sent = request(chance.choice(ROUTES), "POST", kind, first, second, body=body)
    return Attack("smuggled", (sent, b""), "half", pause=0.1)


def pipelined(chance: random.Random, _jobs: Sequence[str]) -> Attack:
    """Several requests at once, and then something else."""
    alive = b"GET /health/live HTTP/1.1\r\n" + HOST + b"\r\n\r\n"
    unfinished = post("/jobs", tiny_form(chance))[:-20]
    noise = (chance.randbytes(200), b"\r\n" * 50, b"GET / HTTP/1.1\r\n", bytes(100), unfinished)
    rest = chance.choice(noise)
    return Attack("pipelined", (alive * chance.randint(1, 30) + rest, b""), "half", pause=0.1)


def no_http(chance: random.Random, _jobs: Sequence[str]) -> Attack:
    head = b" HTTP/1.1\r\n" + HOST + b"\r\n"
    noise = (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(200), b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(40), b"GET / HTTP/0.9\r\n\r\n", b"GET /\r\n",
        b"POST /segment HTTP/9.9\r\n\r\n", b"", b"\r\n" * 500, chance.randbytes(2000), bytes(5000),
        b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET http://[::1" + head + b"\r\n", b"GET  / " + head + b"\r\n", b"GET *" + head + b"\r\n",
        b"GET /\xff\xfe" + head + b"\r\n", b"GET /" + head + b"A\xff\xfe: \xff\r\n\r\n",
        b"GET /" + head + b": y\r\n\r\n", b"HELO x\r\nQUIT\r\n", b"GET / HTTP/1.0\r\n\r\n",
        b"GET /openapi.json" + head + b"Connection: upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )  # fmt: skip
    ending: Ending = chance.choice(("half", "half", "reset"))
    return Attack("no HTTP", (chance.choice(noise), b""), ending, pause=0.05)


MAKERS: dict[Maker, float] = {
    broken_form: 16, wrong_type: 6, lying_length: 9, aborted: 8, abandoned: 0.5, huge_head: 5,
    absurd_options: 6, climbing: 12, wrong_method: 5, unknown_route: 5, bad_headers: 8,
    foreign_host: 2, bad_query: 5, leaving_follower: 4, smuggled: 4, pipelined: 2, no_http: 5,
}  # fmt: skip
"""Every maker with its share."""
