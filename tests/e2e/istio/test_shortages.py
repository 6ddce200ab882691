"""What a node may have to do without: the API server, memory. Pods start in the mesh, then or later, and never outside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.release import agent_on
from tests.support.node import CONF_DIR
from tests.support.wait import until

if TYPE_CHECKING:
    from tests.e2e.istio.lightpods import LightPods, Sandbox
    from tests.e2e.release import Release
    from tests.support.node import TwoNodes, Worker

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

MEMORY = 64 << 10  # bytes: less than a burst needs
SOON = 120.0  # seconds: longer than a busy machine takes


def set_up_again(light: LightPods, uid: str, before: Sandbox) -> bool:
    """Say whether a pod has another sandbox than before, and it is redirected."""
    now = light.sandboxes().get(uid)
    return now is not None and now.netns != before.netns and now.is_redirected


def repaired(node: Worker) -> bool:
    """Say whether the conflist has the entry again, and the runtime has loaded it."""
    conflist = node.seen(CONF_DIR) / "10-k8s.conflist"
    return "istio-cni" in conflist.read_text() and node.plugins_loaded()[-1:] == ["istio-cni"]


def test_without_the_api_server_known_pods_start_again_and_others_wait(  # F30
    cluster: TwoNodes, light: LightPods
) -> None:
    first, second = cluster.first, cluster.second
    light.deploy(2, second)
    light.ready()
    (known, was), (unknown, other) = light.sandboxes().items()
    with first.without_api_server():
        second.processes.kill(second.processes.inside(was.netns))
        until(lambda: set_up_again(light, known, was), SOON, "the pod has another sandbox in the mesh")
        second.write_primary()
        until(lambda: repaired(second), SOON, "the conflist is repaired")

        second.processes.kill([agent_on(second)])
        second.write_primary()
        until(lambda: repaired(second), SOON, "the conflist is repaired by an agent that has heard of nobody")
        runtime = second.folder / "containerd.log"
        before = runtime.stat().st_size
        second.processes.kill(second.processes.inside(other.netns))
        failed = b'plugin type=\\"istio-cni\\" failed (add)'
        until(
            lambda: failed in runtime.read_bytes()[before:],
            SOON,
            "its ADD fails: nobody knows whether it is in the mesh",
        )
        assert unknown not in light.sandboxes()
    until(lambda: set_up_again(light, unknown, other), SOON, "that pod, too, has another sandbox in the mesh")
    light.ready()
    assert light.unmeshed() == []


def test_an_agent_that_is_killed_for_its_memory_comes_back_and_loses_no_pod(
    cluster: TwoNodes, release: Release, light: LightPods
) -> None:
    second = cluster.second
    second.processes.leave_memory(agent_on(second), MEMORY)
    light.deploy(30, second)
    until(lambda: ended(release, second) == "OOMKilled", SOON, "the kernel has killed the agent")
    light.ready()
    assert light.unmeshed() == []


def ended(release: Release, node: Worker) -> str:
    """Say why the container of a node's agent ended the last time; empty if it never did."""
    (pod,) = [each for each in release.agents() if each["spec"]["nodeName"] == node.place.name]
    (status,) = pod["status"]["containerStatuses"]
    last: dict[str, Any] = status["lastState"]
    return str(last.get("terminated", {}).get("reason", ""))
