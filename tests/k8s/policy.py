"""What no manifest here may do, as rules that are tried on every container and pod."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.k8s.merging import Document
from tests.k8s.overlays import containers, pod_of, settings_of

LEAVING_SECONDS = 10
"""What a process may need after its grace time, as docs/how-to/serve.md has it."""
PROBES = {
    "startupProbe": {"/health/live"},
    "livenessProbe": {"/health/live"},
    "readinessProbe": {"/health/ready"},
}


def complaints(documents: list[Document]) -> list[str]:
    """Everything that a set of objects does and should not."""
    return [
        f"{document['kind']} {document['metadata']['name']}: {words}"
        for document in documents
        for words in _of_object(document, documents)
    ]


def _of_object(document: Document, documents: list[Document]) -> Iterator[str]:
    if document["kind"] == "Secret":
        yield "a secret in a manifest"
    pod = pod_of(document)
    if pod is None:
        return
    yield from _of_pod(pod)
    yield from _of_drain(pod, documents)
    for container in containers(document):
        yield from (f"{container['name']}: {words}" for words in _of_container(container))


def _of_pod(pod: Document) -> Iterator[str]:
    security = pod.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or security.get("runAsUser") != 10001:
        yield "may run as root"
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "gets a token of the cluster"
    if pod.get("enableServiceLinks") is not False:
        yield "gets variables of services, which look like settings"
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    for volume in pod.get("volumes", ()):
        if not set(volume) & {"emptyDir", "persistentVolumeClaim", "configMap", "secret"}:
            yield f"volume {volume['name']} is of another kind"
        if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
            yield f"volume {volume['name']} has no limit"


def _of_container(container: Document) -> Iterator[str]:
    yield from _of_image(container["image"])
    security = container.get("securityContext", {})
    if security.get("readOnlyRootFilesystem") is not True:
        yield "writes into its image"
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield "may gain privileges"
    if security.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities"
    resources = container.get("resources", {})
    for what in ("cpu", "memory", "ephemeral-storage"):
        for kind in ("requests", "limits"):
            if what not in resources.get(kind, {}):
                yield f"no {kind} of {what}"
    if container.get("ports"):
        yield from _of_probes(container)


def _of_image(image: str) -> Iterator[str]:
    tag = re.search(r":([\w.-]+)$", image)
    if tag is None or tag[1] == "latest":
        yield f"image {image} may be any"


def _of_probes(container: Document) -> Iterator[str]:
    """Whoever listens is probed; a sidecar is ready as soon as it lives."""
    aside = container.get("restartPolicy") == "Always"
    ports = {port["name"] for port in container["ports"]}
    for name, paths in PROBES.items():
        if aside and name == "startupProbe":
            continue  # the worker would wait for it
        asked: dict[str, Any] = container.get(name, {}).get("httpGet", {})
        allowed = {"/health/live"} if aside else paths
        if asked.get("path") not in allowed or asked.get("port") not in ports:
            yield f"{name} does not ask {' or '.join(sorted(allowed))}"


def _of_drain(pod: Document, documents: list[Document]) -> Iterator[str]:
    patience = pod.get("terminationGracePeriodSeconds", 30)
    for container in pod["containers"]:
        settings = settings_of(container, documents)
        grace = float(settings.get("SEGMAMBA_GRACE_SECONDS", 0))
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if patience <= grace + pause + LEAVING_SECONDS:
            yield f"{container['name']}: killed after {patience} s, before it has drained"
        if container.get("ports") and not pause:
            yield f"{container['name']}: stops while requests are still sent to it"
