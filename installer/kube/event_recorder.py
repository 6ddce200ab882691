"""Writes Events (events.k8s.io/v1): rate-limited per object, and bounded in all however many objects there are.

Whatever tenants' pods do, Events about them stay few, because all share API server and etcd (`installer.ratelimit.flood`).
The next Event with the same reason in that namespace counts the suppressed ones.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from installer.kube.times import rfc3339_micro
from installer.ratelimit.flood import ALL_EVENTS, EVENTS, Gate, RateLimiters, SuppressedCounts, done, passes
from installer.ratelimit.limiter import EVENTS as SAME_EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.kube.client import ApiClient
    from installer.ratelimit.limiter import Limits

LONGEST_NOTE, LONGEST_INSTANCE = 1024, 128  # bytes that the API allows
_IN_CORE = {"regarding": "involvedObject", "note": "message", "reportingController": "reportingComponent"}


class EventRecorder:
    """Records the Events of one agent or controller."""

    def __init__(
        self, api: ApiClient, controller: str, instance: str, *, same: Limits = SAME_EVENTS, is_core: bool = False
    ) -> None:
        """Prepare.

        `instance` is the agent's node or the controller's pod, whose names may be longer than the API allows. `same` limits
        the same Event about the same object. `is_core`: write them in the API's core group, where only that is allowed.
        """
        self._api = api
        self._reported_by = {"reportingController": controller, "reportingInstance": _cut(instance, LONGEST_INSTANCE)}
        self._same, self._of_kind, self._all = RateLimiters(same), RateLimiters(EVENTS), RateLimiters(ALL_EVENTS)
        self._suppressed = SuppressedCounts()
        self._is_core = is_core

    async def record(
        self, regarding: Mapping[str, str], reason: str, note: str, *, warning: bool, at: datetime | None = None
    ) -> bool:
        """Write an Event; return False if the same one, or Events about objects of this kind, exceed their rate limit.

        `regarding` is the object: apiVersion, kind, name, uid and, where it has one, namespace. `at` is when it happened;
        None: now.

        Raises:
            ApiError: if that failed.
        """
        note = _cut(note, LONGEST_NOTE)
        now, kind = time.monotonic(), (regarding["kind"], regarding.get("namespace", ""), reason)
        same = Gate(self._same, (regarding["uid"], reason, note))
        gates = (same, Gate(self._of_kind, kind), Gate(self._all, regarding["kind"]))
        if not passes((same,), now):
            return False
        if not passes(gates, now):
            self._suppressed.add(kind)
            return False
        suppressed = self._suppressed.take(kind)
        more = f" ({suppressed} more like this one suppressed)" if suppressed else ""
        try:
            await self._write(regarding, reason, _cut(note, LONGEST_NOTE - len(more)) + more, at, warning=warning)
        except BaseException:
            self._suppressed.add(kind, suppressed)
            raise
        done(gates, now)
        return True

    async def _write(
        self, regarding: Mapping[str, str], reason: str, note: str, at: datetime | None, *, warning: bool
    ) -> None:
        namespace = regarding.get("namespace", "default")
        event: dict[str, Any] = {
            "metadata": {"generateName": f"{self._reported_by['reportingController']}-", "namespace": namespace},
            "regarding": dict(regarding),
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "action": "Reconcile",
            "note": note,
            "eventTime": rfc3339_micro(at or datetime.now(UTC)),
        }
        event |= self._reported_by
        group = "/apis/events.k8s.io/v1"
        if self._is_core:
            group, event = "/api/v1", {_IN_CORE.get(key, key): value for key, value in event.items()}
        await self._api.create(f"{group}/namespaces/{namespace}/events", event)


def _cut(text: str, limit: int) -> str:
    """Shorten a text to so many bytes of UTF-8, at the end of a character."""
    return text.encode(errors="replace")[:limit].decode(errors="ignore")
