"""What nodes go through: parts of them, or all, end and start again, and no pod runs outside the mesh for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from installer.controller.taints import KEY
from tests.e2e.release import agent_on
from tests.support.node import CONF_DIR
from tests.support.wait import until

if TYPE_CHECKING:
    from tests.e2e.istio.lightpods import LightPods
    from tests.e2e.release import Release
    from tests.support.node import TwoNodes

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def test_a_burst_of_110_pods_whose_agent_is_killed_is_in_the_mesh(cluster: TwoNodes, light: LightPods) -> None:
    second = cluster.second
    light.deploy(110, second)
    light.wait_for(30)
    second.processes.kill([agent_on(second)])
    light.ready()
    assert not light.unmeshed()
    second.lose_power()  # a kubelet would end so many one by one, for a third of what it takes to start them
    light.delete()
    second.boot()


def test_pods_that_start_while_kubelet_and_runtime_restart_are_in_the_mesh(cluster: TwoNodes, light: LightPods) -> None:
    light.deploy(6, *cluster.nodes)
    light.wait_for(5)
    for node in cluster.nodes:
        node.restart_runtime()
        node.restart("kubelet")
    light.ready()
    assert not light.unmeshed()


def test_a_drained_node_keeps_its_agent_and_takes_pods_again(
    cluster: TwoNodes, release: Release, light: LightPods
) -> None:
    first, name = cluster.first, cluster.second.place.name
    light.deploy(6, cluster.second)
    light.ready()
    agents = {pod["metadata"]["uid"] for pod in release.agents()}
    first.kubectl("drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--force")
    until(lambda: not light.sandboxes(), 60, "all network namespaces of evicted pods are gone")
    assert {pod["metadata"]["uid"] for pod in release.agents()} == agents
    first.kubectl("uncordon", name)
    light.ready()
    assert not light.unmeshed()


@pytest.mark.parametrize("primary", ["kept its conflist", "writes late"])
def test_no_pod_runs_outside_the_mesh_after_a_boot(
    cluster: TwoNodes, release: Release, light: LightPods, primary: str
) -> None:  # F1, F2, F3
    first, second = cluster.first, cluster.second
    light.deploy(6, second)
    light.ready()
    before = {uid: sandbox.netns for uid, sandbox in light.sandboxes().items()}
    second.lose_power()
    assert not light.sandboxes()
    taint = ("taint", "node", second.place.name, f"{KEY}:NoSchedule")
    first.kubectl(*taint)
    if primary == "writes late":
        (second.seen(CONF_DIR) / "10-k8s.conflist").unlink()
    second.boot()
    if primary == "writes late":
        first.wait("condition=Ready=false", f"node/{second.place.name}")
        first.wait("jsonpath={.status.state}=NotInstalled", f"istiocninode/{second.place.name}")
        assert not light.sandboxes()
        second.write_primary()
    light.wait_for(6)
    until(lambda: KEY not in str(first.read(f"node/{second.place.name}")["spec"]), 60, "the taint is off")
    light.ready()
    if primary == "writes late":
        # The runtime may set a pod up before the agent has repaired that file: then it is redirected while it runs.
        what = "an Event names each pod that started without the plugin"
        until(lambda: light.unmeshed() <= light.repaired(), 60, what)
        assert all(each.has_rules for each in light.sandboxes().values())
    else:
        assert not light.unmeshed()
    assert before.keys() == light.sandboxes().keys(), "the pods are those of before"
    assert before.items().isdisjoint((uid, each.netns) for uid, each in light.sandboxes().items())
    release.ready()
