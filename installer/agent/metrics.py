"""What /metrics tells, in Prometheus' names.

Counts of events are kept here; the state of the node is asked for at each scrape, so that it cannot be out of date.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from installer.agent.backends import Backends
from installer.fleet.state import NodeState
from plugin.redirect import Family, Feature

ADD_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)


class PodCounts(NamedTuple):
    """Numbers of pods.

    Attributes:
        known: those of the node that the agent knows.
        redirected: those of them whose netns holds a redirect, whoever wrote it.
        unredirected: those of them that run, should be redirected, and for which no redirect has been seen.
        unreadable: results of the container runtime that are not understood.
    """

    known: int
    redirected: int = 0
    unredirected: int = 0
    unreadable: int = 0


class LineCounts(NamedTuple):
    """Numbers of log lines: `dropped` could not be written, `suppressed` exceeded the rate limit."""

    dropped: int
    suppressed: int


class Metrics:
    """The agent's metrics, in a registry of their own."""

    def __init__(
        self,
        *,
        version: str,
        node: Callable[[], NodeState],
        pods: Callable[[], PodCounts],
        backends: Callable[[], Backends],
        log_lines: Callable[[], LineCounts],
    ) -> None:
        """Wire them.

        Args:
            version: of this agent.
            node: the state of the node's files, now.
            pods: the numbers of this node's pods, now.
            backends: what was tried to redirect pods by, and what is used.
            log_lines: the numbers of log lines that were not written, so far.
        """
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "istio_cni_requests",
            "Requests of the plugin that were answered.",
            ("command", "outcome"),
            registry=self.registry,
        )
        self._decisions = Counter(
            "istio_cni_decisions",
            "ADDs by the row of the decision table that decided.",
            ("row",),
            registry=self.registry,
        )
        self._bypassing = Counter(
            "istio_cni_addresses_bypassing_sidecar",
            "IPv6 addresses of redirected pods whose traffic bypasses a sidecar that is not dual-stack.",
            registry=self.registry,
        )
        self._families = Counter(
            "istio_cni_redirected_families",
            "ADDs that redirect a pod's traffic, by address family: ipv6 counts the pods whose IPv6 is redirected, too.",
            ("family",),
            registry=self.registry,
        )
        self._ipv6_off = Counter(
            "istio_cni_ipv6_off",
            "ADDs of pods whose IPv6 is redirected but off in their network namespace, so that it does not pass the sidecar.",
            registry=self.registry,
        )
        self._mismatches = Counter(
            "istio_cni_annotation_mismatches",
            "ADDs of pods about which the runtime and the API server contradict each other: these are redirected.",
            registry=self.registry,
        )
        self._seconds = Histogram(
            "istio_cni_add_duration_seconds",
            "From the ADD's arrival at the agent to its answer.",
            ("outcome",),
            buckets=ADD_SECONDS,
            registry=self.registry,
        )
        self._running = Counter(
            "istio_cni_running_pods_without_redirect",
            "Running pods that had no redirect, by what became of them.",
            ("outcome",),
            registry=self.registry,
        )
        self.registry.register(_Now(version, node, pods, backends, log_lines))
        prometheus_client.ProcessCollector(registry=self.registry)

    def request(
        self,
        command: str,
        outcome: str,
        seconds: float,
        row: str | None = None,
        *,
        bypassing: int = 0,
        mismatch: str = "",
        families: tuple[Family, ...] = (),
        ipv6_off: bool = False,
    ) -> None:
        """Count one answered request.

        Args:
            command: of CNI: ADD, CHECK, STATUS.
            outcome: redirect, pass or error.
            seconds: from its arrival to its answer.
            row: the row of the decision table that decided, if one did: one of a few names, never a free text.
            bypassing: how many of the pod's addresses bypass its sidecar.
            mismatch: how the runtime and the API server contradict each other about the pod, if they do.
            families: those that are redirected.
            ipv6_off: whether IPv6 is off in the pod's netns, though redirected.
        """
        self._requests.labels(command, outcome).inc()
        if command == "ADD":
            self._seconds.labels(outcome).observe(seconds)
            self._bypassing.inc(bypassing)
            self._mismatches.inc(bool(mismatch))
            self._ipv6_off.inc(ipv6_off)
            for family in families:
                self._families.labels(f"ipv{family.version}").inc()
            if row is not None:
                self._decisions.labels(row).inc()

    def running_pod(self, outcome: str) -> None:
        """Count a running pod that had no redirect: Redirected, Deleted, NotRedirected or RedirectIneffective."""
        self._running.labels(outcome).inc()


class _Now(Collector):
    """The state at the moment of the scrape."""

    def __init__(
        self,
        version: str,
        node: Callable[[], NodeState],
        pods: Callable[[], PodCounts],
        backends: Callable[[], Backends],
        log_lines: Callable[[], LineCounts],
    ) -> None:
        self._version = version
        self._node = node
        self._pods = pods
        self._backends = backends
        self._log_lines = log_lines

    def collect(self) -> Iterator[Metric]:
        node = self._node()
        yield InfoMetricFamily("istio_cni_build", "The agent's release.", {"version": self._version})
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
            "istio_cni_repairs", "Times that others had undone the installation and it was repaired.", node.repairs
        )
        yield GaugeMetricFamily(
            "istio_cni_last_repair_timestamp_seconds",
            "When it was last repaired; 0: never.",
            node.last_repair.time if node.last_repair else 0,
        )
        yield GaugeMetricFamily(
            "istio_cni_skipped_files", "Files in cniConfDir that are no valid network configuration.", len(node.skipped)
        )
        pods = self._pods()
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
            "Results that the container runtime keeps of its CNI plugins and that are not understood.",
            pods.unreadable,
        )
        yield from _backends(self._backends())
        dropped, suppressed = self._log_lines()
        yield CounterMetricFamily("istio_cni_dropped_log_lines", "Log lines that could not be written.", dropped)
        yield CounterMetricFamily(
            "istio_cni_suppressed_log_lines",
            "Log lines that the rate limit suppressed.",
            suppressed,
        )


def _backends(backends: Backends) -> Iterator[Metric]:
    used = GaugeMetricFamily(
        "istio_cni_backend", "1 for the backend that redirects this node's pods.", labels=["backend"]
    )
    features = GaugeMetricFamily(
        "istio_cni_backend_feature", "1 if the backend has the feature on this node.", labels=["backend", "feature"]
    )
    for each in backends.tried:
        used.add_metric([each.backend.value], each is backends.chosen)
        for feature in Feature:
            features.add_metric([each.backend.value, feature.value], feature not in each.missing and not each.unusable)
    yield used
    yield features
