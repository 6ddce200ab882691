"""The uninstall of a deleted resource: the state machine of the finalizer (D7). Pure.

Agents remove their installation and report it; then the DaemonSet is parked and its pods terminate; then the finalizer is
removed. Nodes that are not done by the deadline are named and skipped.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.config.active import is_being_deleted
from installer.controller import pod_template
from installer.controller.control_plane_events import Event
from installer.fleet.objects import annotation
from installer.fleet.reasons import REMOVED
from installer.kube import times

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime, timedelta

    from installer.controller.plan import Plan, World
    from installer.fleet.objects import AgentPod, Report

FINALIZER = "cni.istio.io/uninstall"


class Move(Enum):
    """The next step."""

    WAIT = "wait"  # for the named nodes or pods
    PARK = "park the DaemonSet"
    RELEASE = "remove the finalizer"


class Step(NamedTuple):
    """The next step, and the nodes that have not reported or the pods that have not terminated."""

    move: Move
    names: tuple[str, ...] = ()
    overdue: bool = False


class Uninstall(NamedTuple):
    """The actions for a deleted resource: park the DaemonSet, release the resource, create Events."""

    park: bool
    release: bool
    events: tuple[Event, ...]


def decide_uninstall(
    resource: Mapping[str, Any], world: World, plan: Plan, *, deadline: timedelta, refused: bool, now: datetime
) -> Uninstall:
    """Decide on the actions for a deleted resource.

    `deadline` is the maximum duration of the uninstall; `refused`, whether the API server refused to park the DaemonSet.
    """
    deleted = times.parse_rfc3339(resource["metadata"]["deletionTimestamp"]) or now
    is_active, agents = plan.is_active(resource), world.daemonset
    is_from_chart = agents is not None and annotation(agents, pod_template.CHART_VALUES) is not None
    following = decide_step(
        deleted=deleted,
        now=now,
        deadline=deadline,
        succeeded=not is_active or any(not is_being_deleted(each) for each in world.resources),
        unanswered=find_unanswered(world.nodes, world.reports, world.pods),
        parked=not is_from_chart or agents is None or pod_template.is_parked(agents),
        pods=tuple(sorted(f"{pod.name} on {node}" for node, pod in world.pods.items())) if is_from_chart else (),
    )
    events = []
    if following.overdue:
        names = ", ".join(following.names)
        message = f"the uninstall has not finished within {deadline.total_seconds():g} s and continues without: {names}"
        events.append(Event(warning=True, reason="UninstallDeadlineExceeded", message=message))
    is_late = now - deleted >= deadline
    release = following.move is Move.RELEASE or (refused and is_late)
    if release and is_active:
        # Of a node whose agent has ended without a report nothing is known any more: an Event named it at the deadline.
        some = following.names or is_late
        message = "removed the plugin from the nodes" + (", except any that an Event has named" if some else "")
        events.append(Event(warning=False, reason="Uninstalled", message=message))
    return Uninstall(following.move is Move.PARK, release, tuple(events))


def find_unanswered(
    nodes: Collection[str], reports: Mapping[str, Report], pods: Mapping[str, AgentPod]
) -> tuple[str, ...]:
    """Return the nodes that may still have the plugin, sorted.

    Reports of deleted nodes are ignored. A pod that ran without reporting may have installed something.
    """
    names = {name for name, report in reports.items() if report.state != REMOVED}
    names |= {name for name, pod in pods.items() if pod.started and name not in reports}
    return tuple(sorted(names & {*nodes}))


def decide_step(
    *,
    deleted: datetime,
    now: datetime,
    deadline: timedelta,
    succeeded: bool,
    unanswered: tuple[str, ...],
    parked: bool,
    pods: tuple[str, ...],
) -> Step:
    """Decide on the next step.

    `succeeded`: another resource is active, so that this one uninstalls nothing. `parked`: the DaemonSet is parked or
    missing. `pods` are those that have not terminated.
    """
    overdue = now - deleted >= deadline
    if succeeded:
        return Step(Move.RELEASE)
    if not parked:
        return (
            Step(Move.WAIT, unanswered) if unanswered and not overdue else Step(Move.PARK, unanswered, bool(unanswered))
        )
    if pods and not overdue:
        return Step(Move.WAIT, pods)
    return Step(Move.RELEASE, pods or unanswered, bool(pods or unanswered))
