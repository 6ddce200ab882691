"""Two node agents, each with folders and pods of its own, and the controller: real processes at a real API server."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.controller.stage import NAMESPACE, SOON
from tests.support.agent import AgentProcess
from tests.support.netns import Netns
from tests.support.wait import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.controller.conftest import Run
    from tests.controller.stage import Stage

pytestmark = pytest.mark.apiserver

NODES = ("node1", "node2")
PRIMARY = '{"cniVersion": "1.0.0", "name": "k8s", "plugins": [{"type": "bridge"}]}'


def agent(stage: Stage, node: str, folder: Path) -> AgentProcess:
    """Prepare the agent of a node, with a token that is bound to it."""
    conf_dir, bin_dir = folder / "conf", folder / "bin"
    for each in (conf_dir, bin_dir):
        each.mkdir(parents=True)
    (conf_dir / "10-k8s.conflist").write_text(PRIMARY)
    bound = ("--bound-object-kind=Node", f"--bound-object-name={node}")
    token = stage.cluster.kubectl("create", "token", "istio-cni-node", f"--namespace={NAMESPACE}", *bound).strip()
    options: dict[str, str | Path] = {
        "node-name": node,
        "kubeconfig": stage.cluster.kubeconfig(f"agent-{node}", token=token),
        "daemonset": f"{NAMESPACE}/istio-cni-node",
    }
    return AgentProcess(folder, conf_dir=conf_dir, bin_dir=bin_dir, options=options)


def entry(agent: AgentProcess) -> dict[str, Any]:
    plugins = json.loads((agent.conf_dir / "10-k8s.conflist").read_bytes())["plugins"]
    return next((each for each in plugins if each["type"] == "istio-cni"), {})


def meshed_pod(stage: Stage, node: str, **more: str) -> str:
    """Create a pod of the mesh on a node, with more in its spec, and return its uid."""
    spec = {"nodeName": node, "containers": [{"name": each, "image": "none"} for each in ("app", "istio-proxy")]} | more
    metadata = {"name": f"web-{node}", "annotations": {"sidecar.istio.io/status": "{}"}}
    made: Any = stage.core.create_namespaced_pod("default", {"metadata": metadata, "spec": spec})  # type: ignore[arg-type]
    return str(made.metadata.uid)


async def test_agents_and_controller_install_apply_report_and_uninstall(
    stage: Stage, controller: Run, tmp_path: Path
) -> None:
    for node in NODES:
        stage.add_node(node)
        stage.add_agent(node)
    agents = {node: agent(stage, node, tmp_path / node) for node in NODES}
    with ExitStack() as running:
        running.enter_context(controller())
        for each in agents.values():
            running.enter_context(each)
            each.ready()
        stage.apply({"values": {"cni": {"excludeNamespaces": ["kube-system"]}}})
        stage.becomes("HEALTHY")
        assert stage.nodes().get("ready") == 2
        netns = {node: running.enter_context(Netns(tmp_path / f"{node}.netns")) for node in NODES}
        uids = {node: meshed_pod(stage, node) for node in NODES}
        for node, each in agents.items():
            answer = await each.add(netns[node], "default", f"web-{node}", uids[node])
            assert answer.status == 0, answer.stdout
            assert "redirect to :15001" in netns[node].rules()

        before = {node: each.process and each.process.pid for node, each in agents.items()}
        generation = stage.apply({"values": {"cni": {"excludeNamespaces": ["default"], "logLevel": "debug"}}})
        wanted = generation["metadata"]["generation"]
        until(
            lambda: stage.resource()["status"]["observedGeneration"] == wanted, SOON, "the controller has heard of it"
        )
        stage.becomes("HEALTHY")
        for node, each in agents.items():
            assert (entry(each)["exclude_namespaces"], entry(each)["plugin_log_level"]) == (["default"], "debug")
            with Netns(tmp_path / f"{node}.next") as following:
                assert (await each.add(following, "default", f"web-{node}", uids[node])).status == 0
                assert following.rules() == ""
        assert {node: each.process and each.process.pid for node, each in agents.items()} == before

        (agents["node2"].conf_dir / "10-k8s.conflist").unlink()
        stage.becomes("RECONCILING")
        assert stage.condition("Ready") == ("False", "Repairing")
        (agents["node2"].conf_dir / "10-k8s.conflist").write_text(PRIMARY)
        stage.becomes("HEALTHY")

        stage.delete()
        parked = {"cni.istio.io/parked": "true"}.items()
        until(
            lambda: parked <= stage.daemonset()["spec"]["template"]["spec"]["nodeSelector"].items(),
            SOON,
            "both agents have taken the plugin out, and the DaemonSet is parked",
        )
        for node, each in agents.items():
            assert (each.conf_dir / "10-k8s.conflist").read_text() == PRIMARY
            assert not [*each.bin_dir.iterdir()]
            stage.end_agent(node)
        until(stage.is_gone, SOON, "the resource is gone")
    for node in NODES:
        stage.core.delete_namespaced_pod(f"web-{node}", "default", grace_period_seconds=0)
