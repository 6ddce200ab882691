"""Events as a node agent writes them (events.k8s.io/v1): the same words about the same object now and then, not each time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from installer.objects import DAEMONSET
from installer.pace import EVENTS, Pace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.apiserver import ApiServer

LONGEST_NOTE = 1024  # characters that the API takes


class Events:
    """Those of one agent."""

    def __init__(self, api: ApiServer, node_name: str) -> None:
        """Prepare.

        Args:
            api: where they are written.
            node_name: of the agent that tells them.
        """
        self._api = api
        self._node_name = node_name
        self._paces: dict[tuple[str, str, str], Pace] = {}

    async def tell(self, regarding: Mapping[str, str], reason: str, note: str, *, warning: bool) -> None:
        """Write an Event, unless the same was told too often of late.

        Args:
            regarding: the object: apiVersion, kind, name, uid and, where it has one, namespace.
            reason: in a word.
            note: for people.
            warning: whether somebody should look at it.

        Raises:
            ApiError: if it was not done.
        """
        now, same = time.monotonic(), (regarding["uid"], reason, note)
        self._paces = {each: pace for each, pace in self._paces.items() if not pace.is_over(now)}
        pace = self._paces.setdefault(same, Pace(EVENTS))
        if not pace.wait(now):
            await self._write(regarding, reason, note, warning=warning)
            pace.done(now)

    async def _write(self, regarding: Mapping[str, str], reason: str, note: str, *, warning: bool) -> None:
        namespace = regarding.get("namespace", "default")
        event: dict[str, Any] = {
            "metadata": {"generateName": "istio-cni-node-", "namespace": namespace},
            "regarding": dict(regarding),
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "action": "Reconcile",
            "note": note[:LONGEST_NOTE],
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": DAEMONSET,
            "reportingInstance": self._node_name,
        }
        await self._api.create(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", event)
