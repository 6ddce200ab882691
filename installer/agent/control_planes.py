"""The cluster's IstioControlPlanes, as a node agent observes them: it reads, and writes on none (D5).

A cluster may do without the kind: then the chart's settings are all that counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from installer.config.control_plane import GROUP, PLURAL, VERSION
from installer.kube.informer import LIST_EVERY, Informer, Selection
from installer.kube.operator import ApiResource

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from installer.kube.client import ApiClient

_METADATA = ("namespace", "name", "uid", "generation", "creationTimestamp", "deletionTimestamp")


class ControlPlanes:
    """All of the cluster's, as far as they matter to a node."""

    def __init__(
        self, api: ApiClient, kubeconfig: Path | None, on_change: Callable[[], None], *, list_every: float = LIST_EVERY
    ) -> None:
        """Prepare; `run` begins.

        Args:
            api: lists them.
            kubeconfig: for the watch.
            on_change: called when they are known, when what they ask for has changed since, and when there is no such kind.
            list_every: seconds between two lists, and at most as much again by chance.
        """
        selection = Selection(ApiResource(GROUP, VERSION, PLURAL), is_optional=True)
        self._informer = Informer(api, kubeconfig, selection, _trim, self._refresh, list_every=list_every)
        self._on_change = on_change
        self.known = False  # whether they have been observed, so that there is such a kind
        self.resources: list[Mapping[str, Any]] = []  # without their status
        self.nodes = 0  # how many nodes the controller has counted, at most; 0: not known yet

    async def run(self, stop: asyncio.Event) -> None:
        """Observe them until told to stop. Nothing that the API server does or does not do ends it."""
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
    """What is kept of one: what it asks for, and how many nodes its controller has counted."""

    resource: Mapping[str, Any]
    nodes: int


def _trim(resource: Mapping[str, Any]) -> _Trimmed:
    metadata = {key: resource["metadata"][key] for key in _METADATA if key in resource["metadata"]}
    total = ((resource.get("status") or {}).get("nodes") or {}).get("total", 0)
    return _Trimmed({"metadata": metadata, "spec": resource.get("spec") or {}}, total if isinstance(total, int) else 0)
