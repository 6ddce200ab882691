"""The rolling update of the agents, as Kubernetes' DaemonSet controller limits it. Pure.

At most `maxUnavailable` nodes may be without a ready agent. A node counts for any reason, even if its agent was not ready
before; so a pool of nodes that cannot become ready blocks the update of all others, unless the controller passes them
(`installer.controller.stalled_rollout`).
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from installer.fleet.objects import annotation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

SKEW = timedelta(seconds=60)  # between the clock of a node, which dates its reports, and that of the API server

# The reason of Degraded while the controller may not pass the nodes that are not ready.
ROLLOUT_BLOCKED = "RolloutBlocked"

_SHARE = re.compile(r"(\d{1,3})%")


def most_unavailable(daemonset: Mapping[str, Any]) -> int:
    """Return how many nodes may be without a ready agent at a time; a percentage is rounded up."""
    scheduled = (daemonset.get("status") or {}).get("desiredNumberScheduled") or 0
    limit = (_strategy(daemonset).get("rollingUpdate") or {}).get("maxUnavailable", 1)
    share = _SHARE.fullmatch(str(limit))
    return -(-int(share[1]) * scheduled // 100) if share else int(limit or 0)


def template_generation(daemonset: Mapping[str, Any]) -> str:
    """Return the generation of the current pod template, which each new pod has as a label; empty: unknown."""
    return annotation(daemonset, "deprecated.daemonset.template.generation") or ""


def is_held_up(daemonset: Mapping[str, Any]) -> bool:
    """Return whether outdated agents wait until others are ready; with `OnDelete`, they wait to be deleted."""
    if _strategy(daemonset).get("type") == "OnDelete":
        return False
    status = daemonset.get("status") or {}
    waiting = (status.get("desiredNumberScheduled") or 0) - (status.get("updatedNumberScheduled") or 0)
    return waiting > 0 and (status.get("numberUnavailable") or 0) >= most_unavailable(daemonset)


def is_older(trouble: datetime, agent: datetime) -> bool:
    """Return whether a node was certainly not ready before its agent's pod was created: the template is not the cause."""
    return trouble < agent - SKEW


def _strategy(daemonset: Mapping[str, Any]) -> Mapping[str, Any]:
    strategy: Mapping[str, Any] = (daemonset.get("spec") or {}).get("updateStrategy") or {}
    return strategy
