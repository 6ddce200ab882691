"""The cluster at a glance, of the objects that the API server has given. Pure: objects in, a value out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from installer.fleet import selection
from installer.fleet.rollouts import is_held_up, most_unavailable
from installer.kube.names import DAEMONSET, PARKED
from installer.status.findings import findings
from installer.status.istio_agent import istios, ours
from installer.status.model import Agents, Cause, ClusterStatus, Health, Progress, Severity, State, Unavailable
from installer.status.nodes import Asked, nodes, template_generation
from installer.status.planes import planes
from installer.status.words import counted
from installer.terminal.ages import moment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from installer.status.model import Answers, Finding, Node, Object, Plane


def summarize(answers: Answers, now: datetime) -> ClusterStatus:
    """Judge the cluster.

    Args:
        answers: what the API server has said, of the parts that are there and that could be asked for.
        now: the time, as what starts is given some.
    """
    judged = planes(() if isinstance(answers.planes, Unavailable) else answers.planes)
    first = judged[0] if judged else None
    daemonset = _oldest(answers.daemonsets)
    agents = _agents(daemonset) if daemonset else None
    gone = agents is None and not isinstance(answers.daemonsets, Unavailable)
    out = _is_to_be_out(answers, first, agents)
    asked = Asked(
        out=out or (gone and first is None),
        gone=gone,
        settings=_settings(answers, first),
        namespace=agents.namespace if agents else answers.namespace or "",
        image=agents.image if agents else "",
        template=template_generation(daemonset) if daemonset else "",
        selection=selection.read(_pods_of(daemonset)) if daemonset and not out else None,
        now=now,
    )
    # Of the nodes nothing is known where agents may be in a namespace that nobody has looked into.
    elsewhere = gone and answers.namespace is not None
    seen = () if elsewhere else nodes(_left_over(answers) if gone else answers, asked)
    found = findings(answers, judged, agents, seen, out=out)
    progress = _progress(answers, seen, agents, first, out=out)
    health = _health(found, seen, progress)
    summary, of_this_chart = "", " of this chart" if _has_istios(answers) else ""
    if elsewhere:
        summary = f"Not found: namespace {answers.namespace} has no DaemonSet {DAEMONSET}{of_this_chart}."
    elif gone and not out:
        summary = f"Not installed: the cluster has no node agents{of_this_chart}."
    return ClusterStatus(
        health=health,
        summary=summary or _summary(health, seen, found, progress, first, out=out),
        out=out,
        progress=progress,
        planes=judged,
        agents=agents,
        findings=found,
        nodes=seen,
    )


def _is_to_be_out(answers: Answers, first: Plane | None, agents: Agents | None) -> bool:
    """Tell whether the plugin is to be out of all nodes.

    The last resource that goes takes it out; then the controller parks the agents. Where there is none, they stay as they are.
    """
    if first is not None:
        return first.terminating or first.enabled is False
    reports = () if isinstance(answers.reports, Unavailable) else answers.reports
    states = {(each.get("status") or {}).get("state") for each in reports}
    return agents is not None and (agents.parked or agents.terminating or states == {"Removed"})


def _settings(answers: Answers, first: Plane | None) -> tuple[str, int] | tuple[()] | None:
    """Find what each node must have: () where it cannot be told, as with a wrong resource, which leaves the last good one."""
    if isinstance(answers.planes, Unavailable) and answers.planes.cause is not Cause.NO_DEFINITION:
        return ()
    if first is None:
        return None
    return () if first.problems else (first.uid, first.generation)


def _agents(daemonset: Object) -> Agents:
    metadata, status, spec = daemonset["metadata"], daemonset.get("status") or {}, daemonset["spec"]
    desired, updated = status.get("desiredNumberScheduled") or 0, status.get("updatedNumberScheduled") or 0
    is_seen = (status.get("observedGeneration") or 0) >= (metadata.get("generation") or 0)
    images = [each.get("image", "") for each in spec["template"]["spec"]["containers"]]
    return Agents(
        namespace=metadata["namespace"],
        image=images[0] if images else "",
        parked=PARKED.keys() <= (_pods_of(daemonset).get("nodeSelector") or {}).keys(),
        terminating=bool(metadata.get("deletionTimestamp")),
        desired=desired,
        ready=status.get("numberReady") or 0,
        updated=updated,
        rolling=not is_seen or updated < desired,
        held_up=is_held_up(daemonset),
        unavailable=status.get("numberUnavailable") or 0,
        most_unavailable=most_unavailable(daemonset),
        created=moment(metadata.get("creationTimestamp")),
    )


def _pods_of(daemonset: Object) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = daemonset["spec"]["template"]["spec"]
    return spec


def _oldest(answer: Sequence[Object] | Unavailable) -> Object | None:
    if isinstance(answer, Unavailable):
        return None
    return min(ours(answer), key=lambda each: str(each["metadata"].get("creationTimestamp")), default=None)


def _has_istios(answers: Answers) -> bool:
    return not isinstance(answers.daemonsets, Unavailable) and bool(istios(answers.daemonsets))


def _left_over(answers: Answers) -> Answers:
    """Keep of the answers, where there is no DaemonSet, the nodes that still have the plugin."""
    if isinstance(answers.reports, Unavailable):
        return replace(answers, nodes=(), pods=())
    told = ((each, each.get("status") or {}) for each in answers.reports)
    left = [each for each, said in told if said.get("state") == "Installed" or _stays(said)]
    names = {each["metadata"]["name"] for each in left}
    listed = answers.nodes
    if not isinstance(listed, Unavailable):
        listed = [each for each in listed if each["metadata"]["name"] in names]
    return replace(answers, reports=left, nodes=listed, pods=())


def _stays(reported: Mapping[str, Any]) -> bool:
    """Whether the plugin file had to stay where all else was taken out."""
    return reported.get("state") == "Removed" and "plugin" in reported


def _progress(
    answers: Answers, seen: Sequence[Node], agents: Agents | None, first: Plane | None, *, out: bool
) -> Progress | None:
    done = sum(each.state.is_healthy for each in seen)
    if out:
        return Progress("Uninstall", done, len(seen)) if done < len(seen) else None
    controlled = not isinstance(answers.controllers, Unavailable) and len(answers.controllers) > 0
    unjudged = first is not None and controlled and first.observed < first.generation
    moving = any(each.state in (State.UPDATING, State.REMOVING) for each in seen)
    if agents and (moving or agents.rolling or unjudged):
        return Progress("Rollout", done, len(seen))
    return None


def _health(found: Sequence[Finding], seen: Sequence[Node], progress: Progress | None) -> Health:
    severities = {each.severity for each in found}
    if Severity.ERROR in severities or any(each.state in (State.FAILED, State.UNKNOWN) for each in seen):
        return Health.DEGRADED
    if progress or not all(each.state.is_healthy for each in seen):
        return Health.PROGRESSING
    return Health.UNKNOWN if Severity.UNKNOWN in severities else Health.HEALTHY


def _summary(
    health: Health,
    seen: Sequence[Node],
    found: Sequence[Finding],
    progress: Progress | None,
    first: Plane | None,
    *,
    out: bool,
) -> str:
    states = Counter(each.state for each in seen)
    wrong = sum(each.severity is Severity.ERROR for each in found)
    others = f"; {counted(wrong, 'thing')} in the cluster {'is' if wrong == 1 else 'are'} wrong" if wrong else ""
    ill = [state for state in State if states[state] and not state.is_healthy]
    whose = f"the settings of {first.title}" if first else "the chart's settings"
    if health is Health.UNKNOWN:
        return "Unknown: nothing is seen to be wrong, but not everything could be asked for."
    if health is Health.HEALTHY and out:
        asks = f", as {first.title} asks" if first else "; no IstioControlPlane asks for it"
        return f"Removed: the plugin is out of all nodes{asks}."
    if health is Health.HEALTHY:
        return f"Healthy: {counted(len(seen), 'node')} {'redirects' if len(seen) == 1 else 'redirect'} pods by {whose}."
    if progress and health is Health.PROGRESSING:
        what = "Uninstalling" if out else "Updating"
        done = f"{progress.done:,} of {progress.total:,} nodes {'is' if progress.done == 1 else 'are'} done"
        return f"{what}: {done}."
    if not ill:
        return f"Degraded: {counted(wrong, 'thing')} in the cluster {'is' if wrong == 1 else 'are'} wrong."
    which = ", ".join(f"{states[state]:,} {state.value}" for state in ill)
    number = sum(states[state] for state in ill)
    return f"Degraded: {number:,} of {len(seen):,} nodes ({which}){others}."
