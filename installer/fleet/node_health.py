"""Judges a node, for both the controller and `install-cni status`, which adds remedies. Pure.

Rules are tried in order, and the first that applies gives the verdict. A node that changes, starts or repairs has a minute
(PATIENCE) before it counts as failed, or as unknown if no agent reports from it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from installer.fleet.node_case import Case
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

    from installer.fleet.node_case import Desired, Observation

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


class NodeHealth(NamedTuple):
    """The verdict on a node: reason for programs, message for people."""

    node: str
    state: State
    reason: str = ""
    message: str = ""


class _Trouble(NamedTuple):
    """Why a node is not as desired; during patience its state is `_soon`, unless another is given."""

    reason: str
    message: str
    late: State = State.FAILED
    soon: State | None = None
    at_once: bool = False  # whether it is late without patience
    since: datetime | None = None


class _Rule(NamedTuple):
    applies: Callable[[Case], bool]
    trouble: Callable[[Case], _Trouble]


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
    case = Case(observed, desired)
    if not desired.installed and case.is_removed:
        return NodeHealth(observed.name, State.REMOVED)
    for rule in _TO_INSTALL if desired.installed else _TO_REMOVE:
        if rule.applies(case):
            trouble = rule.trouble(case)
            since = trouble.since or unhealthy_since or case.changed
            late = since is None or trouble.at_once or now - since >= PATIENCE
            return NodeHealth(
                observed.name, trouble.late if late else trouble.soon or _soon(case), trouble.reason, trouble.message
            )
    return NodeHealth(observed.name, State.READY if desired.installed else State.REMOVING)


def _soon(case: Case) -> State:
    """Return the state during patience."""
    if not case.desired.installed:
        return State.REMOVING
    return State.REPAIRING if case.has_settings and case.is_current and not case.is_removed else State.UPDATING


def _node_not_ready(case: Case) -> _Trouble:
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


def _no_agent(_: Case) -> _Trouble:
    message = "no agent runs on this node: check that the node is up and that DaemonSet istio-cni-node has a pod on it"
    return _Trouble(NO_AGENT, message, State.UNKNOWN)


def _no_agent_to_remove(case: Case) -> _Trouble:
    if case.reported:
        was = "installed" if case.reported.state == "Installed" else "not installed"
        known = f"no agent runs to remove the plugin, last reported as {was}"
    else:
        known = (
            "no agent runs on this node, and none has reported from it: whether it has the plugin is not known. To know it, "
            "let its agent run there, which reports what it finds, or leave the node out with cni.nodeSelector or "
            "cni.affinity, if none ever was there"
        )
    return _Trouble(NO_AGENT, f"{known}; `install-cni uninstall` on the node removes it", State.UNKNOWN)


def _agent_trouble(case: Case) -> _Trouble:
    report = case.reported
    assert report is not None  # noqa: S101 - the rules ask before
    return _Trouble(report.reason or NOT_READY, report.message or "its agent does not say why", since=report.since)


def _pod_trouble(case: Case) -> _Trouble:
    pod, warning = case.observed.pod, case.observed.warning
    assert pod is not None  # noqa: S101 - likewise
    reason, message = explain_pod(pod, warning, case.observed.report)
    # On a new node the primary CNI may be about to create the directory.
    at_once = reason in HOPELESS or (case.reported is not None and missing_directory(warning) is not None)
    return _Trouble(reason, message, at_once=at_once)


def _no_report(_: Case) -> _Trouble:
    return _Trouble(NO_REPORT, "its agent runs and has not reported yet; its log says why", State.UNKNOWN)


def _outdated_settings(case: Case) -> _Trouble:
    pod = f" (pod {case.observed.pod.name})" if case.observed.pod else ""
    message = f"its agent has not applied the current settings yet; its log says why{pod}"
    return _Trouble(OUTDATED_SETTINGS, message, soon=State.UPDATING, since=_desired_since(case))


def _removed_before(case: Case) -> _Trouble:
    message = "its agent has not installed the plugin again yet"
    return _Trouble(REMOVED, message, soon=State.UPDATING, since=_desired_since(case))


def _desired_since(case: Case) -> datetime | None:
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
