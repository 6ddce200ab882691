"""What is observed of a node, and what is desired: the predicates that the rules of `installer.fleet.node_health` use. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from installer.fleet.reasons import REMOVED

if TYPE_CHECKING:
    from datetime import datetime

    from installer.fleet.objects import AgentPod, Node, Report, Settings
    from installer.fleet.pod_diagnosis import PodWarning


@dataclass(frozen=True)
class Desired:
    """The desired state of every node.

    Attributes:
        settings: the settings in force; None: the chart's.
        template: the generation of the DaemonSet's pod template; empty: unknown.
        any_settings: whether any settings are accepted, because the active control plane is invalid or unknown.
        expects_agent: whether an agent is to run there, if only to remove the plugin.
        since: when this was last changed; None: unknown.
    """

    installed: bool
    settings: Settings | None
    template: str = ""
    any_settings: bool = False
    expects_agent: bool = True
    since: datetime | None = None


@dataclass(frozen=True)
class Observation:
    """What is known of a node.

    Attributes:
        report: the agent's, or the controller's in its place; None: there is none.
        pod: the agent's; None: there is none.
        node: the Node; None: unknown.
        warning: the latest warning about the pod; None: there is none, or it was not read.
        reports_known: whether reports could be read.
        pods_known: whether pods could be read.
    """

    name: str
    report: Report | None
    pod: AgentPod | None
    node: Node | None = None
    warning: PodWarning | None = None
    reports_known: bool = True
    pods_known: bool = True


@dataclass(frozen=True)
class Case:
    """An observation and the desired state, with the predicates that the rules use."""

    observed: Observation
    desired: Desired

    @property
    def reported(self) -> Report | None:
        """The agent's own report: one that the controller wrote has no state."""
        return self.observed.report if self.observed.report and self.observed.report.state else None

    @property
    def node_is_down(self) -> bool:
        """Whether Kubernetes reports the node as not ready."""
        return self.observed.node is not None and not self.observed.node.ready

    @property
    def has_no_pod(self) -> bool:
        """Whether it is known that the agent has no pod there."""
        return self.observed.pod is None and self.observed.pods_known

    @property
    def has_no_report(self) -> bool:
        """Whether it is known that no agent has reported."""
        return self.reported is None and self.observed.reports_known

    @property
    def pod_is_unready(self) -> bool:
        """Whether the agent's pod is not ready, and not being deleted."""
        return self.observed.pod is not None and not self.observed.pod.ready and not self.observed.pod.terminating

    @property
    def pod_is_down(self) -> bool:
        """Whether the agent's pod does not run."""
        return self.observed.pod is not None and not self.observed.pod.runs

    @property
    def agent_explains(self) -> bool:
        """Whether a running agent reports why it is not ready; Removed was reported before it started."""
        report, pod = self.reported, self.observed.pod
        return (
            pod is not None and pod.runs and report is not None and report.ready is False and report.reason != REMOVED
        )

    @property
    def is_removed(self) -> bool:
        """Whether the agent has reported that the plugin is removed."""
        return self.reported is not None and self.reported.state == REMOVED

    @property
    def has_settings(self) -> bool:
        """Whether the agent has applied the desired settings, as far as known."""
        report = self.reported
        if report is None or self.desired.any_settings:
            return report is not None or not self.observed.reports_known
        return report.settings == self.desired.settings

    @property
    def is_current(self) -> bool:
        """Whether the pod is of the current template, if that is known."""
        pod, template = self.observed.pod, self.desired.template
        return not self.observed.pods_known or (
            pod is not None and (not (template and pod.template) or pod.template == template)
        )

    @property
    def redirects(self) -> bool:
        """Whether the agent reports that it redirects pods, as far as known."""
        report = self.reported
        return report is None or (report.ready is True and report.state == "Installed")

    @property
    def changed(self) -> datetime | None:
        """When something last changed that takes time to complete, by the objects' own times; None: unknown."""
        node, pod = self.observed.node, self.observed.pod
        times = [None if self.desired.installed else self.desired.since, pod.changed or pod.created if pod else None]
        if node:
            times += [node.created if pod is None else None, None if node.ready else node.changed]
        return max(filter(None, times), default=None)
