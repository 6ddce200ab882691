"""A whole Kubernetes node with our agent on it: what users see of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.e2e.shop import ENVOY, connections, from_node, from_pod, removed, service_url, started, url
from tests.support.node import ADDRESS, NAME

if TYPE_CHECKING:
    from tests.support.agent import AgentProcess
    from tests.support.node import KubernetesNode

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_the_node_is_ready(node: KubernetesNode) -> None:
    seen = json.loads(node.kubectl("get", f"node/{NAME}", "--output=json"))["status"]
    assert {each["type"]: each["status"] for each in seen["conditions"]} == {
        "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False", "Ready": "True",
    }  # fmt: skip
    assert {"type": "InternalIP", "address": ADDRESS} in seen["addresses"]
    assert seen["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://")


def test_a_pod_is_reachable_by_its_address_and_its_service(node: KubernetesNode) -> None:
    pod = started(node, "plain", injected=False)
    assert from_node(node, url(pod)).startswith("plain 10.244.1.")
    service = service_url(node, "plain")
    assert from_node(node, service).startswith("plain ")
    assert from_pod(node, "plain", service).startswith("plain ")  # and back to itself, by hairpin
    removed(node, "plain")


def test_injected_pods_go_through_envoy_and_others_do_not(node: KubernetesNode, agent: AgentProcess) -> None:
    meshed, plain = started(node, "meshed", injected=True), started(node, "plain", injected=False)
    before = connections(node, meshed)
    assert from_node(node, url(meshed)) == f"meshed {ENVOY}"
    assert from_node(node, url(plain)).startswith("plain 10.244.1.")
    assert from_pod(node, "plain", url(meshed)) == f"meshed {ENVOY}"
    assert from_pod(node, "meshed", url(plain)) == f"plain {meshed['status']['podIP']}"
    after = connections(node, meshed)
    assert after["outbound"] == before["outbound"] + 1
    assert after["inbound"] >= before["inbound"] + 2, "besides those of the kubelet, which asks whether it is ready"
    removed(node, "meshed", "plain")
