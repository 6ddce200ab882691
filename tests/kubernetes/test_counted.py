"""How many pods are redirected, in a node's report: what their netns hold, from the first look of each agent."""

from __future__ import annotations

import asyncio
import subprocess
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from installer.agent.node_reporter import NodeResource
from installer.agent.node_status import Observed
from installer.config.desired import DesiredState
from installer.config.settings import parse_settings
from installer.fleet.state import Condition, NodeState
from installer.kube.client import ApiClient
from installer.kube.event_queue import EventQueue
from installer.kube.event_recorder import EventRecorder
from installer.kube.names import DAEMONSET
from plugin.backend import Backend, Capability
from tests.kubernetes.conftest import SOON, apply, ready, report
from tests.kubernetes.sandboxes import knows_sandboxes, sandbox
from tests.repair.test_families import OF_ISTIO
from tests.support.wait import eventually, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.agent import AgentProcess
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

PODS = 3
WELL = NodeState(installed=True, reason=None, conflist="10-k8s.conflist", digest="0" * 64)
OVERLAP = 5.0  # seconds for which the reports of an agent that takes over are followed


@pytest.fixture
def redirected(tmp_path: Path, cluster: Cluster, node: Node, running: AgentProcess) -> Iterator[AgentProcess]:
    """An agent that finds pods redirected by another."""
    running.stop()
    with ExitStack() as ending:
        for number in range(PODS):
            netns = ending.enter_context(sandbox(tmp_path, cluster, node, f"cart-{number}", f"10.9.0.{number + 1}"))
            subprocess.run(["/usr/bin/nsenter", f"--net={netns.path}", "/usr/sbin/nft", OF_ISTIO], check=True)
        knows_sandboxes(running, tmp_path)
        running.start()
        running.ready()
        yield running
        running.stop()


def test_each_agent_counts_the_redirected_netns(cluster: Cluster, node: Node, redirected: AgentProcess) -> None:
    until(lambda: report(cluster, node)["pods"].get("redirected") == PODS, SOON, "they are counted")
    assert report(cluster, node)["pods"]["repaired"] == 0
    redirected.stop()
    redirected.start()
    redirected.ready()
    seen, ends = [], time.monotonic() + OVERLAP
    while time.monotonic() < ends:
        seen.append(report(cluster, node)["pods"]["redirected"])
    assert {*seen} == {PODS}
    until(lambda: ready(cluster, node) == ("True", "Redirecting"), SOON, "the report is the new agent's")
    until(
        lambda: f"istio_cni_redirected_pods {PODS}.0" in redirected.get("/metrics")[1], SOON, "and its metrics say so"
    )


async def test_the_first_count_is_reported_at_once(cluster: Cluster, node: Node, served: Path) -> None:
    apply(cluster, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}})
    orders, capability, counted = (
        DesiredState(parse_settings({"node_name": node.name})),
        Capability(Backend.NFT),
        [None, 7],
    )

    def look() -> Observed:
        conditions = [Condition("installed", None)]
        return Observed("0.1.0", orders, WELL, (capability,), capability, conditions, redirected=counted[0])

    api, changed = ApiClient(served), asyncio.Event()
    events = EventQueue(EventRecorder(api, DAEMONSET, node.name))
    resource = NodeResource(node.name, api, events, look, changed)
    running = asyncio.create_task(resource.run())
    try:
        await eventually(lambda: report(cluster, node).get("pods", {}).get("redirected") == 0, SOON, "it reports")
        del counted[0]
        changed.set()
        await eventually(lambda: report(cluster, node)["pods"]["redirected"] == 7, SOON, "the count is written")
        await eventually(lambda: resource._has_counted, SOON, "the API server has answered")
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await api.close()
