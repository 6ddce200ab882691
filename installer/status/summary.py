"""Makes the status of the cluster from the objects of the API server. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from installer.fleet.node_case import Desired
from installer.fleet.node_health import State
from installer.fleet.objects import Settings, pod_spec, spec_changed
from installer.fleet.rollouts import is_held_up, most_unavailable, template_generation
from installer.fleet.selection import unparked
from installer.kube.names import DAEMONSET, PARKED
from installer.kube.times import parse_rfc3339
from installer.status.findings import collect_findings
from installer.status.istio_agent import istios, own_daemonset
from installer.status.model import AgentDaemonSet, Cause, ClusterStatus, Health, Progress, Severity, Unavailable
from installer.status.nodes import Context, judge_nodes
from installer.status.planes import judge_planes
from installer.terminal.words import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from installer.status.model import Answers, ControlPlane, Finding, NodeStatus, Object


def summarize(answers: Answers, now: datetime) -> ClusterStatus:
    """Judge the cluster."""
    control_planes = judge_planes(() if isinstance(answers.planes, Unavailable) else answers.planes)
    first = control_planes[0] if control_planes else None
    daemonset = own_daemonset(answers.daemonsets)
    agents = _agents(daemonset) if daemonset else None
    gone = agents is None and not isinstance(answers.daemonsets, Unavailable)
    out = _is_uninstalling(answers, first, agents)
    context = Context(
        desired=_desired(answers, daemonset, first, out=out),
        removal=out or (gone and first is None),
        gone=gone,
        namespace=agents.namespace if agents else answers.namespace or "",
        image=agents.image if agents else "",
        selection=unparked(daemonset) if daemonset else None,
        now=now,
    )
    # Nothing is known of the nodes if agents may be in a namespace that was not searched.
    is_elsewhere = gone and answers.namespace is not None
    statuses = () if is_elsewhere else judge_nodes(_with_plugin(answers) if gone else answers, context)
    problems = collect_findings(answers, control_planes, agents, statuses, out=out)
    progress = _progress(answers, statuses, agents, first, out=out)
    health = _health(problems, statuses, progress)
    has_istios = not isinstance(answers.daemonsets, Unavailable) and bool(istios(answers.daemonsets))
    summary, of_this_chart = "", " of this chart" if has_istios else ""
    if is_elsewhere:
        summary = f"Not found: namespace {answers.namespace} has no DaemonSet {DAEMONSET}{of_this_chart}."
    elif gone and not out:
        summary = f"Not installed: the cluster has no node agents{of_this_chart}."
    return ClusterStatus(
        health=health,
        summary=summary or _summary(health, statuses, problems, progress, first, out=out),
        out=out,
        progress=progress,
        planes=control_planes,
        agents=agents,
        findings=problems,
        nodes=statuses,
    )


def _is_uninstalling(answers: Answers, first: ControlPlane | None, agents: AgentDaemonSet | None) -> bool:
    """Return whether the plugin is being removed from all nodes, or is removed.

    Deleting the last resource removes it; then the controller parks the agents. Without a resource they stay unchanged.
    """
    if first is not None:
        return first.terminating or first.enabled is False
    reports = () if isinstance(answers.reports, Unavailable) else answers.reports
    states = {(each.get("status") or {}).get("state") for each in reports}
    return agents is not None and (agents.parked or agents.terminating or states == {"Removed"})


def _desired(answers: Answers, daemonset: Object | None, first: ControlPlane | None, *, out: bool) -> Desired:
    """Return the settings that each node must have; any are accepted if unknown or invalid: the last valid ones stay."""
    unknown = isinstance(answers.planes, Unavailable) and answers.planes.cause is not Cause.NO_DEFINITION
    return Desired(
        installed=True,
        settings=Settings(first.uid, first.generation) if first else None,
        template=template_generation(daemonset) if daemonset else "",
        any_settings=unknown or (first is not None and bool(first.problems)),
        expects_agent=daemonset is not None and (first is not None or not out),
        since=first.changed if first else spec_changed(daemonset) if daemonset else None,
    )


def _agents(daemonset: Object) -> AgentDaemonSet:
    metadata, status = daemonset["metadata"], daemonset.get("status") or {}
    desired, updated = status.get("desiredNumberScheduled") or 0, status.get("updatedNumberScheduled") or 0
    is_observed = (status.get("observedGeneration") or 0) >= (metadata.get("generation") or 0)
    images = [each.get("image") or "" for each in pod_spec(daemonset).get("containers") or ()]
    return AgentDaemonSet(
        namespace=metadata["namespace"],
        image=images[0] if images else "",
        parked=PARKED.keys() <= (pod_spec(daemonset).get("nodeSelector") or {}).keys(),
        terminating=bool(metadata.get("deletionTimestamp")),
        desired=desired,
        ready=status.get("numberReady") or 0,
        updated=updated,
        rolling=not is_observed or updated < desired,
        held_up=is_held_up(daemonset),
        unavailable=status.get("numberUnavailable") or 0,
        most_unavailable=most_unavailable(daemonset),
        created=parse_rfc3339(metadata.get("creationTimestamp")),
    )


def _with_plugin(answers: Answers) -> Answers:
    """Without a DaemonSet, keep only the nodes that may still have the plugin: those not reported as removed."""
    if isinstance(answers.reports, Unavailable):
        return replace(answers, nodes=(), pods=())
    reports = ((each, each.get("status") or {}) for each in answers.reports)
    left = [each for each, status in reports if status.get("state") not in (None, "", "Removed") or _stays(status)]
    names = {each["metadata"]["name"] for each in left}
    items = answers.nodes
    if not isinstance(items, Unavailable):
        items = [each for each in items if each["metadata"]["name"] in names]
    return replace(answers, reports=left, nodes=items, pods=())


def _stays(reported: Mapping[str, Any]) -> bool:
    """Return whether the plugin file had to stay after everything else was removed."""
    return reported.get("state") == "Removed" and "plugin" in reported


def _progress(
    answers: Answers,
    statuses: Sequence[NodeStatus],
    agents: AgentDaemonSet | None,
    first: ControlPlane | None,
    *,
    out: bool,
) -> Progress | None:
    done = sum(each.state.is_healthy for each in statuses)
    if out:
        return Progress("Uninstall", done, len(statuses)) if done < len(statuses) else None
    controlled = not isinstance(answers.controllers, Unavailable) and len(answers.controllers) > 0
    unjudged = first is not None and controlled and first.observed < first.generation
    moving = any(each.state in (State.UPDATING, State.REMOVING) for each in statuses)
    if agents and (moving or agents.rolling or unjudged):
        return Progress("Rollout", done, len(statuses))
    return None


def _health(problems: Sequence[Finding], statuses: Sequence[NodeStatus], progress: Progress | None) -> Health:
    severities = {each.severity for each in problems}
    if Severity.ERROR in severities or any(each.state.is_lost for each in statuses):
        return Health.DEGRADED
    if progress or not all(each.state.is_healthy for each in statuses):
        return Health.PROGRESSING
    return Health.UNKNOWN if Severity.UNKNOWN in severities else Health.HEALTHY


def _summary(
    health: Health,
    statuses: Sequence[NodeStatus],
    problems: Sequence[Finding],
    progress: Progress | None,
    first: ControlPlane | None,
    *,
    out: bool,
) -> str:
    """Summarize the cluster in a sentence."""
    match health:
        case Health.UNKNOWN:
            return "Unknown: nothing is known to be wrong, but not everything can be read."
        case Health.HEALTHY if out:
            reason = f", as {first.title} asks" if first else "; no IstioControlPlane asks for it"
            return f"Removed: the plugin is removed from all nodes{reason}."
        case Health.HEALTHY:
            whose = f"the settings of {first.title}" if first else "the chart's settings"
            verb = "redirects" if len(statuses) == 1 else "redirect"
            return f"Healthy: {counted(len(statuses), 'node')} {verb} pods by {whose}."
        case Health.PROGRESSING:
            done = sum(each.state.is_healthy for each in statuses)
            what = "Uninstalling" if out else "Updating" if progress else "Repairing"
            return f"{what}: {done:,} of {len(statuses):,} nodes {'is' if done == 1 else 'are'} done."
        case Health.DEGRADED:
            return _degraded(statuses, sum(each.severity is Severity.ERROR for each in problems))


def _degraded(statuses: Sequence[NodeStatus], errors: int) -> str:
    states = Counter(each.state for each in statuses if not each.state.is_healthy)
    of_cluster = f"{counted(errors, 'problem')} in the cluster"
    if not states:
        return f"Degraded: {of_cluster}."
    which = ", ".join(f"{states[state]:,} {state.value}" for state in State if states[state])
    others = f"; {of_cluster}" if errors else ""
    return f"Degraded: {states.total():,} of {len(statuses):,} nodes ({which}){others}."
