"""The RoleBinding for `psp_cluster_role`, if the chart made none for that role.

The chart's own stays unchanged: its roleRef is immutable, and helm would fail on a replaced one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from installer.controller.status import Fault
from installer.kube.api_error import ApiError
from installer.kube.names import CHARTS_ROLE_BINDING, CONTROLLER, DAEMONSET, OWN_ROLE_BINDING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.controller.client import Api
    from installer.controller.plan import Plan


class RoleBindingKeeper:
    """Keeps our RoleBinding as the active control plane sets it; caches the roles of the chart's and ours."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._bound: tuple[str, str] | None = None  # None: not read yet

    def forget(self) -> None:
        """Read both from the API server again next time."""
        self._bound = None

    async def keep(self, plan: Plan) -> list[Fault]:
        """Create or delete our RoleBinding; return the faults if that was refused."""
        if plan.active is not None and (plan.spec is None or plan.faults):
            return []  # it keeps the role of the last valid resource
        role = str(plan.spec.given.get("psp_cluster_role", "")) if plan.spec else ""
        if self._bound is None or role not in (*self._bound, ""):
            self._bound = await self._role_of(CHARTS_ROLE_BINDING), await self._role_of(OWN_ROLE_BINDING)
        of_chart, own = self._bound
        desired = role if role != of_chart else ""
        if desired == own:
            return []
        try:
            if own:
                await self._api.unbind()
                self._bound = of_chart, ""
            if desired:
                await self._api.bind(_role_binding(self._namespace, desired))
                self._bound = of_chart, desired
        except ApiError as error:
            if error.is_transient:
                raise
            return [_refused(error, desired or own)]
        return []

    async def _role_of(self, name: str) -> str:
        found = await self._api.rolebinding(name)
        return str(found["roleRef"]["name"]) if found else ""


def _role_binding(namespace: str, cluster_role: str) -> Mapping[str, Any]:
    api = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{api}/v1",
        "kind": "RoleBinding",
        "metadata": {
            "name": OWN_ROLE_BINDING,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "istio-cni", "app.kubernetes.io/managed-by": CONTROLLER},
        },
        "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": cluster_role},
        "subjects": [{"kind": "ServiceAccount", "name": DAEMONSET, "namespace": namespace}],
    }


def _refused(error: ApiError, role: str) -> Fault:
    if error.status != 403:
        return Fault("RoleBindingFailed", f"psp_cluster_role: ClusterRole {role}: {error}")
    return Fault(
        "RoleBindingFailed",
        f"psp_cluster_role: the controller may not bind ClusterRole {role}; helm upgrade --set cni.psp_cluster_role={role} "
        f"binds it, or --set 'cni.controller.mayBind={{{role}}}' lets the controller",
    )
