"""Every overlay resolves, nothing lies about unused, and a real kustomize makes the same of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.k8s.merging import merge, operate
from tests.k8s.overlays import (
    COMPONENTS,
    MANIFESTS,
    OVERLAYS,
    UnresolvedError,
    containers,
    load,
    name_of,
    resolve,
)
from tests.k8s.variants import VARIANTS, documents_of, the


def test_there_is_an_overlay_for_each_way_to_run_it() -> None:
    assert [path.name for path in OVERLAYS] == [
        "console", "cpu", "gpu", "scale", "training", "training-console",
    ]  # fmt: skip


@pytest.mark.parametrize("overlay", OVERLAYS, ids=name_of)
def test_resources_and_patch_targets_of_an_overlay_are_there(overlay: Path) -> None:
    named = [(d["kind"], d["metadata"]["name"]) for d in resolve(overlay)]
    assert len(named) == len(set(named)) > 4


def test_every_component_is_tried_with_an_overlay() -> None:
    tried = {name for components in VARIANTS.values() for name in components}
    assert tried == {path.name for path in COMPONENTS}


def test_every_manifest_is_named_by_a_kustomization() -> None:
    plans = list(MANIFESTS.rglob("kustomization.yaml"))
    named = {
        (path.parent / word).resolve()
        for path in plans
        for word in re.findall(r"[\w./-]+", path.read_text())
    }
    files = {path for path in MANIFESTS.rglob("*") if path.is_file()} - set(plans)
    assert not [path for path in files if path.resolve() not in named]


def test_a_missing_file_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [gone.yaml]")
    with pytest.raises(UnresolvedError, match=r"gone\.yaml"):
        resolve(tmp_path)


@pytest.mark.parametrize(
    "target", [{"name": "nobody"}, {"name": "it", "namespace": "elsewhere"}], ids=str
)
def test_a_patch_without_a_target_is_noticed(tmp_path: Path, target: dict[str, str]) -> None:
    one = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "it"}}
    (tmp_path / "it.yaml").write_text(yaml.safe_dump(one))
    (tmp_path / "patch.yaml").write_text(yaml.safe_dump({**one, "metadata": target}))
    plan = {"resources": ["it.yaml"], "patches": [{"path": "patch.yaml"}]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(plan))
    with pytest.raises(UnresolvedError, match="to patch"):
        resolve(tmp_path)


def test_a_merge_changes_what_it_names_and_nothing_else() -> None:
    base = {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}
    patch = {"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}]}
    assert merge(base, patch) == {
        "containers": [
            {"name": "a", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]},
            {"name": "b"},
        ]
    }
    assert len(base["containers"][0]["env"]) == 1


def test_what_is_to_be_deleted_has_to_be_there() -> None:
    base = {"volumes": [{"name": "a"}, {"name": "b"}]}
    gone = {"volumes": [{"name": "a", "$patch": "delete"}]}
    assert merge(base, gone) == {"volumes": [{"name": "b"}]}
    with pytest.raises(AssertionError, match="nothing to delete"):
        merge(merge(base, gone), gone)
    with pytest.raises(KeyError):
        operate({"spec": {}}, [{"op": "remove", "path": "/spec/replicas"}])


def images_of(variant: str) -> set[str]:
    return {c["image"] for document in documents_of(variant) for c in containers(document)}


def test_each_overlay_runs_its_own_image() -> None:
    assert images_of("cpu") == {"segmamba-service:cpu"}
    assert images_of("gpu") == images_of("scale") == {"segmamba-service:gpu"}
    assert images_of("training") == {"segmamba-service:training"}


def test_workers_get_the_device_that_their_overlay_promises() -> None:
    def worker(variant: str) -> Any:
        deployment = the(documents_of(variant), "Deployment", "segmamba-worker")
        return deployment["spec"]["template"]["spec"]["containers"][0]

    for variant, device, count in (("cpu", "cpu", None), ("gpu", "cuda", "1")):
        assert {"name": "SEGMAMBA_DEVICE", "value": device} in worker(variant)["env"]
        assert worker(variant)["resources"]["limits"].get("nvidia.com/gpu") == count


def test_scaled_workloads_do_not_say_how_many_they_are() -> None:
    documents = documents_of("scale")
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        (scaler,) = (d for d in documents if d["kind"] == kind)
        target = the(documents, "Deployment", scaler["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in target["spec"]
    assert "replicas" in the(documents_of("gpu"), "Deployment", "segmamba-worker")["spec"]


def test_a_bucket_takes_the_place_of_the_shared_volume() -> None:
    documents = documents_of("cpu with s3")
    assert "segmamba-blobs" not in {d["metadata"]["name"] for d in documents}
    settings = the(documents, "ConfigMap", "segmamba-settings")["data"]
    assert settings["SEGMAMBA_BLOBS_URL"].startswith("s3://")
    every = [c for d in documents for c in containers(d)]
    assert len(every) == 3
    for container in every:
        assert {"secretRef": {"name": "segmamba-s3"}} in container["envFrom"]
        assert "/blobs" not in {mount["mountPath"] for mount in container["volumeMounts"]}


def kustomize() -> list[str]:
    """A command that renders a folder."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    pytest.skip("neither kustomize nor kubectl here: what they render is not compared")


HASHED = re.compile(r"^(segmamba-(?:settings|train-script))-[0-9a-z]{10}$")


def without_hashes(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_hashes(member) for name, member in value.items()}
    if isinstance(value, list):
        return [without_hashes(element) for element in value]
    return HASHED.sub(r"\1", value) if isinstance(value, str) else value


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_real_kustomize_renders_the_same_objects(variant: str, tmp_path: Path) -> None:
    command = kustomize()
    places = [MANIFESTS / "overlays" / variant.split()[0]]
    parts = [MANIFESTS / "components" / name for name in VARIANTS[variant]]
    plan = {
        "resources": [os.path.relpath(place, tmp_path.resolve()) for place in places],
        "components": [os.path.relpath(part, tmp_path.resolve()) for part in parts],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(plan))
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "a warning is a failure"
    (tmp_path / "rendered.yaml").write_text(done.stdout)
    rendered = [without_hashes(document) for document in load(tmp_path / "rendered.yaml")]
    order = lambda document: (document["kind"], document["metadata"]["name"])  # noqa: E731
    assert sorted(rendered, key=order) == sorted(documents_of(variant), key=order)
