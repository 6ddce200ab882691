"""What the agent keeps of each pod: what a decision reads, however much a tenant has written; nothing of one that has ended."""

from __future__ import annotations

import asyncio
import json
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from plugin.decision import decide
from plugin.parameters import Defaults
from plugin.pod import Phase
from plugin.prefilter import Pass
from tests.kubernetes.conftest import PRIMARY, SOON, Agent, Node
from tests.support.agent import AgentProcess
from tests.support.wait import eventually, until

if TYPE_CHECKING:
    from pathlib import Path

    from installer.pods.cluster import NodePods
    from plugin.pod import Pod
    from tests.support.cluster import Cluster

STATUS = {"sidecar.istio.io/status": json.dumps({"containers": ["istio-proxy"] * 5000})}
LITTLE, ALL = 1_000, 300_000  # bytes: of a pod outside the mesh, of one that has as much of everything as it may
BURST = 60  # pods, of 1 MB each

pytestmark = [pytest.mark.apiserver, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


def create(cluster: Cluster, node: Node, name: str, spec: dict[str, Any], annotations: dict[str, str]) -> str:
    """Create a pod as it is, and return its uid."""
    manifest = {"metadata": {"name": name, "annotations": annotations}, "spec": {"nodeName": node.name} | spec}
    uid: str = cluster.core.create_namespaced_pod("default", manifest).metadata.uid  # type: ignore[arg-type, union-attr, assignment]
    node.started(name)
    return uid


def ends(cluster: Cluster, name: str, phase: str) -> None:
    """Write what a kubelet does of a pod that has ended."""
    status = json.dumps({"status": {"phase": phase}})
    cluster.kubectl("patch", "pod", name, "--subresource=status", f"--patch={status}")


def container(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "none"} | more


def known(pods: NodePods, name: str) -> Pod:
    (found,) = (each for each in pods if each.name == name)
    return found


FLOODS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "args": ({"containers": [container("app", args=["x" * 1_000_000])]}, {}),
    "env": ({"containers": [container("app", env=[{"name": "X", "value": "x" * 1_000_000}])]}, {}),
    "annotations": ({"containers": [container("app")]}, {"traffic.sidecar.istio.io/excludeInboundPorts": "1," * 120_000}),
    "inject": ({"containers": [container("app")]}, {"sidecar.istio.io/inject": "x" * 240_000}),
    "many containers": ({"containers": [container(f"app-{number}") for number in range(4000)]}, {}),
    "ports": ({"containers": [container("app", ports=[{"containerPort": n} for n in range(1, 20000)])]}, {}),
    "the node's network": (
        {"hostNetwork": True, "containers": [container("app", args=["x" * 900_000]), container("istio-proxy")]}, STATUS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_pod_outside_the_mesh_is_kept_by_its_identity_alone(
    node: Node, kubeconfig: Path, agent: Agent, cluster: Cluster, kind: str
) -> None:
    spec, annotations = FLOODS[kind]
    uid = create(cluster, node, "outside", spec, annotations)
    async with agent(node, kubeconfig) as pods:
        found = await pods.find("default", "outside", uid)
        assert found is known(pods, "outside")
        assert found.uid == uid
        assert isinstance(decide(found, (), Defaults()), Pass)
        assert len(pickle.dumps(found)) < LITTLE


async def test_a_meshed_pod_is_kept_with_what_decisions_read(
    node: Node, kubeconfig: Path, agent: Agent, cluster: Cluster
) -> None:
    others = [container(f"app-{number}", ports=[{"containerPort": number % 60000 + 1}]) for number in range(1500)]
    noise = [{"name": f"E{number}", "value": "x" * 100} for number in range(1000)]
    env = [*noise, {"name": "INVALID_DROP", "value": "true"}, {"name": "DISABLE_ENVOY", "value": "x" * 100_000}]
    proxy = container("istio-proxy", args=["proxy", "sidecar", "x" * 100_000], env=env)
    annotations = STATUS | {"traffic.sidecar.istio.io/excludeInboundPorts": "1" * 100_000, "noise": "x" * 30_000}
    create(cluster, node, "meshed", {"containers": [*others, proxy]}, annotations)
    async with agent(node, kubeconfig) as pods:
        found = known(pods, "meshed")
        assert found.proxy
        assert found.proxy.args == ("proxy", "sidecar")
        assert found.proxy.env.keys() == {"INVALID_DROP", "DISABLE_ENVOY"}
        assert (found.at_once, found.declared_ports) == (1501, 1500)
        assert len(pickle.dumps(found)) < ALL


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED])
async def test_a_pod_that_has_ended_is_forgotten(
    node: Node, kubeconfig: Path, agent: Agent, cluster: Cluster, phase: Phase
) -> None:
    for name in ("before", "while"):
        node.start_pod(name)
    ends(cluster, "before", phase.value)
    async with agent(node, kubeconfig, list_every=0.5) as pods:
        assert [each.name for each in pods] == ["while"]
        ends(cluster, "while", "Running")
        await eventually(lambda: known(pods, "while").phase is Phase.RUNNING, SOON, "it runs")
        ends(cluster, "while", phase.value)
        await eventually(lambda: pods.count == 0, SOON, "it is forgotten")
        node.start_pod("after")
        await eventually(lambda: pods.count == 1, SOON, "the watch goes on")
        for _ in range(4):  # comparisons with the server's list
            await asyncio.sleep(0.5)
            assert [each.name for each in pods] == ["after"]
        assert pods.known


def test_memory_of_a_burst_is_returned(tmp_path: Path, node: Node, kubeconfig: Path, cluster: Cluster) -> None:
    for folder in ("conf", "bin"):
        (tmp_path / folder).mkdir()
    (tmp_path / "conf" / "10-k8s.conflist").write_text(PRIMARY)
    options: dict[str, str | Path] = {"node-name": node.name, "kubeconfig": kubeconfig}
    with AgentProcess(tmp_path, conf_dir=tmp_path / "conf", bin_dir=tmp_path / "bin", options=options) as agent:
        agent.ready()
        before = agent.rss()
        for number in range(BURST):
            create(cluster, node, f"big-{number}", {"containers": [container("app", args=["x" * 1_000_000])]}, {})
        until(lambda: f"istio_cni_pods {BURST}.0" in agent.get("/metrics")[1], SOON, "all are heard of")
        until(lambda: agent.rss() < before + BURST * 500_000, SOON, "most of 1 MB for each is given back")
