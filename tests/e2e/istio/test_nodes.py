"""Two nodes of one cluster, with an old and a recent containerd: they are Ready, and their pods reach one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e import workloads
from tests.support.node import BIN_DIR

if TYPE_CHECKING:
    from tests.support.node import TwoNodes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NAMESPACE = "nodes"


def test_both_nodes_are_ready_each_with_its_own_containerd(cluster: TwoNodes) -> None:
    nodes = cluster.first.read("nodes")["items"]
    told = [node["status"]["nodeInfo"]["containerRuntimeVersion"].split(".")[0] for node in nodes]
    assert told == ["containerd://1", "containerd://2"]
    for node in nodes:
        assert {each["type"]: each["status"] for each in node["status"]["conditions"]}["Ready"] == "True"


def test_pods_on_both_nodes_reach_each_other_by_both_families(cluster: TwoNodes) -> None:
    first = cluster.first
    first.apply(workloads.namespace(NAMESPACE))
    for node in cluster.nodes:
        made = workloads.deployment(node.place.name, NAMESPACE, injected=False)
        made["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node.place.name}
        first.apply(made)
    for node in cluster.nodes:
        first.wait("condition=Available", f"deployment/{node.place.name}", f"--namespace={NAMESPACE}")
    pods = first.read("pods", NAMESPACE)["items"]
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == ["node1", "node2"]
    for client in pods:
        for server in pods:
            for own, other in zip(client["status"]["podIPs"], server["status"]["podIPs"], strict=True):
                address = f"[{other['ip']}]" if ":" in other["ip"] else other["ip"]
                asked = ("--container=app", "--", "/get", f"http://{address}:{workloads.PORT}")
                answer = first.kubectl("exec", client["metadata"]["name"], f"--namespace={NAMESPACE}", *asked)
                assert answer.strip() == f"{server['spec']['nodeName']} {own['ip']}"
    first.kubectl("delete", "namespace", NAMESPACE)


def test_containerd_2_calls_status_on_every_plugin(cluster: TwoNodes) -> None:
    second = cluster.second
    assert second.plugins_loaded()[:2] == ["bridge", "portmap"]
    bridge = second.seen(BIN_DIR) / "bridge"
    recent = bridge.readlink()
    bridge.unlink()
    bridge.symlink_to("/usr/lib/cni/bridge")  # Debian's does not know STATUS
    name = f"node/{second.place.name}"
    cluster.first.wait("condition=Ready=false", name)  # a plugin that does not know STATUS takes the node out
    bridge.unlink()
    bridge.symlink_to(recent)
    cluster.first.wait("condition=Ready", name)
