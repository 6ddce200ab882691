"""Istio's own agent on both nodes, its real program by its own chart, or this image in its place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.e2e.istio.images import HUB, TAG
from tests.e2e.istio.mesh import SLOWEST, SYSTEM
from tests.e2e.release import DAEMONSET
from tests.e2e.test_chart import SOCKETS, all_files
from tests.support import conditions
from tests.support.wait import until

if TYPE_CHECKING:
    from tests.support.node import KubernetesNode, TwoNodes, Worker

AGENTS = f"--namespace={SYSTEM}", "--selector=k8s-app=istio-cni-node"
VALUES = {  # of its chart
    "hub": HUB,
    "tag": TAG,
    "pullPolicy": "Never",
    "resources": {"requests": {"cpu": "10m"}},
    "logging": {"level": "info"},
}


def is_rolled_out(first: KubernetesNode) -> bool:
    """Say whether all agents are ready, and none of another kind is left."""
    return conditions.is_rolled_out(first.read(DAEMONSET, SYSTEM))


def rolled_out(cluster: TwoNodes) -> None:
    """Wait until that is so, and both runtimes have loaded the plugin's entry."""
    cluster.first.rolled_out(DAEMONSET, SYSTEM, SLOWEST)
    for node in cluster.nodes:
        until(lambda: node.plugins_loaded()[-1] == "istio-cni", 30, "the runtime has loaded the entry")  # noqa: B023


def gone(first: KubernetesNode) -> None:
    """Wait until no agent is left."""
    first.kubectl("wait", "--for=delete", "pod", *AGENTS, "--timeout=240s", within=250)


def agents_hub(first: KubernetesNode) -> str:
    """Say from which hub the image of the agents is."""
    (agent,) = first.read(DAEMONSET, SYSTEM)["spec"]["template"]["spec"]["containers"]
    return str(agent["image"]).rpartition("/")[0]


def meaning(node: Worker) -> dict[str, Any]:
    """Read all files of the plugin's folders; of a conflist its value, as Istio's own agent writes its keys in order."""
    return {
        f"{folder}/{name}": (mode, json.loads(content) if name.endswith(".conflist") else content)
        for folder, files in all_files(node).items()
        for name, (mode, content) in files.items()
    }


def left_in_run(node: Worker) -> set[str]:
    """Name what is in the folder of the agents' sockets, besides the log of Istio's agent, which it leaves."""
    return {each.name for each in node.seen(SOCKETS).iterdir()} - {"istio-cni.log"}
