"""The nodes of a cluster: each judged by `installer.fleet.node_health`, with what its agent reports and with remedies. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from installer.fleet import objects, reasons
from installer.fleet.node_case import Observation
from installer.fleet.node_health import State, is_judged, judge
from installer.fleet.rollouts import is_older
from installer.kube.names import DAEMONSET, REDIRECTING, cleaning_command
from installer.kube.times import parse_rfc3339
from installer.status.model import NodeStatus, NodeWarning, Repairs, Unavailable
from installer.terminal.words import kubectl, listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from installer.fleet.node_case import Desired
    from installer.fleet.node_health import NodeHealth
    from installer.fleet.objects import AgentPod, Report
    from installer.fleet.selection import Selection
    from installer.status.model import Answers, Object

PLUGIN_FILE_IN_USE = "PluginFileInUse"  # the fault of a node from which everything else is removed
_ORDER = tuple(State)


@dataclass(frozen=True)
class Context:
    """The context that all nodes share.

    Attributes:
        desired: the desired state of each selected node.
        removal: whether the plugin is being removed from all nodes.
        gone: whether the DaemonSet does not exist.
        namespace: that of the DaemonSet; empty: unknown.
        image: the agents'; empty: unknown.
        selection: which nodes have an agent; None: all.
    """

    desired: Desired
    removal: bool
    gone: bool
    namespace: str
    image: str
    selection: Selection | None
    now: datetime


def judge_nodes(answers: Answers, context: Context) -> tuple[NodeStatus, ...]:
    """Judge all nodes; unhealthy ones come first, by state, then by name."""
    reports, known = _by_name(answers.reports), _by_name(answers.nodes)
    pods_known, reports_known = not isinstance(answers.pods, Unavailable), not isinstance(answers.reports, Unavailable)
    pods = {} if isinstance(answers.pods, Unavailable) else objects.by_node(map(objects.read_agent_pod, answers.pods))
    # Without the list of nodes, only nodes with other known objects are listed.
    names = known or (reports.keys() | pods.keys() if isinstance(answers.nodes, Unavailable) else ())
    statuses = []
    for name in names:
        node = objects.read_node(known[name]) if name in known else None
        manifest, pod = reports.get(name), pods.get(name)
        report = objects.read_report(manifest) if manifest else None
        selected = node is None or context.selection is None or context.selection.has_agent(node, pod)
        installed = selected and not context.removal and not context.gone
        known_since = installed or (context.removal and not context.gone)
        desired = replace(
            context.desired,
            installed=installed,
            expects_agent=selected and context.desired.expects_agent,
            since=context.desired.since if known_since else None,
        )
        observed = Observation(name, report, pod, node, reports_known=reports_known, pods_known=pods_known)
        if not is_judged(observed, desired):
            continue
        status = (manifest or {}).get("status") or {}
        statuses.append(_status(judge(observed, desired, context.now), observed, status, desired, context))
    return tuple(sorted(statuses, key=lambda each: (_ORDER.index(each.state), each.name)))


def _status(
    health: NodeHealth, observed: Observation, reported: Mapping[str, Any], desired: Desired, context: Context
) -> NodeStatus:
    report, pod = observed.report, observed.pod
    is_from_agent = report is not None and (
        health.state is State.READY or (health.state is State.FAILED and health.reason == report.reason)
    )
    return NodeStatus(
        name=observed.name,
        state=health.state,
        reason=health.reason,
        message=health.message,
        remedy=_remedy(health, observed, reported, desired, context),
        since=report.since if report and is_from_agent else None,
        pod=pod.name if pod else "",
        warning=_warning(health, report, reported),
        was_unready=_was_unready(report, pod),
        **_reported(reported),
    )


def _remedy(
    health: NodeHealth, observed: Observation, reported: Mapping[str, Any], desired: Desired, context: Context
) -> str:
    """Return the command that fixes it or shows more, if there is one."""
    pod = observed.pod.name if observed.pod else ""
    remedies = {
        reasons.NODE_NOT_READY: f"Look into it: kubectl describe node {observed.name}",
        reasons.NO_AGENT: f"Look into it: {kubectl(context.namespace, f'describe daemonset {DAEMONSET}')}",
        reasons.NO_REPORT: f"Look into it: {kubectl(context.namespace, f'logs {pod}')}",
        reasons.OUTDATED_SETTINGS: f"If it stays like this: {kubectl(context.namespace, f'logs {pod}')}",
        reasons.REMOVED: f"If it stays like this: {kubectl(context.namespace, f'delete pod {pod}')}",
    }
    if health.state.is_healthy:
        return ""
    if health.reason == reasons.NO_AGENT and not desired.installed:
        return _cleaning(observed, reported, context.image)
    if health.reason in remedies:
        return remedies[health.reason]
    if health.reason in reasons.CRASH:
        return f"Look into it: {kubectl(context.namespace, f'logs --previous {pod}')}"
    if observed.pod and observed.pod.reason == health.reason and not observed.pod.runs:
        return f"Look into it: {kubectl(context.namespace, f'describe pod {pod}')}"
    return ""


def _cleaning(observed: Observation, reported: Mapping[str, Any], image: str) -> str:
    """Return the command that removes the plugin from a node without an agent, by its last report."""
    plugin = (reported.get("plugin") or {}).get("path")
    directories = {
        "cniConfDir": (reported.get("conflist") or {}).get("directory") or "CNI_CONF_DIR",
        "cniBinDir": str(PurePosixPath(plugin).parent) if plugin else "CNI_BIN_DIR",
    }
    version = observed.report.version if observed.report else ""
    fill = [] if image else [f"the image of {f'release {version}' if version else 'its release'} for IMAGE"]
    fill += [f"its {name} for {each}" for name, each in directories.items() if each.startswith("CNI_")]
    command = cleaning_command(observed.name, image, directories.values())
    return f"To make sure, with {listed(fill)}: {command}" if fill else f"To make sure: {command}"


def _warning(health: NodeHealth, report: Report | None, reported: Mapping[str, Any]) -> NodeWarning | None:
    """Return the agent's message about a fault on a node that redirects pods, or from which the plugin is removed."""
    if report is None:
        return None
    if report.state == "Removed" and health.state not in (State.READY, State.UPDATING):
        # The agent had to keep the plugin file, which another configuration names.
        return NodeWarning(PLUGIN_FILE_IN_USE, report.message) if "plugin" in reported else None
    redirects = report.ready is True and health.state in (State.READY, State.UPDATING)
    return NodeWarning(report.reason, report.message) if redirects and report.reason not in ("", REDIRECTING) else None


def _was_unready(report: Report | None, pod: AgentPod | None) -> bool:
    """Return whether the controller lets a rollout pass it, by the rule of `installer.controller.stalled_rollout`."""
    if pod is None:
        return False
    since = report.since if report and report.ready is False else None
    return pod.terminating or (since is not None and is_older(since, pod.created))


def _reported(status: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the fields that an agent reports."""
    conflist, repairs, backend = (status.get(key) or {} for key in ("conflist", "repairs", "backend"))
    last, plane = repairs.get("last") or {}, status.get("controlPlane")
    return {
        "version": status.get("version") or "",
        "backend": backend.get("name") or "",
        "missing_features": tuple(each.get("feature") or "" for each in backend.get("missing") or ()),
        "directory": conflist.get("directory") or "",
        "file": conflist.get("file") or "",
        "form": conflist.get("form") or "",
        "meshes": tuple(conflist.get("meshes") or ()),
        "repairs": Repairs(repairs.get("count") or 0, parse_rfc3339(last.get("time")), last.get("file") or "")
        if "repairs" in status
        else None,
        "redirected": (status.get("pods") or {}).get("redirected"),
        "settings": f"{plane.get('namespace')}/{plane.get('name')}@{plane.get('generation')}" if plane else "",
    }


def _by_name(answer: Iterable[Object] | Unavailable) -> dict[str, Object]:
    return {} if isinstance(answer, Unavailable) else {each["metadata"]["name"]: each for each in answer}
