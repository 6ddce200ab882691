"""Decides which nodes get the startup taint, and which lose it (F1). Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from installer.controller.control_plane_events import Event

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from installer.fleet.objects import AgentPod, Node, Report

KEY = "cni.istio.io/not-ready"
TAINT = {"key": KEY, "effect": "NoSchedule"}
NEW = timedelta(minutes=10)  # an older node is not new


def decide_taints(
    node: Node, report: Report | None, pod: AgentPod | None, now: datetime, *, wanted: bool, taint_new: bool
) -> Sequence[dict[str, Any]] | None:
    """Decide on the taints of a node: all of them, or None if they do not change.

    `wanted`: whether this node gets the plugin. If not, nothing else would ever remove the taint.
    """
    others = [dict(each) for each in node.taints if each.get("key") != KEY]
    tainted = len(others) < len(node.taints)
    if tainted:
        redirects = (
            report is not None and report.ready is True and pod is not None and pod.ready and not pod.terminating
        )
        return others if redirects or not wanted else None
    if wanted and taint_new and report is None and now - node.created < NEW:
        return [*others, dict(TAINT)]
    return None


def build_event(*, added: bool, wanted: bool) -> Event:
    """Make the Event about a taint that was added or removed."""
    if added:
        return Event(
            warning=False,
            reason="IstioCNINotReady",
            message=f"the Istio CNI plugin is not ready on this new node: added the taint {KEY} until it is",
        )
    why = "the Istio CNI plugin is ready" if wanted else "this node has no Istio CNI plugin"
    return Event(warning=False, reason="IstioCNIReady", message=f"{why}: removed the taint {KEY}")
