"""A service that is pretended inside the browser: its answers can be late, refused or odd."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from service.page.assets import HOME, REFERENCE, asset

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

ADDRESS = "http://page.test"
JOB, OTHER_JOB = "a" * 32, "b" * 32
CONTRASTS = ("t1", "t1ce", "t2", "flair")
NAMES = ("WT", "TC", "ET", "NCR", "ED")


class Pretended:
    """Answers every request of one page.

    Attributes:
        states: of jobs, by id.
        files: of results, by job and name.
        sums: what stands for the checksums of a job's images.
        listed: what `GET /jobs` answers.
        refusals: what the address matches → status and seconds of `Retry-After`, until removed.
        held: the requests that `hold` keeps waiting.
        asked: the methods and addresses of all requests.
    """

    def __init__(self, page: Page) -> None:
        self.states = {JOB: "succeeded", OTHER_JOB: "succeeded"}
        self.files = {job: {"segmentation.nii.gz": packed(block())} for job in self.states}
        self.sums = dict.fromkeys(self.states, "0")
        self.listed: list[dict[str, Any]] = []
        self.inspected: dict[str, Any] = study()
        self.refusals: dict[str, tuple[int, int]] = {}
        self.held: list[Route] = []
        self.hold: str | None = None
        self.asked: list[tuple[str, str]] = []
        self.page = page
        page.route("**/*", self._take)

    def wait_held(self) -> Route:
        """The request that is kept waiting, once it is there; nothing is held after it."""
        while not self.held:
            self.page.wait_for_timeout(20)
        self.hold = None
        return self.held.pop()

    def answer(self, route: Route) -> None:
        """Answer one request."""
        path = route.request.url.removeprefix(ADDRESS)
        for pattern, (status, seconds) in self.refusals.items():
            if re.search(pattern, path):
                said = {"detail": f"Refused by {status}.", "status": status}
                send(route, said, status, {"Retry-After": str(seconds)})
                return
        name = {"/": HOME, "/docs": REFERENCE}.get(path, path.removeprefix("/page/"))
        if (found := asset(name)) is not None:
            route.fulfill(body=found.content, content_type=found.media_type)
            return
        for pattern, reply in self._replies().items():
            if told := re.fullmatch(pattern, path.partition("?")[0]):
                reply(route, *told.groups())
                return
        send(route, {"detail": "There is no such thing."}, 404)

    def _take(self, route: Route) -> None:
        path = route.request.url.removeprefix(ADDRESS)
        self.asked.append((route.request.method, path))
        if self.hold is not None and re.search(self.hold, path):
            self.held.append(route)
        else:
            self.answer(route)

    def _replies(self) -> dict[str, Callable[..., None]]:
        return {
            "/models": lambda route: send(route, {"default": "m", "models": [model()]}),
            "/models/m": lambda route: send(route, model()),
            "/page/sample/(.+)": lambda route, name: route.fulfill(body=name.encode()),
            "/inspect": lambda route: send(route, self.inspected),
            "/jobs": self._jobs,
            r"/jobs/(\w+)": lambda route, job: send(route, self.job(job)),
            r"/jobs/(\w+)/events": self._events,
            r"/jobs/(\w+)/cancel": lambda route, job: send(route, self.job(job)),
            r"/jobs/(\w+)/files": self._list,
            r"/jobs/(\w+)/files/(.+)": self._file,
        }

    def _jobs(self, route: Route) -> None:
        if route.request.method == "POST":
            send(route, self.job(JOB), 202)
        else:
            send(route, {"jobs": self.listed, "next": None})

    def _events(self, route: Route, job: str) -> None:
        route.fulfill(body=event(self.job(job)), content_type="text/event-stream")

    def _list(self, route: Route, job: str) -> None:
        names = [{"name": name, "href": f"/jobs/{job}/files/{name}"} for name in self.files[job]]
        send(route, {"files": names})

    def _file(self, route: Route, job: str, name: str) -> None:
        if name == "report.json":
            send(route, report(job))
        elif name == "run.json":
            send(route, run(self.sums[job]))
        else:
            route.fulfill(body=self.files[job][name], content_type="application/gzip")

    def job(self, job: str, **changes: Any) -> dict[str, Any]:
        """A job as the service tells of it."""
        state = changes.get("state", self.states[job])
        links = {name: f"/jobs/{job}/{name}" for name in ("events", "result", "files")}
        times = dict.fromkeys(("created", "started", "ended"), "2026-01-01T00:00:00Z")
        told = {
            "id": job, "state": state, "position": None, "eta_s": None, "attempts": 1,
            "progress": {"stage": "infer", "done": 1, "total": 9}, "error": None, "model": "m",
            "model_version": "1", "options": {}, "batch": None, "cached": False, **times,
            "links": {"self": f"/jobs/{job}", **links},
        }  # fmt: skip
        return told | changes


def send(route: Route, said: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
    """Answer with JSON."""
    kind = {"Content-Type": "application/json"}
    route.fulfill(status=status, headers=kind | (headers or {}), body=json.dumps(said))


def event(job: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"id: 9\ndata: {json.dumps(job)}\n\n"


def block(value: int = 1, *, affine: NDArray[np.float64] | None = None) -> nib.Nifti1Image:
    """A box of one label in an image of 24³ voxels."""
    array = np.zeros((24, 24, 24), np.uint8)
    array[6:18, 6:18, 6:18] = value
    return nib.Nifti1Image(array, np.diag([-1.0, -1, 1, 1]) if affine is None else affine)


def packed(image: nib.Nifti1Image) -> bytes:
    """The image as a ``.nii.gz``."""
    return gzip.compress(image.to_bytes(), 1)


def study(**changes: Any) -> dict[str, Any]:
    """What `POST /inspect` says of four images that may be segmented."""
    seen = {"shape": [1, 1, 1], "spacing_mm": [1, 1, 1], "confidence": 1}
    series = [{"contrast": contrast, **seen} for contrast in CONTRASTS]
    return {"series": series, "study": {"missing": [], "ready": True}} | changes


def model() -> dict[str, Any]:
    """The only model."""
    return {"name": "m", "version": "1", "state": "ready", "card": {"version": "1"}}


def report(job: str) -> dict[str, Any]:
    """A report that says of which job it is."""
    place = {"centroid_voxel": [12, 12, 12], "box_voxel": [[6, 6, 6], [18, 18, 18]]}
    found = {
        "volume_ml": 1.0, "components": 1, "lesions": [{"volume_ml": 1.0, "place": place}],
        "diameter": None, "axial": None,
    }  # fmt: skip
    labels = {0: "background", 1: "NCR", 2: "ED", 4: "ET"}
    return {
        "quality": [], "warnings": [f"about {job[:8]}"], "volumes_ml": dict.fromkeys(NAMES, 1.0),
        "statistics": {"structures": {name: {"meaning": name, **found} for name in NAMES}},
        "labels": [{"value": v, "name": n, "meaning": n} for v, n in labels.items()],
        "model": "m", "model_version": "1", "tta": {"mode": "none", "passes": 1},
        "windows": {"count": 1}, "window": {"shape": [1, 1, 1]}, "stage_seconds": {},
    }  # fmt: skip


def run(sums: str) -> dict[str, Any]:
    """A run record of images with those checksums."""
    return {
        "source": "nifti", "started": "2026-01-01T00:00:00Z", "model": {"weights_sha256": "0"},
        "inputs": {contrast: {"decoded_sha256": sums} for contrast in CONTRASTS},
        "code": {"version": "1"}, "result": {"file": {"sha256": "0"}},
        "engine": {"backend": "b", "device": "d", "precision": "p", "threads": 1},
    }  # fmt: skip
