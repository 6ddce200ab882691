"""The agent's metrics, as /metrics serves them.

Counters live here; the node's state is read at each scrape, so that it is never stale.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from installer.host.in_force import InForce
from installer.telemetry.prometheus import (
    Collector,
    CollectorRegistry,
    Counter,
    CounterMetricFamily,
    GaugeMetricFamily,
    Histogram,
    InfoMetricFamily,
    Metric,
    ProcessCollector,
    disable_created_metrics,
)
from plugin.handler import Outcome
from plugin.redirect import Feature

ADD_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)


class PodCounts(NamedTuple):
    """Numbers of pods.

    Attributes:
        known: pods of this node that the agent knows.
        redirected: of those, pods whose netns holds a redirect, whoever wrote it.
        unredirected: of those, running mesh pods for which no redirect has been seen.
        unreadable: results of the container runtime that do not parse.
        outcomes: running pods without a redirect, so far, by the reason of their Event.
    """

    known: int
    redirected: int = 0
    unredirected: int = 0
    unreadable: int = 0
    outcomes: Mapping[str, int] = MappingProxyType({})


class LineCounts(NamedTuple):
    """Numbers of log lines: `dropped` could not be written, `suppressed` exceeded the rate limit."""

    dropped: int
    suppressed: int


class Metrics:
    """The agent's metrics, in a registry of their own."""

    def __init__(
        self, *, version: str, in_force: InForce, pods: Callable[[], PodCounts], log_lines: Callable[[], LineCounts]
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        self._requests = counter("istio_cni_requests", "Answered requests of the plugin.", ("command", "outcome"))
        self._decisions = counter(
            "istio_cni_decisions", "ADDs by the row of the decision table that decided.", ("row",)
        )
        self._bypassing = counter(
            "istio_cni_addresses_bypassing_sidecar",
            "IPv6 addresses of redirected pods whose traffic bypasses a sidecar that is not dual-stack.",
        )
        self._families = counter(
            "istio_cni_redirected_families",
            "ADDs that redirect a pod's traffic, by address family: ipv6 counts the pods whose IPv6 is redirected, too.",
            ("family",),
        )
        self._ipv6_off = counter(
            "istio_cni_ipv6_off",
            "ADDs of pods whose IPv6 is redirected but off in their network namespace, so that it does not pass the sidecar.",
        )
        self._mismatches = counter(
            "istio_cni_annotation_mismatches",
            "ADDs of pods about which the runtime and the API server contradict each other: these are redirected.",
        )
        self._seconds = Histogram(
            "istio_cni_add_duration_seconds",
            "From the ADD's arrival at the agent to its answer.",
            ("outcome",),
            buckets=ADD_SECONDS,
            registry=self.registry,
        )
        self.registry.register(_CurrentState(version, in_force, pods, log_lines))
        ProcessCollector(registry=self.registry)

    def request(self, outcome: Outcome) -> None:
        """Count one answered request."""
        self._requests.labels(outcome.command, outcome.outcome).inc()
        if outcome.command == "ADD":
            self._seconds.labels(outcome.outcome).observe(outcome.seconds)
            self._bypassing.inc(outcome.bypassing)
            self._mismatches.inc(bool(outcome.mismatch))
            self._ipv6_off.inc(outcome.ipv6_off)
            for family in outcome.families:
                self._families.labels(f"ipv{family.version}").inc()
            if outcome.row is not None:
                self._decisions.labels(outcome.row).inc()


@dataclass(eq=False)  # a registry keeps it as a key
class _CurrentState(Collector):
    """Collects the state at each scrape."""

    version: str
    in_force: InForce
    pods: Callable[[], PodCounts]
    log_lines: Callable[[], LineCounts]

    def collect(self) -> Iterator[Metric]:
        node = self.in_force.state
        yield InfoMetricFamily("istio_cni_build", "The agent's release.", {"version": self.version})
        yield GaugeMetricFamily(
            "istio_cni_installed",
            "1 if plugin file and conflist entry are in place on this node, and nobody keeps undoing them.",
            int(node.installed),
        )
        yield GaugeMetricFamily(
            "istio_cni_conflict",
            "1 while another program keeps undoing the installation on this node.",
            int(node.conflict),
        )
        yield CounterMetricFamily(
            "istio_cni_repairs", "Repairs of the installation after another program had undone it.", node.repairs
        )
        yield GaugeMetricFamily(
            "istio_cni_last_repair_timestamp_seconds",
            "When it was last repaired; 0: never.",
            node.last_repair.time if node.last_repair else 0,
        )
        yield GaugeMetricFamily(
            "istio_cni_skipped_files", "Files in cniConfDir that are no valid network configuration.", len(node.skipped)
        )
        pods = self.pods()
        yield GaugeMetricFamily("istio_cni_pods", "Pods of this node that the agent knows.", pods.known)
        yield GaugeMetricFamily(
            "istio_cni_redirected_pods",
            "Mesh pods of this node whose network namespace holds a redirect, whoever wrote it.",
            pods.redirected,
        )
        yield GaugeMetricFamily(
            "istio_cni_unredirected_pods",
            "Running mesh pods for which no redirect has been seen; the node's IstioCNINode names them.",
            pods.unredirected,
        )
        yield GaugeMetricFamily(
            "istio_cni_unreadable_results",
            "CNI results saved by the container runtime that do not parse.",
            pods.unreadable,
        )
        without_redirect = CounterMetricFamily(
            "istio_cni_running_pods_without_redirect",
            "Outcomes for running pods that had no redirect; a pod counts again when its outcome changes.",
            labels=["outcome"],
        )
        for outcome, count in pods.outcomes.items():
            without_redirect.add_metric([outcome], count)
        yield without_redirect
        yield from _backends(self.in_force)
        dropped, suppressed = self.log_lines()
        yield CounterMetricFamily("istio_cni_dropped_log_lines", "Log lines that could not be written.", dropped)
        yield CounterMetricFamily(
            "istio_cni_suppressed_log_lines", "Log lines that the rate limit suppressed.", suppressed
        )


def _backends(in_force: InForce) -> Iterator[Metric]:
    used = GaugeMetricFamily(
        "istio_cni_backend", "1 for the backend that redirects this node's pods.", labels=["backend"]
    )
    features = GaugeMetricFamily(
        "istio_cni_backend_feature", "1 if the backend has the feature on this node.", labels=["backend", "feature"]
    )
    for each in in_force.tried:
        used.add_metric([each.backend.value], each is in_force.capability)
        for feature in Feature:
            features.add_metric([each.backend.value, feature.value], feature not in each.missing and not each.unusable)
    yield used
    yield features
