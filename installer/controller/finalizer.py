"""How a resource that was deleted leaves: the state machine of the finalizer (D7). Pure.

Agents take out what they have installed and report it; then the DaemonSet is parked and its pods end; then the finalizer
is taken off. All has to be done by the deadline; what is not is named, and left.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from installer.fleet.node_health import REMOVED

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime, timedelta

    from installer.fleet.objects import AgentPod, Report

FINALIZER = "cni.istio.io/uninstall"


class Move(Enum):
    """What is to be done now."""

    WAIT = "wait"  # for those that are named
    PARK = "park the DaemonSet"
    RELEASE = "take the finalizer off"


class Step(NamedTuple):
    """What is to be done now, and about whom: nodes that have not answered, or pods that have not ended."""

    move: Move
    names: tuple[str, ...] = ()
    overdue: bool = False


def unanswered(nodes: Collection[str], reports: Mapping[str, Report], pods: Mapping[str, AgentPod]) -> tuple[str, ...]:
    """Return the nodes that may still have something of ours, sorted.

    Args:
        nodes: all that the cluster has.
        reports: what agents have said, by node. One of a node that is gone counts no more.
        pods: the agents' pods, by node. One that has run and not reported may have installed something.
    """
    left = {name for name, report in reports.items() if report.state != REMOVED}
    left |= {name for name, pod in pods.items() if pod.started and name not in reports}
    return tuple(sorted(left & {*nodes}))


def step(
    *,
    deleted: datetime,
    now: datetime,
    deadline: timedelta,
    succeeded: bool,
    unanswered: tuple[str, ...],
    parked: bool,
    pods: tuple[str, ...],
) -> Step:
    """Decide.

    Args:
        deleted: when the resource was deleted.
        now: the time.
        deadline: how long all may take.
        succeeded: whether another resource counts, so that this one takes nothing with it.
        unanswered: the nodes that may still have something of ours.
        parked: whether the DaemonSet has been parked, or is not there.
        pods: the agents' pods that have not ended.
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
