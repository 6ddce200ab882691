"""A whole Kubernetes node with our agent on it: what users see of it."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import SHOP
from tests.e2e.workloads import PORT, STATUS, deployment, service
from tests.support.images import compiled
from tests.support.node import ADDRESS, NAME

if TYPE_CHECKING:
    from tests.support.agent import AgentProcess
    from tests.support.node import KubernetesNode

GET = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode())"
ENVOY = "127.0.0.6"  # from where Envoy connects to the application

pytestmark = pytest.mark.timeout(180)


def started(node: KubernetesNode, name: str, *, injected: bool) -> dict[str, Any]:
    """Deploy an application with its Service, wait until it is available, and return its pod."""
    node.apply(deployment(name, SHOP, injected=injected), service(name, SHOP))
    node.wait("condition=Available", f"deployment/{name}", f"--namespace={SHOP}")
    pods = json.loads(node.kubectl("get", "pods", f"--namespace={SHOP}", f"--selector=app={name}", "--output=json"))
    (pod,) = pods["items"]
    found: dict[str, Any] = pod
    return found


def removed(node: KubernetesNode, *names: str) -> None:
    for name in names:
        node.kubectl("delete", f"service/{name}", f"deployment/{name}", f"--namespace={SHOP}", "--cascade=foreground")


def url(pod: dict[str, Any]) -> str:
    return f"http://{pod['status']['podIP']}:{PORT}"


def from_node(node: KubernetesNode, address: str) -> str:
    return node.run([str(compiled("get")), address]).strip()


def from_pod(node: KubernetesNode, name: str, address: str) -> str:
    where = (f"--namespace={SHOP}", f"deployment/{name}", "--container=app")
    return node.kubectl("exec", *where, "--", "/get", address).strip()


def connections(node: KubernetesNode, pod: dict[str, Any]) -> dict[str, int]:
    """Count the connections that a pod's Envoy has accepted, by listener."""
    asked = f"http://{pod['status']['podIP']}:{STATUS}/stats?filter=^listener.*bound.downstream_cx_total$"
    told = node.run([sys.executable, "-I", "-c", GET, asked])
    return {kind: int(number) for kind, number in re.findall(r"^listener\.(\w+)\..*: (\d+)$", told, re.MULTILINE)}


def test_the_node_is_ready(node: KubernetesNode) -> None:
    seen = json.loads(node.kubectl("get", f"node/{NAME}", "--output=json"))["status"]
    assert {each["type"]: each["status"] for each in seen["conditions"]} == {
        "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False", "Ready": "True",
    }  # fmt: skip
    assert {"type": "InternalIP", "address": ADDRESS} in seen["addresses"]
    assert seen["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://")


def test_a_pod_is_reached_by_its_address_and_its_service(node: KubernetesNode) -> None:
    pod = started(node, "plain", injected=False)
    address = node.kubectl("get", "service/plain", f"--namespace={SHOP}", "--output=jsonpath={.spec.clusterIP}")
    assert from_node(node, url(pod)).startswith("plain 10.244.1.")
    assert from_node(node, f"http://{address}").startswith("plain ")
    assert from_pod(node, "plain", f"http://{address}").startswith("plain ")  # and back to itself, by hairpin
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
