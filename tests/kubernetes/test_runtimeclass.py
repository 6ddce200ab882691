"""A mesh pod whose runtime has a network stack of its own: told of wherever people look, never taken for redirected (F42)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kubernetes.conftest import SOON, apply, events, ready, report
from tests.kubernetes.test_explain import explained
from tests.support.wait import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.agent import AgentProcess
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

# RuntimeClasses by name, with their handlers: a name may say nothing, and a handler need not be the name.
WITHOUT_EFFECT = {
    "gvisor": "runsc",
    "locked-down": "runsc-kvm",
    "kata-qemu": "kata-qemu",
    "vm": "my-kata",
    "gke": "gvisor",
}
USUAL = {"nvidia": "nvidia", "kata-like": "crun"}


def test_a_pod_with_another_network_stack_is_counted_and_named(
    cluster: Cluster, node: Node, running: AgentProcess, served: Path
) -> None:
    until(lambda: ready(cluster, node) == ("True", "Redirecting"), SOON, "the node is ready")
    for name, handler in (WITHOUT_EFFECT | USUAL).items():
        apply(
            cluster,
            {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": handler},
        )
        node.start_pod(f"of-{name}", spec={"runtimeClassName": name})
        status = {"phase": "Running", "podIPs": [{"ip": "10.9.9.9"}]}
        cluster.core.patch_namespaced_pod_status(f"of-{name}", "default", {"status": status})
    most = len(WITHOUT_EFFECT)
    until(lambda: f"istio_cni_unredirected_pods {most}.0" in running.get("/metrics")[1], SOON, "the metric counts them")
    counted = f'istio_cni_running_pods_without_redirect_total{{outcome="RedirectIneffective"}} {most}.0'
    assert counted in running.get("/metrics")[1]
    until(lambda: ready(cluster, node) == ("True", "PodsNotRedirected"), SOON, "the report says so")
    for name in WITHOUT_EFFECT:
        until(lambda name=name: bool(events(cluster, f"of-{name}")), SOON, "an Event tells of it")  # type: ignore[misc]
        ((reason, note),) = events(cluster, f"of-{name}")
        assert (reason, "the redirect in its network namespace has no effect" in note) == ("RedirectIneffective", True)
        named = f"pod default/of-{name}: its runtime class {name} runs it with "
        until(lambda named=named: named in _said(cluster, node), SOON, "the report names it")  # type: ignore[misc]
        assert f"its runtime class {name} runs it with " in str(explained(f"default/of-{name}", served)["warnings"])
    for name in USUAL:
        assert "its runtime class" not in str(explained(f"default/of-{name}", served)["warnings"])
    assert not any(f"of-{name}" in _said(cluster, node) for name in USUAL)


def _said(cluster: Cluster, node: Node) -> str:
    message: str = report(cluster, node)["conditions"][0]["message"]
    return message
