"""A node agent as the API server sees it.

These are the real agent's parts that talk to it, with kopf and the HTTP session replaced in them: kopf needs a thread for each
watch, and the session reads a kubeconfig each time. What would be seen of the node itself is as it should be. A real agent is
held beside it in a test: the same requests, in kind and number.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from installer.agent.cluster import Cluster
from installer.agent.node_reporter import SPREAD
from installer.agent.node_status import Observed
from installer.aio import Changes
from installer.config.desired import DesiredState
from installer.config.settings import parse_settings
from installer.fleet.state import Condition, NodeState
from installer.host.in_force import InForce
from installer.pods.cluster import NodePods
from plugin.backend import Backend, Capability
from tests.scale.connect import Api
from tests.scale.site import DAEMONSET
from tests.scale.watch import SimulatedOperator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.scale.connect import Client

PODS = "/api/v1/pods"
RESOURCES = "/apis/install.istio.io/v1alpha2/istiocontrolplanes"

_WELL = NodeState(installed=True, reason=None, conflist="10-k8s.conflist", digest="0" * 64)
_BACKENDS = tuple(Capability(each) for each in Backend)


@dataclass(frozen=True)
class Habits:
    """What can be chosen of an agent's behaviour, in seconds.

    Attributes:
        start_within: it waits up to so long, by chance, before its first request.
        spread: the same, before it writes its status.
    """

    start_within: float = 0.0
    spread: float = SPREAD


class SimulatedAgent:
    """One node's. Times are those of the monotonic clock, in seconds."""

    def __init__(self, node: str, client: Client, habits: Habits) -> None:
        self.name = node
        self._start_within = habits.start_within
        told = parse_settings({"node_name": node, "daemonset": DAEMONSET})
        self._in_force = InForce(DesiredState(told))
        self._changes = Changes()
        self._pods = NodePods(node, None, self._changes.notify)
        pods = self._pods._informer
        self._pods._api = pods._api = Api(client)
        pods._operator = SimulatedOperator(pods._operator, client)
        self._cluster = Cluster(told, self._in_force, self._apply, self._observe, self._changes)
        planes, report = self._cluster._control_planes._informer, self._cluster._node
        self._cluster._api = planes._api = report._api = report._events._recorder._api = Api(client, self._written)
        planes._operator = SimulatedOperator(planes._operator, client)
        report._spread = habits.spread
        self.started = self.known = 0.0
        self.applied: dict[int, float] = {}  # since when, by the resource's generation; 0 for the chart's settings
        self.reported: dict[int, float] = {}  # the same: since when the API server knows

    async def run(self) -> None:
        """Do all that an agent does, until cancelled."""
        await asyncio.sleep(random.uniform(0, self._start_within))  # noqa: S311 - to spread load
        self.started = time.monotonic()
        stop = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as parts:
                parts.create_task(self._pods.run(stop))
                parts.create_task(self._cluster.run(stop))
        finally:
            await self._cluster.close()

    async def compare(self) -> None:
        """Ask for what is compared with the pods that were heard of, as is done every ten minutes."""
        await self._pods._informer._list()

    @property
    def pods(self) -> int:
        """How many pods it knows."""
        return self._pods.count

    def _apply(self, desired: DesiredState) -> None:
        self._in_force.desired = desired
        self._changes.notify()
        if desired.control_plane:
            self.applied.setdefault(desired.control_plane.generation, time.monotonic())

    def has_started(self, generation: int) -> bool:
        """Whether it knows its pods and has reported that it applies a generation of the resource; look often to know when."""
        if self._pods.known and not self.known:
            self.known = time.monotonic()
        return bool(self.known and generation in self.reported)

    def _observe(self) -> Observed:
        return Observed(
            version="0.1.0",
            desired=self._in_force.desired,
            node=_WELL,
            tried=_BACKENDS,
            chosen=_BACKENDS[0],
            conditions=[Condition("pods", None if self._pods.known else self._pods.reason)],
            redirected=self.pods,
        )

    def _written(self, path: str, body: Mapping[str, Any]) -> None:
        if path.endswith("/status") and body["status"]["conditions"][0]["status"] == "True":
            generation = body["status"].get("controlPlane", {}).get("generation", 0)
            self.reported.setdefault(generation, time.monotonic())
