"""The controller's metrics, for Prometheus."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from installer.fleet.node_health import State
from installer.telemetry.prometheus import CollectorRegistry, Gauge, ProcessCollector, disable_created_metrics
from installer.telemetry.prometheus import Counter as Counted

if TYPE_CHECKING:
    from installer.controller.status import Fleet


class Metrics:
    """The controller's metrics, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        gauge, counter = partial(Gauge, registry=self.registry), partial(Counted, registry=self.registry)
        self.leader = gauge("istio_cni_controller_leader", "1 if this controller is the leader.")
        self.reconciliations = counter(
            "istio_cni_controller_reconciliations", "Reconciliations of the desired and the actual state."
        )
        self.status_writes = counter("istio_cni_controller_status_writes", "Status updates of IstioControlPlanes.")
        self._nodes = gauge("istio_cni_nodes", "Nodes by state.", ("state",))
        ProcessCollector(registry=self.registry)

    def judged(self, fleet: Fleet) -> None:
        """Record the states of the nodes."""
        count = Counter(each.state for each in fleet.verdicts)
        for state in State:
            self._nodes.labels(state.value.lower()).set(count[state])
