"""How much an agent writes at the API server while its node does not come to rest: little, and the last state in the end."""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import suppress
from copy import deepcopy
from typing import TYPE_CHECKING

import pytest

from installer.agent.control_planes import ControlPlanes
from installer.agent.node_reporter import NodeResource
from installer.agent.node_status import Observed
from installer.config.control_plane import GROUP, KIND, VERSION
from installer.config.desired import ControlPlaneRef, DesiredState
from installer.config.settings import parse_settings
from installer.fleet.objects import read_report
from installer.fleet.state import Condition, NodeState
from installer.kube.client import ApiClient
from installer.kube.event_queue import EventQueue
from installer.kube.event_recorder import EventRecorder
from installer.kube.names import CONTROLLER, DAEMONSET, NODES_KIND, NODES_VERSION
from installer.ratelimit.limiter import Limits
from installer.status.access import _trim as trimmed
from plugin.backend import Backend, Capability
from tests.kubernetes.conftest import ACCOUNT, PRIMARY, SOON, apply, events, ready, report, resource
from tests.support.conflict import undone
from tests.support.ondisk import replace_file
from tests.support.wait import eventually, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.agent import AgentProcess
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

LONG_ENOUGH = 12.0  # seconds of a conflict: its pauses have come to their longest


def reports(cluster: Cluster, node: Node) -> int:
    """Count how often the node's status was written."""
    asked = [each.get("objectRef", {}) for each in cluster.requests_of(ACCOUNT) if each["verb"] == "patch"]
    return sum((each.get("name"), each.get("subresource")) == (node.name, "status") for each in asked)


def reasons(cluster: Cluster, node: Node) -> list[str]:
    """The reasons of the Events about a node, in order."""
    return [reason for reason, _ in events(cluster, node.name)]


def message(cluster: Cluster, node: Node) -> str:
    """What the condition Ready says."""
    return str(report(cluster, node)["conditions"][0]["message"])


def by_controller(cluster: Cluster, node: Node) -> list[bool]:
    """Whether a report counts as the controller's, as the controller reads it and as `status` does."""
    found = cluster.admin.read(resource(node))
    return [read_report(each).by_controller for each in (found, trimmed(deepcopy(found)))]


def test_a_report_is_the_agents_own_again_after_the_controller_has_written_one(
    cluster: Cluster, node: Node, running: AgentProcess
) -> None:
    until(lambda: ready(cluster, node) == ("True", "Redirecting"), SOON, "it is ready")
    condition = {"type": "Ready", "status": "False", "reason": "NodeNotReady", "message": "it is down"}
    head = {"apiVersion": NODES_VERSION, "kind": NODES_KIND, "metadata": {"name": node.name}}
    written = head | {"status": {"conditions": [condition | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]}}
    options = ("--server-side", "--force-conflicts", "--subresource=status", f"--field-manager={CONTROLLER}")
    cluster.kubectl("apply", *options, "--filename=-", text=json.dumps(written))
    assert by_controller(cluster, node) == [True, True]
    broken = running.conf_dir / "00-broken.conflist"
    broken.write_text('{"cniVersion":')
    until(lambda: ready(cluster, node)[1] == "InvalidConflist", SOON, "the agent reports what is new")
    assert by_controller(cluster, node) == [False, False]
    broken.unlink()


def test_a_conflict_is_one_turn_and_one_event_each_way(
    cluster: Cluster, node: Node, running: AgentProcess
) -> None:  # F9
    until(lambda: ready(cluster, node) == ("True", "Redirecting"), SOON, "it is ready")
    path = running.conf_dir / "10-k8s.conflist"
    before = cluster.admin.version(resource(node))
    with undone(path, lambda: replace_file(path, PRIMARY.encode())):
        until(lambda: ready(cluster, node) == ("False", "Conflict"), SOON, "the conflict is reported")
        since, statuses, messages = time.monotonic(), set(), set()
        while time.monotonic() < since + LONG_ENOUGH:
            statuses.add(running.get("/readyz")[0])
            messages.add(message(cluster, node))
            time.sleep(0.1)
        metrics = running.get("/metrics")[1]
    assert statuses == {503}
    (said,) = messages
    assert said.startswith(f"{path}: another program keeps undoing the installation: it writes the file without")
    assert not re.search(r"\d s\b", said)
    assert "istio_cni_conflict 1.0" in metrics
    assert "istio_cni_installed 0.0" in metrics
    until(lambda: ready(cluster, node) == ("True", "Redirecting"), SOON, "the end of the conflict is reported")
    assert "istio-cni" in path.read_text()
    assert "istio_cni_conflict 0.0" in running.get("/metrics")[1]
    # Until it is a conflict each repair is news, and a busy machine may take long over them.
    writes = [each["status"] for each in cluster.admin.history(resource(node), before)]
    turns = [(each["conditions"][0]["status"], each["conditions"][0]["reason"]) for each in writes]
    began = turns.index(("False", "Conflict"))
    assert turns == [("True", "Redirecting")] * began + [("False", "Conflict"), ("True", "Redirecting")]
    repairs = [each["repairs"]["count"] for each in writes[: began + 1]]
    assert repairs == sorted({*repairs}), "nothing is written twice"
    # The Event of its first turn may be written later than the report of it.
    until(lambda: reasons(cluster, node)[-2:] == ["Conflict", "Redirecting"], SOON, "an Event tells of each")
    assert reasons(cluster, node).count("Conflict") == 1


async def test_a_flapping_state_is_reported_ever_less_often_and_its_last_value_at_the_end(
    cluster: Cluster, node: Node, served: Path
) -> None:
    cluster.kubectl(
        "create", "--filename=-", text=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}})
    )
    orders, well = DesiredState(parse_settings({"node_name": node.name})), True

    def look() -> Observed:
        nonlocal well
        well = not well if flipping else False
        changed.set()
        state = NodeState(installed=well, reason=None if well else "gone", conflist="10-k8s.conflist", digest="0" * 64)
        capability = Capability(Backend.NFT)
        installed = Condition("installed", state.reason)
        return Observed("0.1.0", orders, state, (capability,), capability, [installed], redirected=0)

    flipping, api, changed = True, ApiClient(served), asyncio.Event()
    limits = Limits(sustained=0.01, burst=4, first_pause=2.0, longest_pause=4.0, cooldown=60.0)
    told = EventQueue(EventRecorder(api, DAEMONSET, node.name))
    resource = NodeResource(node.name, api, told, look, changed, limits=limits)
    running = asyncio.create_task(resource.run())
    try:
        await asyncio.sleep(14)
        written = reports(cluster, node)
        assert 5 <= written <= 8, "the burst, and then one every two to four seconds"
        flipping = False
        await eventually(lambda: ready(cluster, node) == ("False", "NotInstalled"), SOON, "the last state is written")
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await api.close()


async def test_a_repeated_event_is_rate_limited(cluster: Cluster, node: Node, served: Path) -> None:
    api = ApiClient(served)
    told = EventRecorder(api, DAEMONSET, node.name)
    about = {"apiVersion": "v1", "kind": "Node", "name": node.name, "uid": "1"}
    try:
        for _ in range(10):
            await told.record(about, "Same", "as before", warning=True)
        await told.record(about, "Same", "otherwise", warning=True)
        await told.record(about | {"uid": "2"}, "Same", "as before", warning=True)
    finally:
        await api.close()
    assert len(events(cluster, node.name)) == 3 + 2


async def test_the_cluster_size_comes_from_the_resource_and_changes_no_settings(cluster: Cluster, served: Path) -> None:
    metadata = {"name": "large", "namespace": "default"}
    apply(cluster, {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata, "spec": {}})
    heard: list[object] = []
    api, stop = ApiClient(served), asyncio.Event()
    planes = ControlPlanes(api, served, lambda: heard.append(planes.resources))
    running = asyncio.create_task(planes.run(stop))
    try:
        await eventually(lambda: len(heard) == 1, SOON, "the resource is heard of")
        assert planes.nodes == 0
        patch = json.dumps({"status": {"nodes": {"total": 5000, "ready": 0, "updating": 0, "failed": 0, "unknown": 0}}})
        cluster.kubectl("patch", "icp", "large", "--subresource=status", "--type=merge", f"--patch={patch}")
        await eventually(lambda: planes.nodes == 5000, SOON, "its nodes are")
        assert len(heard) == 1
    finally:
        stop.set()
        await running
        await api.close()
        cluster.kubectl("delete", "icp", "large")


async def test_the_first_report_is_not_spread_as_the_startup_taint_waits_for_it(
    cluster: Cluster, node: Node, served: Path
) -> None:
    orders = DesiredState(
        parse_settings({"node_name": node.name}), control_plane=ControlPlaneRef("default", "mesh", "its-uid", 1)
    )
    state = NodeState(installed=True, reason=None, conflist="10-k8s.conflist", digest="0" * 64)
    capability, api = Capability(Backend.NFT), ApiClient(served)
    seen = Observed("0.1.0", orders, state, (capability,), capability, [Condition("installed", None)], redirected=0)
    told, changed = EventQueue(EventRecorder(api, DAEMONSET, node.name)), asyncio.Event()
    resource = NodeResource(node.name, api, told, lambda: seen, changed, spread=1e6)
    running = asyncio.create_task(resource.run())
    try:
        await eventually(lambda: ready(cluster, node) == ("True", "Redirecting"), SOON, "it is reported")
        assert report(cluster, node)["controlPlane"]["generation"] == 1
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await api.close()


def test_a_change_is_reported_over_a_longer_time_in_a_large_cluster() -> None:
    api = ApiClient(None)
    recorder = EventQueue(EventRecorder(api, DAEMONSET, "node"))
    spreads = [
        NodeResource("node", api, recorder, lambda: None, asyncio.Event(), nodes=lambda count=count: count).spread  # type: ignore[arg-type, misc, return-value]
        for count in (0, 100, 5000, 10000)
    ]
    assert spreads == [10, 10, 25, 50]
