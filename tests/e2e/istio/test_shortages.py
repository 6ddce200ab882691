"""What a node may have to do without: the API server, room on its disks, memory. No pod runs outside the mesh for it."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.release import agent_on
from tests.support.node import CONF_DIR
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.istio.lightpods import LightPods, Sandbox
    from tests.e2e.release import Release
    from tests.support.node import TwoNodes, Worker

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

MEMORY = 64 << 10  # bytes: less than a burst needs
SOON = 120.0  # seconds: longer than a busy machine takes
OUTAGE = float(os.environ.get("API_OUTAGE", "0"))  # seconds that it is to last at least (docs/development.md)
FULL = "no space left on device"

_log = logging.getLogger("tests.node")


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
        end, times = time.monotonic() + OUTAGE, 0
        while not times or time.monotonic() < end:
            until(lambda: second.processes.inside(was.netns), SOON, "something runs in the pod")  # noqa: B023
            second.processes.kill(second.processes.inside(was.netns))
            until(lambda: set_up_again(light, known, was), SOON, "the pod has another sandbox in the mesh")  # noqa: B023
            was, times = light.sandboxes()[known], times + 1
            second.write_primary()
            until(lambda: repaired(second), SOON, "the conflist is repaired")
        _log.info("without the API server a pod was set up in the mesh again %d times", times)

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
    assert not light.unmeshed()


def test_an_agent_that_is_killed_for_its_memory_comes_back_and_loses_no_pod(  # F46
    cluster: TwoNodes, release: Release, light: LightPods
) -> None:
    second = cluster.second
    agent = agent_on(second)

    def is_killed() -> bool:
        with suppress(OSError):  # it has ended
            second.processes.leave_memory(agent, MEMORY)  # anew: meanwhile it may have given some back
        return ended(release, second) == "OOMKilled"

    second.processes.leave_memory(agent, MEMORY)
    light.deploy(30, second)
    until(is_killed, SOON, "the kernel has killed the agent")
    light.ready()
    assert not light.unmeshed()


def ended(release: Release, node: Worker) -> str:
    """Say why the container of a node's agent ended the last time; empty if it never did."""
    (pod,) = [each for each in release.agents() if each["spec"]["nodeName"] == node.place.name]
    (status,) = pod["status"]["containerStatuses"]
    last: dict[str, Any] = status["lastState"]
    return str(last.get("terminated", {}).get("reason", ""))


def told(read: dict[str, Any]) -> str:
    return str(read).lower()


@pytest.fixture
def small_conf_dir(cluster: TwoNodes, release: Release) -> Iterator[Path]:
    """The CNI configurations of the second node, on a file system of their own."""
    second = cluster.second
    second.run(["/usr/bin/mount", "-t", "tmpfs", "cni", str(CONF_DIR)])
    second.write_primary()
    second.restart_runtime()  # it watches what was there when it started
    yield second.seen(CONF_DIR)
    second.run(["/usr/bin/umount", "--lazy", str(CONF_DIR)])
    second.restart_runtime()


def test_on_full_disks_pods_wait_or_are_repaired_and_all_comes_back_with_room(  # F46
    cluster: TwoNodes, small_conf_dir: Path, light: LightPods
) -> None:
    first, second = cluster.first, cluster.second
    until(lambda: repaired(second), SOON, "the conflist on a file system of its own has the entry")
    light.deploy(3, second)
    light.ready()
    before, early = light.sandboxes(), light.names()
    conflist = second.write_primary_beside()
    # Open, so that the file that is replaced leaves no room for another one.
    with (small_conf_dir / "10-k8s.conflist").open(), second.full_disk(CONF_DIR):
        second.put_primary(conflist)
        report = f"istiocninode/{second.place.name}"
        until(lambda: FULL in told(first.read(report)), SOON, "the node says why its pods would bypass the mesh")
        with second.full_disk(Path("/run")):
            light.deploy(6, second)
            events = ("events", light.namespace)
            until(lambda: FULL in told(first.read(*events)), SOON, "a pod's Event says that there is no room for it")
            assert light.sandboxes() == before
        light.ready()
        late = light.names() - early
        until(
            lambda: light.repaired() == late,
            SOON,
            "pods that started without the plugin are repaired, and Events say so",
        )
        assert all(each.has_rules for each in light.sandboxes().values())
    until(lambda: repaired(second), SOON, "the conflist is repaired")
    light.deploy(7, second)
    light.ready()
    assert light.unmeshed() == late
