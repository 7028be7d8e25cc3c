"""Nothing that is applied may do more than it needs, and each rule of that notices its breach."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tests.k8s.policy import complaints
from tests.k8s.variants import VARIANTS, documents_of, the


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_breaks_no_rule(variant: str) -> None:
    assert complaints(documents_of(variant)) == []


def drop(*way: str) -> Callable[[Any], None]:
    def change(value: Any) -> None:
        for name in way[:-1]:
            value = value[name]
        del value[way[-1]]

    return change


def put(wanted: Any, *way: str) -> Callable[[Any], None]:
    def change(value: Any) -> None:
        for name in way[:-1]:
            value = value[name]
        value[way[-1]] = wanted

    return change


OF_POD = {
    "may run as root": put(0, "securityContext", "runAsUser"),
    "no seccomp profile": drop("securityContext", "seccompProfile"),
    "gets a token": drop("automountServiceAccountToken"),
    "gets variables of services": drop("enableServiceLinks"),
    "hostNetwork": put(True, "hostNetwork"),
    "of another kind": put([{"name": "x", "hostPath": {"path": "/"}}], "volumes"),
    "has no limit": put([{"name": "x", "emptyDir": {}}], "volumes"),
    "before it has drained": put(45, "terminationGracePeriodSeconds"),
}
OF_CONTAINER = {
    "may be any": put("segmamba-service:latest", "image"),
    "image segmamba-service may be any": put("segmamba-service", "image"),
    "writes into its image": drop("securityContext", "readOnlyRootFilesystem"),
    "may gain privileges": put(True, "securityContext", "privileged"),
    "keeps capabilities": drop("securityContext", "capabilities"),
    "no limits of memory": drop("resources", "limits", "memory"),
    "no requests of cpu": drop("resources", "requests", "cpu"),
    "livenessProbe does not ask": put("/health/ready", "livenessProbe", "httpGet", "path"),
    "readinessProbe does not ask": put("/health/live", "readinessProbe", "httpGet", "path"),
    "startupProbe does not ask": drop("startupProbe"),
    "while requests are still sent": drop("lifecycle"),
}


def api() -> tuple[list[Any], Any]:
    documents = deepcopy(documents_of("cpu"))
    return documents, the(documents, "Deployment", "segmamba-api")["spec"]["template"]["spec"]


@pytest.mark.parametrize("words", OF_POD)
def test_a_breach_by_a_pod_is_noticed(words: str) -> None:
    documents, pod = api()
    OF_POD[words](pod)
    assert any(words in complaint for complaint in complaints(documents))


@pytest.mark.parametrize("words", OF_CONTAINER)
def test_a_breach_by_a_container_is_noticed(words: str) -> None:
    documents, pod = api()
    OF_CONTAINER[words](pod["containers"][0])
    assert any(words in complaint for complaint in complaints(documents))


def test_a_secret_in_a_manifest_is_noticed() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "it"}}
    assert complaints([secret]) == ["Secret it: a secret in a manifest"]
