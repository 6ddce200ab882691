"""Whether an agent that is told to stop is to take out what it has installed (D7).

Leaving is not uninstalling: a node whose agent is replaced keeps all. It is to be taken out where the DaemonSet is gone, going
or not for this node any more. `helm uninstall` takes the agent's rights away while it ends, and its account with them: an API
server that knew the agent before and refuses it now, and again when asked a second time, says the same.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from installer.apiserver import ApiError
from installer.objects import PARKED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.apiserver import ApiServer
    from installer.settings import DaemonSet

TRIES, BETWEEN = 4, 1.0  # questions, seconds: an API server that has just started refuses what it grants soon after
LONGEST = 10.0  # seconds for all of them, of the 30 that the kubelet gives
REFUSED = (401, 403)

_log = logging.getLogger(__name__)


async def why_to_take_out(api: ApiServer, daemonset: DaemonSet, node_name: str, *, was_allowed: bool) -> str:
    """Ask whether the DaemonSet still wants an agent on this node.

    Args:
        api: where to ask.
        daemonset: whose pod the agent runs in.
        node_name: the node.
        was_allowed: whether the API server has answered this question before: only then is a refusal a sign.

    Returns:
        Why it does not; empty if it does, or if nobody can tell.
    """
    reason, refusals = f"no answer within {LONGEST:g} s", 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LONGEST):
            for attempt in range(TRIES):
                await asyncio.sleep(BETWEEN if attempt else 0)
                try:
                    return await _ask(api, daemonset, node_name)
                except ApiError as error:
                    reason = str(error)
                    refusals += error.status in REFUSED
    if was_allowed and refusals == TRIES:
        return f"the agent's rights were taken away: {reason}"
    _log.warning("whether the agent is to come back cannot be known: all stays installed", extra={"reason": reason})
    return ""


async def _ask(api: ApiServer, daemonset: DaemonSet, node_name: str) -> str:
    named = f"DaemonSet {daemonset.namespace}/{daemonset.name}"
    found = await api.get(f"/apis/apps/v1/namespaces/{daemonset.namespace}/daemonsets/{daemonset.name}")
    if found is None:
        return f"{named} is gone"
    if found["metadata"].get("deletionTimestamp"):
        return f"{named} is being deleted"
    selector: Mapping[str, Any] = found["spec"]["template"]["spec"].get("nodeSelector") or {}
    node = await api.get(f"/api/v1/nodes/{node_name}")
    if node is None:
        return ""  # of a node that is gone nobody will run pods
    if PARKED.items() <= selector.items():
        return "its IstioControlPlane was deleted; apply one with spec.cni.enabled true to have it again"
    labels = node["metadata"].get("labels") or {}
    others = [f"{key}={value}" for key, value in selector.items() if labels.get(key) != value]
    return f"{named} does not select this node any more, for want of {', '.join(others)}" if others else ""
