"""The cluster's IstioControlPlanes, as a node agent observes them: read-only (D5).

A cluster without the kind uses the chart's settings alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from installer.config.control_plane import GROUP, PLURAL, VERSION
from installer.kube.informer import Informer, Selection
from installer.kube.operator import ApiResource

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from installer.kube.client import ApiClient

_METADATA = ("namespace", "name", "uid", "generation", "creationTimestamp", "deletionTimestamp")


class ControlPlanes:
    """The cluster's IstioControlPlanes, reduced to what a node needs."""

    def __init__(self, api: ApiClient, kubeconfig: Path | None, on_change: Callable[[], None]) -> None:
        """Prepare; `run` begins.

        `on_change` is called when they are known, when their desired state changes, and when the kind is missing.
        """
        selection = Selection(ApiResource(GROUP, VERSION, PLURAL), is_optional=True)
        self._informer = Informer(api, kubeconfig, selection, _trim, self._refresh)
        self._on_change = on_change
        self.known = False  # whether they have been listed, so that the kind exists
        self.resources: list[Mapping[str, Any]] = []  # without their status
        self.nodes = 0  # the largest node count of a controller; 0: unknown

    @property
    def reason(self) -> str:
        """Why they are not known; empty if they are, or if the kind does not exist."""
        return self._informer.reason

    async def run(self, stop: asyncio.Event) -> None:
        """Observe them until `stop` is set. No failure of the API server ends it."""
        await self._informer.run(stop)

    def _refresh(self) -> None:
        if self._informer.known:
            observed = self._informer.objects.values()
            self.nodes = max([self.nodes, *(each.nodes for each in observed)])
            resources = [each.resource for each in observed]
            if self.known and resources == self.resources:
                return  # only a status was written
            self.known, self.resources = True, resources
        self._on_change()


class _Trimmed(NamedTuple):
    """A resource's desired state, and its controller's node count."""

    resource: Mapping[str, Any]
    nodes: int


def _trim(resource: Mapping[str, Any]) -> _Trimmed:
    metadata = {key: resource["metadata"][key] for key in _METADATA if key in resource["metadata"]}
    total = ((resource.get("status") or {}).get("nodes") or {}).get("total", 0)
    return _Trimmed({"metadata": metadata, "spec": resource.get("spec") or {}}, total if isinstance(total, int) else 0)
