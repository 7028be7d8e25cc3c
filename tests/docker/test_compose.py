"""The compose file brought up as it is: alone, scaled, watched, with an archive, with training."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.dicom_studies import write_study
from tests.docker.engine import Engine, Project, answers, find_engine, free_port, said
from tests.docker.files import ROOT
from tests.docker.studies import differing, form, labels, phantom, segmented_here
from tests.monitoring.scraper import value
from tests.service.fakes import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(5400)]

TRAINING = ("--profile", "training", "run", "--rm", "training")
"""Docker finds the profile of a service that is named by itself; podman-compose does not."""
STANDINS = ROOT / "tests" / "docker" / "standins"


@pytest.fixture(scope="module")
def engine() -> Engine:
    found = find_engine()
    found.builds("cpu")
    return found


def has(engine: Engine, service: str) -> None:
    """Where an image of others cannot be had, its stand-in takes its name."""
    from tests.docker.files import service as part

    image = part(service)["image"]
    named = image if "/" in image else f"library/{image}"
    for attempt in (("image", "inspect", image), ("pull", "-q", image)):
        if (
            subprocess.run([*engine.verb, *attempt], check=False, capture_output=True).returncode
            == 0
        ):
            return
    file = STANDINS / f"{service}.Dockerfile"
    said(*engine.build, "-t", f"docker.io/{named}", "-f", file, STANDINS)


@contextmanager
def up(engine: Engine, *words: str, **variables: str) -> Iterator[Project]:
    """The project under a name and a port of its own; its volumes go with it."""
    port = free_port()
    project = Project(engine, f"segmamba-test-{port}", variables, port)
    try:
        project.compose("up", "-d", "--no-build", *words)
        yield project
    finally:
        project.client.close()
        project.compose("down", "-v", "-t", "20")


def wait_ready(client: httpx.Client) -> None:
    wait_until(lambda: answers(client, "/health/ready") == 200, 300)


def test_up_alone_is_one_narrow_service_that_segments(engine: Engine, tmp_path: Path) -> None:
    study = phantom(tmp_path / "study")
    with up(engine) as project:
        wait_ready(project.client)
        (only,) = project.containers()
        assert only["HostConfig"]["ReadonlyRootfs"]
        assert only["Config"]["User"] == "10001:10001"
        assert not only.get("EffectiveCaps"), "as Podman tells them"
        answer = project.client.post("/segment", files=form(study))
        assert answer.status_code == 200, answer.text
        expected = segmented_here(study, tmp_path / "here.nii.gz")
        assert differing(labels(answer.content), expected) == 0


def test_keys_are_made_before_the_door_is_opened(engine: Engine) -> None:
    with up(engine, "--no-start", SEGMAMBA_AUTH="keys") as project:
        run = project.compose("run", "--rm", "segmamba", "keys", "add", "viewer", "--json")
        key = run[run.index('"key"') :].split('"')[3]
        project.compose("up", "-d", "--no-build")
        wait_ready(project.client)
        assert project.client.get("/jobs").status_code == 401
        mine = {"Authorization": f"Bearer {key}"}
        assert project.client.get("/jobs", headers=mine).status_code == 200


SCALE = {"COMPOSE_PROFILES": "scale", "SEGMAMBA_SINGLE": "0", "POSTGRES_PASSWORD": "correct horse"}


def test_scaled_the_one_service_is_gone_and_any_worker_does_the_work(
    engine: Engine, tmp_path: Path
) -> None:
    has(engine, "postgres")
    has(engine, "prometheus")
    study = phantom(tmp_path / "study")
    prometheus = free_port()
    both = {**SCALE, "COMPOSE_PROFILES": "scale,monitoring", "PROMETHEUS_PORT": str(prometheus)}
    services = ("api", "worker", "postgres", "prometheus")
    with up(engine, *services, **both) as project:
        wait_ready(project.client)
        assert project.containers("segmamba") == []
        assert len(project.containers("api")) == 1
        assert len(project.containers("worker")) == 2
        fields = {"cache": "false"}
        jobs = [
            project.client.post("/jobs", files=form(study), data=fields).headers["location"]
            for _ in range(4)
        ]
        wait_until(lambda: all(ended(project.client, job) for job in jobs), 300)
        result = project.client.get(f"{jobs[0]}/result")
        expected = segmented_here(study, tmp_path / "here.nii.gz")
        assert differing(labels(result.content), expected) == 0
        assert_watched(prometheus, processes=3)


def ended(client: httpx.Client, job: str) -> bool:
    """Whether it is done; it must not fail."""
    found = client.get(job).json()
    assert found["state"] != "failed", found["error"]
    return bool(found["state"] == "succeeded")


def assert_watched(port: int, *, processes: int = 1) -> None:
    """Prometheus reaches the interface by its name, every worker, and knows the project's rules."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        wait_until(lambda: answers(client, "/-/ready") == 200, 60)
        wait_until(lambda: value(client, 'up{instance="segmamba:8000"}') == 1, 90)
        up = 'count(up{job="segmamba"} == 1)'
        wait_until(lambda: value(client, up) == processes, 90)
        wait_until(lambda: value(client, "max(segmamba_ready)") == 1, 90)
        rules = client.get("/api/v1/rules").json()["data"]["groups"]
        assert {group["name"] for group in rules} >= {"segmamba", "segmamba-slo"}


@pytest.mark.parametrize("auth", ["off", "keys"])
def test_monitoring_scrapes_the_one_service(engine: Engine, auth: str, tmp_path: Path) -> None:
    has(engine, "prometheus")
    port, key = free_port(), tmp_path / "key"
    key.write_text("none")
    variables = {
        "COMPOSE_PROFILES": "monitoring", "PROMETHEUS_PORT": str(port), "SEGMAMBA_AUTH": auth,
        "SEGMAMBA_METRICS_KEY_FILE": str(key),
    }  # fmt: skip
    with up(engine, "--no-start", "segmamba", **variables) as project:
        if auth == "keys":
            words = ("keys", "add", "prometheus", "--scopes", "metrics", "--json")
            run = project.compose("run", "--rm", "segmamba", *words)
            key.write_text(run[run.index('"key"') :].split('"')[3])
        key.chmod(0o644)
        tmp_path.chmod(0o755)
        project.compose("up", "-d", "--no-build", "segmamba", "prometheus")
        wait_ready(project.client)
        assert_watched(port)


def test_studies_come_out_of_the_archive_and_results_go_into_it(
    engine: Engine, tmp_path: Path
) -> None:
    has(engine, "orthanc")
    port = free_port()
    variables = {
        "COMPOSE_PROFILES": "pacs", "ORTHANC_PORT": str(port), "ORTHANC_PASSWORD": "correct horse",
        "SEGMAMBA_DICOMWEB_SERVERS": "orthanc=http://orthanc:8042/dicom-web",
    }  # fmt: skip
    with up(engine, **variables) as project:
        wait_ready(project.client)
        address = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=address, auth=("segmamba", "correct horse")) as archive:
            wait_until(lambda: answers(archive, "/system") == 200, 60)
            for file in write_study(tmp_path / "study"):
                assert archive.post("/instances", content=file.read_bytes()).status_code == 200
            uid = archive.get("/studies?expand").json()[0]["MainDicomTags"]["StudyInstanceUID"]
            fields = {"dicomweb": "orthanc", "study_uid": uid, "push": "orthanc"}
            fields |= {"preprocess": "none"}
            parts = [(name, (None, text)) for name, text in fields.items()]
            answer = project.client.post(
                "/segment", files=parts, headers={"accept": "application/json"}
            )
            assert answer.status_code == 200, answer.text
            series = archive.get("/series?expand").json()
            assert "SEG" in {one["MainDicomTags"]["Modality"] for one in series}


def test_what_is_trained_is_served_without_a_restart(engine: Engine, tmp_path: Path) -> None:
    engine.builds("training")
    for seed in range(3):
        case = f"BraTS-GLI-0000{seed}-000"
        phantom(tmp_path / "data" / case, seed=seed)
    subprocess.run(["chmod", "-R", "a+rX", tmp_path], check=True)
    study = phantom(tmp_path / "study", seed=9)
    with up(engine, SEGMAMBA_TRAINING_DATA=str(tmp_path / "data")) as project:
        wait_ready(project.client)
        before = project.containers("segmamba")[0]["Id"]
        assert answers(project.client, "/models/mine") == 404
        words = (
            "train", "small-segmamba", "--data", "data", "--name", "mine", "--steps", "3",
            "--device", "cpu", "--set", "patch=[32,32,32]", "--set", "batch=1", "--cache", "/cache",
        )  # fmt: skip
        done = project.compose(*TRAINING, *words)
        assert "/models/mine/1" in done
        wait_until(lambda: answers(project.client, "/models/mine") == 200, 60)
        answer = project.client.post("/segment", files=form(study), data={"model": "mine"})
        assert answer.status_code == 200, answer.text
        assert labels(answer.content).shape == (96, 96, 62)
        assert project.containers("segmamba")[0]["Id"] == before
        again = project.compose(*TRAINING, *words)
        assert "has these weights already" in again
