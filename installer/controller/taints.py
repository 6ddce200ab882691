"""The startup taint: which nodes lose it, and which get it (F1). Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from installer.controller.events import Event

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from installer.fleet.objects import AgentPod, Node, Report

KEY = "cni.istio.io/not-ready"
TAINT = {"key": KEY, "effect": "NoSchedule"}
NEW = timedelta(minutes=10)  # older than that a node is no new one


def taints(
    node: Node, report: Report | None, pod: AgentPod | None, now: datetime, *, wanted: bool, put: bool
) -> Sequence[dict[str, Any]] | None:
    """Decide what taints a node is to have.

    Args:
        node: as it is.
        report: what its agent has said; None: nothing ever.
        pod: its agent's.
        now: the time.
        wanted: whether the plugin is to be on this node. If it is not, nobody else would ever take the taint off.
        put: whether new nodes are to get the taint.

    Returns:
        All its taints, or None if they stay as they are.
    """
    others = [dict(each) for each in node.taints if each.get("key") != KEY]
    tainted = len(others) < len(node.taints)
    if tainted:
        redirects = report is not None and report.ready is True and pod is not None and pod.ready and not pod.going
        return others if redirects or not wanted else None
    if wanted and put and report is None and now - node.created < NEW:
        return [*others, dict(TAINT)]
    return None


def event(*, put: bool, wanted: bool) -> Event:
    """Say what was done with the taint of a node."""
    if put:
        return Event(
            warning=False,
            reason="IstioCNINotReady",
            message=f"the Istio CNI plugin is not ready on this new node: it has got the taint {KEY} until it is",
        )
    why = "the Istio CNI plugin is ready" if wanted else "no Istio CNI plugin is to be on this node"
    return Event(warning=False, reason="IstioCNIReady", message=f"{why}: the taint {KEY} was taken off")
