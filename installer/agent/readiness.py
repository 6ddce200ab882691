"""Whether the agent is ready: the conditions that /readyz and the node's status show, and the line that says so."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from installer.aio import first_ended, wait
from installer.fleet.state import Condition
from installer.host.unanswered import unanswered
from installer.terminal.printable import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from installer.agent.cluster import Cluster
    from installer.agent.serving import Serving
    from installer.aio import Changes
    from installer.host.in_force import InForce
    from installer.pods.source import KnownPods
    from installer.repair.pod_repair import PodRepair

CHECK_EVERY = 1.0  # seconds until it is ready, should a change not be noticed


class Readiness:
    """The readiness of one agent."""

    def __init__(
        self,
        in_force: InForce,
        serving: Serving,
        pods: KnownPods,
        pod_repair: PodRepair,
        changes: Changes,
        *,
        cluster: Cluster | None = None,
        left_out: Sequence[str] = (),
    ) -> None:
        """Prepare; `left_out` is what the agent does not do in Istio's own chart."""
        self._in_force = in_force
        self._serving = serving
        self._pods = pods
        self._pod_repair = pod_repair
        self._cluster = cluster
        self._changed = changes.listen()
        self._left_out = left_out

    def conditions(self) -> list[Condition]:
        """Return the current conditions."""
        capability = self._in_force.capability
        return [
            Condition("installed", self._in_force.state.reason, self._in_force.desired.reason),
            Condition("serving", self._serving.reason),
            Condition("redirecting", capability.unusable, f"by {capability}"),
            Condition("pods", None if self._pods.known else self._pods.reason),
            Condition("settings", self._cluster.why_unknown if self._cluster else None),
            Condition("runtime", self._pod_repair.runtime),
            Condition("files", unanswered() or None),
            *(
                [Condition("chart", None, f"Istio's own; left out: {'; '.join(self._left_out)}")]
                if self._left_out
                else []
            ),
        ]

    async def announce(self, stopping: asyncio.Event) -> None:
        """Print once on stdout that the agent is ready, unless it has to stop before."""
        ready = asyncio.create_task(self._until_ready())
        await first_ended(stopping, ready)
        if ready.done():
            self._say()
        ready.cancel()

    async def _until_ready(self) -> None:
        while any(condition.reason for condition in self.conditions()):
            await wait(self._changed, CHECK_EVERY)
            self._changed.clear()

    def _say(self) -> None:
        node, settings = self._in_force.state, self._in_force.settings
        if node.removed:
            say(f"ready: nothing is installed, as {self._in_force.desired.reason}")
            return
        say(
            f"ready: {node.conflist} in {settings.cni_conf_dir} has istio-cni, {settings.agent_socket} is served, "
            f"{self._pods.count} pods of node {settings.node_name} are known"
        )
