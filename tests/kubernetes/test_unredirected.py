"""A running mesh pod for which no redirect is seen: told of in the node's report, its metrics and an Event (F35)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.kubernetes.conftest import SOON, events, ready, report
from tests.support.wait import until

if TYPE_CHECKING:
    from tests.kubernetes.conftest import Node
    from tests.support.agent import AgentProcess
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

PATIENCE = 60.0  # seconds: an agent waits 30 for a redirect to be seen


def started(cluster: Cluster, node: Node, name: str, status: dict[str, Any], **spec: object) -> None:
    """Create a mesh pod, as the kubelet reports it."""
    node.start_pod(name, spec=spec)
    cluster.core.patch_namespaced_pod_status(name, "default", {"status": status})


def test_an_unredirected_pod_is_counted_and_named_in_every_place(
    cluster: Cluster, node: Node, running: AgentProcess
) -> None:
    until(lambda: ready(cluster, node) == ("True", "Redirecting"), SOON, "the node is ready")
    container = {"image": "none", "imageID": "", "ready": True, "restartCount": 0}
    init = {"name": "istio-proxy", **container, "state": {"running": {}}}
    started(cluster, node, "lost", {"phase": "Running", "podIPs": [{"ip": "10.9.9.9"}]})
    started(cluster, node, "begins", {"phase": "Pending", "initContainerStatuses": [init]})
    app = {"name": "istio-proxy", **container, "state": {"running": {}}}
    for name, statuses in (("ends", [app]), ("ended", [])):
        status = {"phase": "Running", "podIPs": [{"ip": "10.9.9.8"}], "containerStatuses": statuses}
        started(cluster, node, name, status)
        cluster.core.delete_namespaced_pod(name, "default", grace_period_seconds=600)
    started(cluster, node, "waits", {"phase": "Pending"})
    started(cluster, node, "over", {"phase": "Succeeded"})
    started(cluster, node, "on-the-node", {"phase": "Running"}, hostNetwork=True)
    until(lambda: report(cluster, node)["pods"].get("unredirected") == 3, PATIENCE, "it is counted")
    assert ready(cluster, node) == ("True", "PodsNotRedirected")
    said = report(cluster, node)["conditions"][0]["message"]
    assert "pod default/begins: no redirect has been seen" in said
    assert "pod default/ends: no redirect has been seen" in said
    assert "pod default/lost: no redirect has been seen" in said
    assert "its network namespace cannot be identified" in said
    assert "istio_cni_unredirected_pods 3.0" in running.get("/metrics")[1]
    for name in ("lost", "begins", "ends"):
        until(lambda name=name: _told(cluster, name) == ["NotRedirected"], SOON, "an Event tells of it")  # type: ignore[misc]
    assert not any(_told(cluster, name) for name in ("waits", "over", "ended", "on-the-node"))
    node.end_all()
    until(lambda: "istio_cni_unredirected_pods 0.0" in running.get("/metrics")[1], SOON, "none is left")
    until(lambda: ready(cluster, node) == ("True", "Redirecting"), SOON, "the report says so")


def _told(cluster: Cluster, name: str) -> list[str]:
    return [reason for reason, _ in events(cluster, name)]
