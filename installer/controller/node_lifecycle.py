"""Makes the condition in the IstioCNINode of a node whose agent does not run, and so cannot report (F23). Pure.

An agent writes its whole status when it starts, and so replaces the condition.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from installer.fleet.reasons import NO_AGENT, cause
from installer.kube.names import LONGEST_MESSAGE
from installer.kube.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from installer.controller.plan import World
    from installer.fleet.node_health import NodeHealth
    from installer.fleet.objects import Node, Report

JUST_NOW = timedelta(seconds=10)  # a pod's state arrives later than its agent's report
AGAIN = timedelta(minutes=10)  # between two messages with the same cause
_NOBODY = (NO_AGENT, "no agent runs on this node, and none has reported from it")
_REASON = re.compile("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")  # as in the definition


class ConditionPatch(NamedTuple):
    """A condition to write into an IstioCNINode.

    Attributes:
        version: the resourceVersion of the IstioCNINode that it is based on; empty: the IstioCNINode does not exist.
        condition: the new Ready condition.
        contradicts: whether the agent reported the node as ready.
    """

    node: Node
    version: str
    condition: dict[str, Any]
    contradicts: bool


def condition_patches(world: World, verdicts: Iterable[NodeHealth], now: datetime) -> Iterator[ConditionPatch]:
    """Find the IstioCNINodes whose condition needs an update.

    A recent report is kept, because its agent's pod may have changed unobserved; and for longer if it has the
    same cause, for which the kubelet alternates between several reasons.
    """
    conditions = dict.fromkeys(world.unreported, _NOBODY)
    for each in verdicts:
        pod = world.pods.get(each.node)
        if each.state.is_lost and not (pod and pod.runs):
            conditions[each.node] = (
                each.reason if _REASON.fullmatch(each.reason) else "NotReady",
                each.message[:LONGEST_MESSAGE],
            )
        elif not each.state.is_healthy:
            conditions.pop(each.node, None)
    for name, (reason, message) in conditions.items():
        report = world.reports.get(name) or world.unreported.get(name)
        if name not in world.nodes or (report and not _is_due(report, reason, message, now)):
            continue
        since = report.since if report and report.ready is False and report.since else now
        condition = {"type": "Ready", "status": "False", "reason": reason, "message": message}
        condition["lastTransitionTime"] = rfc3339(since)
        version, contradicts = (report.resource_version, report.ready is True) if report else ("", False)
        yield ConditionPatch(world.nodes[name], version, condition, contradicts)


def _is_due(report: Report, reason: str, message: str, now: datetime) -> bool:
    if (report.ready, report.reason, report.message) == (False, reason, message):
        return False
    alike = report.ready is False and cause(report.reason) == cause(reason)
    return report.written is None or now - report.written >= (AGAIN if alike else JUST_NOW)
