"""What the manifests say of the service is so: settings, commands, ports, names and rules."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings
from tests.commandlines import unknown_in
from tests.docker.files import stages
from tests.k8s.merging import Document
from tests.k8s.overlays import MANIFESTS, OVERLAYS, ROOT, containers, load, pod_of, settings_of
from tests.k8s.variants import VARIANTS, documents_of, the
from training.commands.train import FAULT, STOPPED

GUIDE = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
ENVIRONMENT = {"SEGMAMBA_MODELS"}
"""Read by the catalogue of models, not by `Settings`."""
OTHERS = {"HOME", "RESULTS"}


SERVICES = [name for name in VARIANTS if name.split()[0] in ("cpu", "gpu", "scale")]


def every_container() -> Iterator[tuple[str, Document, list[Document]]]:
    for variant in VARIANTS:
        documents = documents_of(variant)
        for document in documents:
            yield from ((variant, container, documents) for container in containers(document))


def test_every_variable_is_a_setting_of_the_service() -> None:
    known = {f"SEGMAMBA_{name.upper()}" for name in Settings.model_fields} | ENVIRONMENT | OTHERS
    named = {
        variable["name"] for _, one, _ in every_container() for variable in one.get("env", ())
    } | {name for _, one, documents in every_container() for name in settings_of(one, documents)}
    assert {"SEGMAMBA_JOBS_URL", "SEGMAMBA_BLOBS_URL", "SEGMAMBA_DEVICE"} <= named <= known


@pytest.mark.parametrize("variant", SERVICES)
def test_the_service_starts_with_the_values_that_it_is_given(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = documents_of(variant)
    for name, value in settings_of(api_of(documents), documents).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.host, settings.port, settings.auth) == ("0.0.0.0", 8000, "keys")
    assert str(settings.data_dir) == "/data"
    assert settings.grace_seconds == 30


def api_of(documents: list[Document]) -> Document:
    container: Document = pod_of(the(documents, "Deployment", "segmamba-api"))["containers"][0]  # type: ignore[index]
    return container


def test_containers_run_commands_that_exist() -> None:
    ran = {" ".join(one["command"]) for _, one, _ in every_container() if "command" in one}
    assert ran == {"tini -- /bin/sh /scripts/train.sh", "sleep 14400"}
    job = the(documents_of("training"), "Job", "segmamba-train")
    (container,) = containers(job)
    name, *words = container["args"]
    assert name
    assert not unknown_in(["train", *words])


def test_services_begin_with_the_image_s_entrypoint() -> None:
    """It proves the kernel of a GPU image, and its first process passes signals on."""
    for variant in SERVICES:
        for document in documents_of(variant):
            for one in containers(document):
                assert "command" not in one
                assert one["args"] == (["worker"] if one["name"] == "worker" else ["api"])
                assert not unknown_in(one["args"])
    for stage in ("cpu", "gpu"):
        assert re.search(r"^ENTRYPOINT .*/entrypoint\.sh\"\]$", stages()[stage], re.MULTILINE)


def test_a_roll_out_waits_longer_where_a_kernel_is_proved_first() -> None:
    patience = {
        variant: the(documents_of(variant), "Deployment", "segmamba-worker")["spec"][
            "minReadySeconds"
        ]
        for variant in ("cpu", "gpu")
    }
    assert patience["gpu"] >= patience["cpu"] + 60


def test_only_what_stays_wrong_ends_the_training_job() -> None:
    rules = the(documents_of("training"), "Job", "segmamba-train")["spec"]["podFailurePolicy"]
    statuses = {
        rule["action"]: rule["onExitCodes"]["values"]
        for rule in rules["rules"]
        if "onExitCodes" in rule
    }
    assert statuses == {"Ignore": [STOPPED], "FailJob": [2]}
    assert FAULT not in statuses["Ignore"] + statuses["FailJob"]


def test_what_is_written_goes_to_volumes() -> None:
    """The image is read-only, so each folder that a setting names has to be a mount."""
    for _, container, documents in every_container():
        settings = settings_of(container, documents)
        mounts = {m["mountPath"]: m.get("readOnly", False) for m in container["volumeMounts"]}
        assert mounts["/tmp"] is False
        assert settings["HOME"] == "/tmp"
        for name in ("SEGMAMBA_DATA_DIR", "SEGMAMBA_BLOBS_URL"):
            place = settings.get(name, "s3:")
            assert place.startswith("s3:") or mounts[place] is False
        if "SEGMAMBA_MODELS" in settings:
            reads_only = container["name"] != "console"
            assert mounts[settings["SEGMAMBA_MODELS"]] is reads_only


def test_claims_maps_and_accounts_are_in_the_same_overlay() -> None:
    for variant in VARIANTS:
        documents = documents_of(variant)
        here = {(d["kind"], d["metadata"]["name"]) for d in documents}
        for pod in filter(None, map(pod_of, documents)):
            assert ("ServiceAccount", pod["serviceAccountName"]) in here
            for volume in pod["volumes"]:
                claim = volume.get("persistentVolumeClaim", {}).get("claimName")
                assert claim is None or ("PersistentVolumeClaim", claim) in here
                mapped = volume.get("configMap", {}).get("name")
                assert mapped is None or ("ConfigMap", mapped) in here


def labels_of(document: Document) -> set[tuple[str, str]]:
    pod = document if document["kind"] == "Pod" else document["spec"]["template"]
    return set(pod["metadata"]["labels"].items())


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_selector_finds_a_workload(variant: str) -> None:
    documents = documents_of(variant)
    pods = [labels_of(document) for document in documents if pod_of(document)]
    for document in documents:
        spec = document.get("spec", {})
        wanted: Any = {
            "Service": spec.get("selector"),
            "PodDisruptionBudget": (spec.get("selector") or {}).get("matchLabels"),
            "NetworkPolicy": spec.get("podSelector", {}).get("matchLabels", {}),
        }.get(document["kind"])
        if wanted is not None:
            assert any(set(wanted.items()) <= labels for labels in pods), document["metadata"]


def ports_of(documents: list[Document]) -> set[str | int]:
    """How each port is to be called: a sidecar's by its number, any other by its name.

    Before 1.32 a cluster finds no name of a sidecar's port, and some network plugins never do.
    """
    return {
        port["containerPort" if one.get("restartPolicy") == "Always" else "name"]
        for document in documents
        for one in containers(document)
        for port in one.get("ports", ())
    }


def test_every_port_that_is_called_is_one_of_the_pods() -> None:
    documents = documents_of("scale")
    ports = ports_of(documents)
    assert ports == {"http", 9000}
    services = [d for d in documents if d["kind"] == "Service"]
    assert {p["targetPort"] for s in services for p in s["spec"]["ports"]} == ports
    monitor = the(documents, "ServiceMonitor", "segmamba")
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} == {
        port["name"] for service in services for port in service["spec"]["ports"]
    }
    opened = {
        port["port"]
        for d in documents
        if d["kind"] == "NetworkPolicy"
        for rule in d["spec"].get("ingress", ())
        for port in rule["ports"]
    }
    assert opened == ports


def test_the_operator_scrapes_both_services_under_the_name_that_the_rules_ask_for() -> None:
    documents = documents_of("scale")
    spec = the(documents, "ServiceMonitor", "segmamba")["spec"]
    wanted = set(spec["selector"]["matchLabels"].items())
    services = [d for d in documents if d["kind"] == "Service"]
    assert len(services) == 2
    for service in services:
        labels = service["metadata"]["labels"]
        assert wanted <= set(labels.items())
        assert labels[spec["jobLabel"]] == "segmamba"


def test_network_policies_are_closed_before_they_are_open() -> None:
    for variant in VARIANTS:
        closed = the(documents_of(variant), "NetworkPolicy", "segmamba-closed")
        assert closed["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for variant in ("training", "training with kueue", "training-console"):
        policies = [d for d in documents_of(variant) if d["kind"] == "NetworkPolicy"]
        assert len(policies) == 1, "patients' images are here, and nobody is talked to"


def test_the_operators_rules_are_those_beside_prometheus() -> None:
    (mine,) = load(MANIFESTS / "components" / "monitoring" / "rules.yaml")
    groups = [
        group
        for path in ("alerts", "slo")
        for group in load(ROOT / "docker" / "monitoring" / "rules" / f"{path}.yml")[0]["groups"]
    ]
    assert mine["spec"]["groups"] == groups


def test_secrets_are_named_in_the_guide_with_the_keys_that_are_read() -> None:
    text = "".join(path.read_text() for path in MANIFESTS.rglob("*.yaml"))
    read = set(re.findall(r"secretKeyRef:\s+name: (\S+)\s+key: (\S+)", text))
    read |= set(re.findall(r"credentials:\s+name: (\S+)\s+key: (\S+)", text))
    assert read == {("segmamba-database", "url"), ("segmamba-metrics", "key")}
    for name, key in read:
        assert re.search(rf"create secret generic {name}\b[^#]*?--from-\w+={key}\b", GUIDE)
    assert "create secret generic segmamba-s3" in GUIDE


def test_the_worker_may_hold_a_study_and_open_the_next() -> None:
    for variant in ("cpu", "gpu", "scale"):
        deployment = the(documents_of(variant), "Deployment", "segmamba-worker")
        (worker,) = pod_of(deployment)["containers"]  # type: ignore[index]
        mebibytes = 1024 * int(worker["resources"]["limits"]["memory"].removesuffix("Gi"))
        assert mebibytes >= Settings().reading_memory_mb + 2600


def test_the_api_may_open_a_study_to_inspect_it() -> None:
    """Four images of the most voxels took 1.7 GB; one study is open at a time."""
    for variant in ("cpu", "gpu", "scale"):
        documents = documents_of(variant)
        api = api_of(documents)
        opened = int(settings_of(api, documents)["SEGMAMBA_READING_MEMORY_MB"])
        mebibytes = 1024 * int(api["resources"]["limits"]["memory"].removesuffix("Gi"))
        assert opened >= 32 * Settings().max_megavoxels, "bytes for each voxel of one of the images"
        assert mebibytes >= opened + 512


def test_workers_are_never_scaled_to_none() -> None:
    """Without one the interface is not ready, so no job would come that could start one."""
    scaler = the(documents_of("scale"), "ScaledObject", "segmamba-worker")["spec"]
    assert 1 <= scaler["minReplicaCount"] <= scaler["maxReplicaCount"]
    assert "idleReplicaCount" not in scaler


def test_numbers_that_are_missing_take_no_worker_away() -> None:
    scaler = the(documents_of("scale"), "ScaledObject", "segmamba-worker")["spec"]
    (trigger,) = scaler["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false", "no series is not no work"
    assert "fallback" not in scaler, "it would be a number of workers"


def test_every_overlay_and_component_is_in_the_guide() -> None:
    for path in MANIFESTS.glob("*/*/kustomization.yaml"):
        kind, name = path.parts[-3:-1]
        if kind != "base":
            assert f"`{name}`" in GUIDE or f"{kind}/{name}" in GUIDE, name


def test_what_the_guide_applies_is_there() -> None:
    applied = re.findall(r"kubectl apply -k (\S+)", GUIDE)
    assert "k8s/overlays/training" in applied
    assert all((ROOT / place / "kustomization.yaml").is_file() for place in applied)


def blocks() -> list[str]:
    """The commands of the guide, block by block."""
    return re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_guide_names_the_registry_in_every_overlay_that_names_an_image(tmp_path: Path) -> None:
    shutil.copytree(MANIFESTS, tmp_path / "k8s")
    program = tmp_path / "kustomize"
    program.write_text(f'#!/bin/sh\necho "${{PWD##*/}} $*" >> {tmp_path}/said\n')
    program.chmod(0o755)
    (block,) = (block for block in blocks() if "kustomize edit" in block)
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["sh", "-euc", block], cwd=tmp_path, env={"PATH": path}, check=True, timeout=20)
    edit = "edit set image segmamba-service=registry.example.org/segmamba-service"
    assert set((tmp_path / "said").read_text().splitlines()) == {
        f"{overlay.name} {edit}:{image['newTag']}"
        for overlay in OVERLAYS
        for image in load(overlay / "kustomization.yaml")[0].get("images", ())
    }


def test_the_guide_s_commands_follow_one_another() -> None:
    """All begin in one folder, and nobody enters a console before it runs."""
    for block in blocks():
        assert not re.search(r"^cd ", block, re.MULTILINE)
        entered = re.search(r"exec segmamba-console|segmamba-console:/", block)
        if entered:
            ready = block.index("wait --for=condition=Ready pod/segmamba-console")
            assert block.index("kubectl apply -k") < ready < entered.start()


def test_values_of_variables_are_text() -> None:
    """The cluster takes nothing else, and YAML makes a number of 300."""
    for _, container, _ in every_container():
        assert all(isinstance(v["value"], str) for v in container["env"] if "value" in v)
