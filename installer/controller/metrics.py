"""The controller's metrics, for Prometheus."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client import Counter as Counted

from installer.fleet.node_health import State

if TYPE_CHECKING:
    from installer.controller.status import Fleet


class Metrics:
    """The controller's metrics, in a registry of their own."""

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._leader = Gauge(
            "istio_cni_controller_leader", "1 if this controller is the leader.", registry=self.registry
        )
        self._reconciled = Counted(
            "istio_cni_controller_reconciliations",
            "Reconciliations of the desired and the actual state.",
            registry=self.registry,
        )
        self._written = Counted(
            "istio_cni_controller_status_writes", "Status updates of IstioControlPlanes.", registry=self.registry
        )
        self._nodes = Gauge("istio_cni_nodes", "Nodes by state.", ("state",), registry=self.registry)
        prometheus_client.ProcessCollector(registry=self.registry)

    def leads(self) -> None:
        """Record that this controller is the leader."""
        self._leader.set(1)

    def reconciled(self) -> None:
        """Count a reconciliation."""
        self._reconciled.inc()

    def wrote_status(self) -> None:
        """Count a status update."""
        self._written.inc()

    def judged(self, fleet: Fleet) -> None:
        """Record the states of the nodes."""
        count = Counter(each.state for each in fleet.verdicts)
        for state in State:
            self._nodes.labels(state.value.lower()).set(count[state])
