"""Makes the RoleBinding of `psp_cluster_role`, and takes it away again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kubernetes.client import ApiException

from installer.controller import role_binding
from installer.controller.api_errors import explain, is_passing
from installer.controller.status import Fault

if TYPE_CHECKING:
    from installer.controller.client import Api
    from installer.controller.plan import Plan


class Binding:
    """Knows the roles of the chart's RoleBinding and of ours, and keeps ours as the resource asks for it."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._bound: tuple[str, str] | None = None  # None: not asked yet

    def forget(self) -> None:
        """Have the next look ask the API server again."""
        self._bound = None

    async def keep(self, made: Plan) -> list[Fault]:
        """Make or take away the RoleBinding that the resource asks for; the faults are why that was refused."""
        if made.counts is not None and (made.read is None or made.faults):
            return []
        asked = str(made.read.given.get("psp_cluster_role", "")) if made.read else ""
        if self._bound is None or asked not in (*self._bound, ""):
            found = [
                await asyncio.to_thread(self._api.rolebinding, name)
                for name in (role_binding.CHARTS, role_binding.OURS)
            ]
            self._bound = role_binding.role_of(found[0]), role_binding.role_of(found[1])
        of_chart, ours = self._bound
        role = role_binding.role(made.read, of_chart)
        if role == ours:
            return []
        try:
            if ours:
                await asyncio.to_thread(self._api.unbind)
                self._bound = of_chart, ""
            if role:
                await asyncio.to_thread(self._api.bind, role_binding.binding(self._namespace, role))
                self._bound = of_chart, role
        except ApiException as error:
            if is_passing(error):
                raise
            if error.status != 403:
                said = f"psp_cluster_role: ClusterRole {role or ours}: {explain(error)}"
                return [Fault("RoleBindingFailed", said)]
            message = (
                f"psp_cluster_role: the controller may not bind ClusterRole {role}; helm upgrade "
                f"--set cni.psp_cluster_role={role} binds it, or --set 'cni.controller.mayBind={{{role}}}' lets the controller"
            )
            return [Fault("RoleBindingFailed", message)]
        return []
