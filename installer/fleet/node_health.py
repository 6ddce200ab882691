"""Judges a node, for both the controller and `install-cni status`, which adds remedies. Pure.

Rules are tried in order, and the first that applies gives the verdict. A node that changes, starts or repairs has a minute
(PATIENCE) before it counts as failed, or as unknown if no agent reports from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from installer.fleet.pod_diagnosis import explain_pod, missing_directory
from installer.fleet.reasons import (
    HOPELESS,
    NO_AGENT,
    NO_REPORT,
    NODE_NOT_READY,
    NOT_READY,
    NOT_REMOVED,
    OUTDATED_SETTINGS,
    REMOVED,
    WAITING_FOR_UPDATE,
)
from installer.kube.names import REDIRECTING

if TYPE_CHECKING:
    from collections.abc import Callable

    from installer.fleet.objects import AgentPod, Node, Report, Settings
    from installer.fleet.pod_diagnosis import PodWarning

PATIENCE = timedelta(seconds=60)


class State(Enum):
    """The state of a node, the worst first."""

    FAILED = "Failed"  # its agent cannot run, or cannot reach the desired state
    UNKNOWN = "Unknown"  # no agent runs there, or none has reported
    REMOVING = "Removing"  # the plugin is being removed
    REPAIRING = "Repairing"  # it was ready, and its agent is restoring the installation
    UPDATING = "Updating"  # a change has not reached it yet
    READY = "Ready"  # as desired
    REMOVED = "Removed"  # the plugin is removed, as desired

    @property
    def is_healthy(self) -> bool:
        """Whether a node in this state is as desired."""
        return self in (State.READY, State.REMOVED)

    @property
    def is_changing(self) -> bool:
        """Whether a node in this state may become healthy by itself."""
        return not self.is_healthy and not self.is_lost

    @property
    def is_lost(self) -> bool:
        """Whether a node in this state needs intervention."""
        return self in (State.FAILED, State.UNKNOWN)


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


class NodeHealth(NamedTuple):
    """The verdict on a node: reason for programs, message for people."""

    node: str
    state: State
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class _Case:
    """An observation and the desired state, with the predicates that the rules use."""

    observed: Observation
    desired: Desired

    @property
    def reported(self) -> Report | None:
        """The agent's own report: one that the controller wrote has no state."""
        return self.observed.report if self.observed.report and self.observed.report.state else None

    @property
    def node_is_down(self) -> bool:
        return self.observed.node is not None and not self.observed.node.ready

    @property
    def has_no_pod(self) -> bool:
        return self.observed.pod is None and self.observed.pods_known

    @property
    def has_no_report(self) -> bool:
        return self.reported is None and self.observed.reports_known

    @property
    def pod_is_unready(self) -> bool:
        return self.observed.pod is not None and not self.observed.pod.ready and not self.observed.pod.terminating

    @property
    def pod_is_down(self) -> bool:
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
        return self.reported is not None and self.reported.state == REMOVED

    @property
    def has_settings(self) -> bool:
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
        report = self.reported
        return report is None or (report.ready is True and report.state == "Installed")

    @property
    def soon(self) -> State:
        """The state during patience."""
        if not self.desired.installed:
            return State.REMOVING
        return State.REPAIRING if self.has_settings and self.is_current and not self.is_removed else State.UPDATING

    @property
    def changed(self) -> datetime | None:
        """When something last changed that takes time to complete, by the objects' own times; None: unknown."""
        node, pod = self.observed.node, self.observed.pod
        times = [None if self.desired.installed else self.desired.since, pod.changed or pod.created if pod else None]
        if node:
            times += [node.created if pod is None else None, None if node.ready else node.changed]
        return max(filter(None, times), default=None)


class _Trouble(NamedTuple):
    """Why a node is not as desired; during patience its state is `_Case.soon`, unless another is given."""

    reason: str
    message: str
    late: State = State.FAILED
    soon: State | None = None
    at_once: bool = False  # whether it is late without patience
    since: datetime | None = None


class _Rule(NamedTuple):
    applies: Callable[[_Case], bool]
    trouble: Callable[[_Case], _Trouble]


def is_judged(observed: Observation, desired: Desired) -> bool:
    """Whether there is anything to judge: an agent that runs there, has reported from there, or is expected.

    Any other node is left out: the plugin may never have been there, and nobody knows that it was removed.
    """
    if observed.pod or (observed.report and observed.report.state) or desired.installed:
        return True
    return desired.expects_agent and observed.reports_known and observed.pods_known


def judge(
    observed: Observation, desired: Desired, now: datetime, unhealthy_since: datetime | None = None
) -> NodeHealth:
    """Judge a node, if `is_judged`.

    `unhealthy_since` is when the caller first observed it as unhealthy; without it the objects' own times count. If these
    are unknown too, patience is over.
    """
    case = _Case(observed, desired)
    if not desired.installed and case.is_removed:
        return NodeHealth(observed.name, State.REMOVED)
    for rule in _TO_INSTALL if desired.installed else _TO_REMOVE:
        if rule.applies(case):
            trouble = rule.trouble(case)
            since = trouble.since or unhealthy_since or case.changed
            late = since is None or trouble.at_once or now - since >= PATIENCE
            return NodeHealth(
                observed.name, trouble.late if late else trouble.soon or case.soon, trouble.reason, trouble.message
            )
    return NodeHealth(observed.name, State.READY if desired.installed else State.REMOVING)


def _node_not_ready(case: _Case) -> _Trouble:
    message = "Kubernetes reports this node as not ready"
    report, pod, warning = case.observed.report, case.observed.pod, case.observed.warning
    if pod and case.pod_is_down:
        if pod.is_mute and not warning and report and report.by_controller and report.reason == NODE_NOT_READY:
            message = report.message  # the controller knows the Event
        else:
            message += f"; the agent's pod may name the cause: {explain_pod(pod, warning, report).message}"
    elif (
        report
        and report.message
        and not report.by_controller
        and (report.ready is not True or report.reason != REDIRECTING)
    ):
        message += f"; the node's report may name the cause: {report.message}"
    return _Trouble(NODE_NOT_READY, message, State.UNKNOWN)


def _no_agent(_: _Case) -> _Trouble:
    message = "no agent runs on this node: check that the node is up and that DaemonSet istio-cni-node has a pod on it"
    return _Trouble(NO_AGENT, message, State.UNKNOWN)


def _no_agent_to_remove(case: _Case) -> _Trouble:
    if case.reported:
        was = "installed" if case.reported.state == "Installed" else "not installed"
        known = f"no agent runs to remove the plugin, last reported as {was}"
    else:
        known = "no agent runs on this node, and none has reported from it: whether it has the plugin is not known"
    return _Trouble(NO_AGENT, f"{known}; `install-cni uninstall` on the node removes it", State.UNKNOWN)


def _agent_trouble(case: _Case) -> _Trouble:
    report = case.reported
    assert report is not None  # noqa: S101 - the rules ask before
    return _Trouble(report.reason or NOT_READY, report.message or "its agent does not say why", since=report.since)


def _pod_trouble(case: _Case) -> _Trouble:
    pod, warning = case.observed.pod, case.observed.warning
    assert pod is not None  # noqa: S101 - likewise
    reason, message = explain_pod(pod, warning, case.observed.report)
    # On a new node the primary CNI may be about to create the directory.
    at_once = reason in HOPELESS or (case.reported is not None and missing_directory(warning) is not None)
    return _Trouble(reason, message, at_once=at_once)


def _no_report(_: _Case) -> _Trouble:
    return _Trouble(NO_REPORT, "its agent runs and has not reported yet; its log says why", State.UNKNOWN)


def _outdated_settings(case: _Case) -> _Trouble:
    pod = f" (pod {case.observed.pod.name})" if case.observed.pod else ""
    message = f"its agent has not applied the current settings yet; its log says why{pod}"
    return _Trouble(OUTDATED_SETTINGS, message, soon=State.UPDATING, since=_desired_since(case))


def _removed_before(case: _Case) -> _Trouble:
    message = "its agent has not installed the plugin again yet"
    return _Trouble(REMOVED, message, soon=State.UPDATING, since=_desired_since(case))


def _desired_since(case: _Case) -> datetime | None:
    """Return since when an agent could have reached the desired state, if known."""
    return max(case.desired.since, case.changed or case.desired.since) if case.desired.since else None


_TO_INSTALL = (
    _Rule(lambda case: case.node_is_down, _node_not_ready),
    _Rule(lambda case: case.has_no_pod, _no_agent),
    _Rule(lambda case: case.pod_is_unready and case.agent_explains, _agent_trouble),
    _Rule(lambda case: case.pod_is_unready, _pod_trouble),
    _Rule(lambda case: case.has_no_report, _no_report),
    _Rule(lambda case: case.is_removed, _removed_before),
    _Rule(lambda case: not case.has_settings, _outdated_settings),
    _Rule(lambda case: not case.redirects, _agent_trouble),
    _Rule(
        lambda case: not case.is_current or (case.observed.pod is not None and case.observed.pod.terminating),
        lambda _: _Trouble(WAITING_FOR_UPDATE, "waiting for the rolling update", State.UPDATING, State.UPDATING),
    ),
)
_TO_REMOVE = (
    _Rule(lambda case: case.node_is_down, _node_not_ready),
    _Rule(lambda case: case.has_no_pod, _no_agent_to_remove),
    _Rule(lambda case: case.pod_is_down, _pod_trouble),
    _Rule(lambda case: case.has_no_report, _no_report),
    _Rule(lambda case: case.agent_explains, lambda case: _agent_trouble(case)._replace(since=None)),
    _Rule(
        lambda _: True, lambda _: _Trouble(NOT_REMOVED, "its agent has not removed the plugin yet; its log says why")
    ),
)
