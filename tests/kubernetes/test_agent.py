"""The whole agent with a ServiceAccount's token: its answers follow the cluster, and an outage stops nothing that it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kubernetes.conftest import SOON
from tests.plugin.conftest import rules
from tests.support.agent import AgentProcess
from tests.support.netns import Netns
from tests.support.wait import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

PRIMARY = '{"cniVersion": "1.0.0", "name": "k8s", "plugins": [{"type": "bridge"}]}'
PORTS = "traffic.sidecar.istio.io/includeInboundPorts"


@pytest.fixture
def running(tmp_path: Path, node: Node, kubeconfig: Path) -> Iterator[AgentProcess]:
    conf_dir, bin_dir = tmp_path / "conf", tmp_path / "bin"
    for folder in (conf_dir, bin_dir):
        folder.mkdir()
    (conf_dir / "10-k8s.conflist").write_text(PRIMARY)
    options: dict[str, str | Path] = {"node-name": node.name, "kubeconfig": kubeconfig}
    with AgentProcess(tmp_path, conf_dir=conf_dir, bin_dir=bin_dir, options=options) as agent:
        agent.ready()
        yield agent


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Netns]:
    with Netns(tmp_path / "netns") as made:
        yield made


async def test_an_add_follows_the_pods_annotations_in_the_cluster(
    running: AgentProcess, node: Node, netns: Netns
) -> None:
    uid = node.start_pod("follows", {PORTS: "*"})
    first = await running.add(netns, "default", "follows", uid)
    assert first.status == 0, first.stdout
    assert "redirect to :15006" in rules(netns)
    node.annotate("follows", {PORTS: "not a port"})
    for _ in range(500):  # until the agent has heard of it: a matter of milliseconds
        refused = await running.add(netns, "default", "follows", uid)
        if refused.status:
            break
    assert refused.json["code"] == 7
    assert PORTS in refused.json["msg"]
    node.end_pod("follows")
    await eventually(lambda: "istio_cni_pods 0.0" in running.get("/metrics")[1], SOON, "the agent has heard of the end")
    gone = await running.add(netns, "default", "follows", uid)
    assert (gone.status, gone.json["code"]) == (1, 11)


async def test_in_an_outage_known_pods_start_and_others_are_retried(  # F30
    running: AgentProcess, node: Node, netns: Netns, cluster: Cluster
) -> None:
    uid = node.start_pod("known")
    await eventually(lambda: "istio_cni_pods 1.0" in running.get("/metrics")[1], SOON, "the agent has heard of the pod")
    cluster.kill_apiserver()
    try:
        known = await running.add(netns, "default", "known", uid)
        other = await running.add(netns, "default", "other", "some-uid")
    finally:
        cluster.start_apiserver()
    assert known.status == 0, known.stdout
    assert (other.status, other.json["code"]) == (1, 11)
    later = node.start_pod("later")
    await eventually(lambda: running.get("/readyz")[0] == 200, SOON, "the agent is ready again")
    again = await running.add(netns, "default", "later", later)
    assert again.status == 0, again.stdout
