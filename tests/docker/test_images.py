"""The images, built from the Dockerfile and run narrowly: whole, light, obedient to signals."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.docker.engine import NARROW, Engine, answers, find_engine, free_port
from tests.docker.files import ROOT
from tests.docker.studies import differing, form, job_of, labels, phantom, segmented_here
from tests.service.fakes import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(5400)]

OPEN = (
    "-e", "SEGMAMBA_AUTH=off", "-e", "SEGMAMBA_ALLOW_UNAUTHENTICATED=true",
    "-e", "SEGMAMBA_ALLOWED_HOSTS=segmamba",
)  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Engine:
    return find_engine()


@pytest.fixture(scope="module", params=["cpu", "training"])
def image(request: pytest.FixtureRequest, engine: Engine) -> str:
    return engine.builds(request.param)


@pytest.fixture(scope="module")
def cpu(engine: Engine) -> str:
    return engine.builds("cpu")


def shell(engine: Engine, image: str, script: str) -> str:
    return engine.once(*NARROW, "--entrypoint", "/bin/sh", image, "-c", script)


def test_it_runs_as_nobody_special_and_writes_to_its_own_places_alone(
    engine: Engine, image: str
) -> None:
    said = shell(
        engine, image,
        "id -u; touch /opt/segmamba/x /usr/x 2>/dev/null || echo closed; "
        "command -v gcc g++ cc c++ make || echo no compiler; touch /tmp/x && echo open; "
        "stat -c %u /data /models /cache /blobs | sort -u",
    )  # fmt: skip
    assert said.split("\n")[:-1] == ["10001", "closed", "no compiler", "open", "10001"]


def test_the_kernels_of_the_builder_work_in_it(engine: Engine, image: str) -> None:
    found = json.loads(engine.once(*NARROW, image, "doctor", "--json"))
    assert found["healthy"]
    assert found["selected"] == {"cpu": "native"}
    (native,) = (check for check in found["checks"] if check["backend"] == "native")
    assert native["passed"]
    assert found["models"] == {"segmamba-small": "2"}


def test_it_has_the_pinned_packages_and_says_which(engine: Engine, image: str) -> None:
    document = "/usr/share/doc/segmamba"
    bill = json.loads(shell(engine, image, f"cat {document}/python.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    has = {re.sub(r"[-_.]+", "-", c["name"]).lower(): c["version"] for c in bill["components"]}
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    named = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    wrong = {n: v for n, v in has.items() if v.split("+")[0] != named.get(n, v).split("+")[0]}
    assert not wrong
    assert {"torch", "s3fs", "pyjwt", "opentelemetry-sdk", "segmamba-service"} <= set(has)
    assert ("tensorboard" in has) == image.endswith("training")
    assert not {"pytest", "cyclonedx-bom", "pip"} & set(has)
    assert "\ntini\t" in shell(engine, image, f"cat {document}/debian.tsv")


def test_its_packages_fit_together(engine: Engine, image: str) -> None:
    check = "python3 -m pip --python /opt/segmamba/bin/python check"
    assert "No broken requirements" in shell(engine, image, f"{check} || /usr/bin/{check}")


def test_it_says_how_one_sees_that_it_is_well(engine: Engine, cpu: str) -> None:
    (known,) = json.loads(engine.does("image", "inspect", cpu))
    health = known.get("Healthcheck") or known["Config"]["Healthcheck"]
    assert health["Test"] == ["CMD", "python", "/usr/local/lib/segmamba/health.py"]
    assert known["Config"]["User"] == "10001:10001"
    assert known["Config"]["Entrypoint"][0] == "tini"


def test_without_a_word_about_callers_it_stays_closed(engine: Engine, cpu: str) -> None:
    with pytest.raises(AssertionError, match="SEGMAMBA_AUTH"):
        engine.once(*NARROW, "-v", "/data", cpu, "serve")


class Service:
    """A container of the image ``cpu`` with a volume for its jobs, and a client of its port."""

    def __init__(self, engine: Engine, name: str, port: int) -> None:
        self.engine, self.name = engine, name
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300)

    def wait_ready(self) -> None:
        wait_until(lambda: answers(self.client, "/health/ready") == 200, 240)

    def state(self, job: str) -> str:
        state: str = self.client.get(job).json()["state"]
        return state

    def stop(self, seconds: int) -> tuple[float, int]:
        """How long it took, and the status it ended with."""
        started = time.monotonic()
        self.engine.does("stop", "-t", str(seconds), self.name)
        (known,) = json.loads(self.engine.does("inspect", self.name))
        return time.monotonic() - started, known["State"]["ExitCode"]


@pytest.fixture
def grace() -> int:
    return 120


@pytest.fixture
def service(engine: Engine, cpu: str, grace: int, tmp_path: Path) -> Iterator[Service]:
    port, volume = free_port(), f"segmamba-test-{free_port()}"
    options = (
        "-p", f"127.0.0.1:{port}:8000", "-v", f"{volume}:/data",
        "-e", f"SEGMAMBA_GRACE_SECONDS={grace}", *OPEN,
    )  # fmt: skip
    with engine.running(cpu, "serve", options=options) as name:
        running = Service(engine, name, port)
        running.wait_ready()
        yield running
        running.client.close()
    engine.does("volume", "rm", volume)


def test_a_study_through_the_published_port_is_that_of_the_command_line(
    service: Service, tmp_path: Path
) -> None:
    study = phantom(tmp_path / "study")
    answer = service.client.post("/segment", files=form(study))
    assert answer.status_code == 200, answer.text
    got = labels(answer.content)
    expected = segmented_here(study, tmp_path / "here.nii.gz")
    assert set(map(int, expected.ravel())) > {0}
    assert differing(got, expected) == 0
    health = service.engine.does(
        "exec", service.name, "python", "/usr/local/lib/segmamba/health.py"
    )
    assert health == ""
    assert service.client.get("/metrics", headers={"host": "evil.example"}).status_code == 421


def begun(service: Service, study: Path) -> str:
    """The address of a job whose network runs."""
    answer = service.client.post("/jobs", files=form(study))
    assert answer.status_code == 202, answer.text
    job = job_of(answer.headers)
    wait_until(lambda: (service.client.get(job).json()["progress"] or {}).get("done", 0) > 0, 120)
    assert service.state(job) == "running"
    return job


def test_a_stop_in_the_middle_of_a_job_lets_it_end(service: Service, tmp_path: Path) -> None:
    job = begun(service, phantom(tmp_path / "study", size="full"))
    took, status = service.stop(150)
    assert (status, took < 140) == (0, True)
    service.engine.does("start", service.name)
    service.wait_ready()
    ended = service.client.get(job).json()
    assert (ended["state"], ended["attempts"]) == ("succeeded", 1)


@pytest.mark.parametrize("grace", [0])
def test_without_patience_the_job_is_handed_back_and_done_by_the_next(
    service: Service, tmp_path: Path
) -> None:
    study = phantom(tmp_path / "study", size="full")
    job = begun(service, study)
    took, status = service.stop(60)
    assert (status, took < 50) == (0, True)
    service.engine.does("start", service.name)
    service.wait_ready()
    wait_until(lambda: service.state(job) in ("succeeded", "failed"), 300)
    ended = service.client.get(job).json()
    assert (ended["state"], ended["attempts"]) == ("succeeded", 2), ended["error"]
