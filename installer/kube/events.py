"""Events as a node agent writes them (events.k8s.io/v1): the same words about the same object now and then, not each time.

Whatever tenants have pods do, Events about them stay few, as API server and etcd are everybody's (`installer.ratelimit.flood`).
The next with the same reason in that namespace says how many were suppressed.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from installer.kube.names import DAEMONSET
from installer.ratelimit.flood import ALL_EVENTS, EVENTS, Gate, RateLimiters, SuppressedCounts, done, passes
from installer.ratelimit.limiter import EVENTS as SAME_EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.kube.client import ApiClient

LONGEST_NOTE = 1024  # characters that the API takes


class Events:
    """Those of one agent."""

    def __init__(self, api: ApiClient, node_name: str) -> None:
        """Prepare.

        Args:
            api: where they are written.
            node_name: of the agent that tells them.
        """
        self._api = api
        self._node_name = node_name
        self._same, self._of_kind, self._all = RateLimiters(SAME_EVENTS), RateLimiters(EVENTS), RateLimiters(ALL_EVENTS)
        self._suppressed = SuppressedCounts()

    async def tell(self, regarding: Mapping[str, str], reason: str, note: str, *, warning: bool) -> None:
        """Write an Event, unless the same was told too often of late, or too much about pods at all.

        Args:
            regarding: the object: apiVersion, kind, name, uid and, where it has one, namespace.
            reason: in a word.
            note: for people.
            warning: whether somebody should look at it.

        Raises:
            ApiError: if it was not done.
        """
        now, kind = time.monotonic(), (regarding.get("namespace", ""), reason)
        same = Gate(self._same, (regarding["uid"], reason, note))
        gates = (same, Gate(self._of_kind, kind), Gate(self._all, None)) if regarding["kind"] == "Pod" else (same,)
        if not passes((same,), now):
            return
        if not passes(gates, now):
            self._suppressed.add(kind)
            return
        suppressed = self._suppressed.take(kind)
        more = f" ({suppressed} more like this one suppressed)" if suppressed else ""
        try:
            await self._write(regarding, reason, note[: LONGEST_NOTE - len(more)] + more, warning=warning)
        except BaseException:
            self._suppressed.add(kind, suppressed)
            raise
        done(gates, now)

    async def _write(self, regarding: Mapping[str, str], reason: str, note: str, *, warning: bool) -> None:
        namespace = regarding.get("namespace", "default")
        event: dict[str, Any] = {
            "metadata": {"generateName": "istio-cni-node-", "namespace": namespace},
            "regarding": dict(regarding),
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "action": "Reconcile",
            "note": note,
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": DAEMONSET,
            "reportingInstance": self._node_name,
        }
        await self._api.create(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", event)
