"""The RoleBinding that `psp_cluster_role` asks for, where the chart has made none for that role. Pure.

The chart's own, CHARTS, is left alone: its roleRef cannot be changed, and helm would fail over one that was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from installer.kube.names import CONTROLLER, DAEMONSET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.config.control_plane import ControlPlaneSpec

CHARTS, OURS = "istio-cni-node-psp", "istio-cni-node-psp-resource"


def role(wanted: ControlPlaneSpec | None, of_chart: str) -> str:
    """Return the ClusterRole that a binding of ours is to name; empty: there is to be none.

    Args:
        wanted: what the governing resource asks for; None: nothing.
        of_chart: the one that the chart's binding names; empty: there is no such binding.
    """
    asked = str(wanted.given.get("psp_cluster_role", "")) if wanted else ""
    return asked if asked != of_chart else ""


def binding(namespace: str, cluster_role: str) -> dict[str, Any]:
    """Make the RoleBinding."""
    api = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{api}/v1",
        "kind": "RoleBinding",
        "metadata": {
            "name": OURS,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "istio-cni", "app.kubernetes.io/managed-by": CONTROLLER},
        },
        "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": cluster_role},
        "subjects": [{"kind": "ServiceAccount", "name": DAEMONSET, "namespace": namespace}],
    }


def role_of(manifest: Mapping[str, Any] | None) -> str:
    """Return the ClusterRole that a RoleBinding names; empty for none."""
    return str(manifest["roleRef"]["name"]) if manifest else ""
