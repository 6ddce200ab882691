"""What somebody should know of a pod though nothing has failed, in the log: once for each pod, and not as fast as pods come."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from installer.pace import NOTICES, Pace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plugin.handler import Outcome

MOST = 4096  # pods of which it is remembered that it was said; more than ten times as many as a node runs

_log = logging.getLogger(__name__)


class Notices:
    """Those of one agent."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str, str, str], None] = {}  # the oldest first
        self._paces: dict[str, Pace] = {}
        self._left_out: dict[str, int] = {}

    def tell(self, outcome: Outcome) -> None:
        """Say what is worth knowing of a pod that was let pass or redirected."""
        for message, reason in _notices(outcome):
            pod = (message, outcome.namespace, outcome.pod, outcome.pod_uid or "")
            if pod not in self._said and self._may_be_said(message):
                self._said[pod] = None
                if len(self._said) > MOST:
                    del self._said[next(iter(self._said))]
                extra = {"namespace": outcome.namespace, "pod": outcome.pod, "reason": reason}
                if left_out := self._left_out.pop(message, 0):
                    extra["left_out"] = left_out  # type: ignore[assignment] # the formatter takes any
                _log.warning(message, extra=extra)

    def _may_be_said(self, message: str) -> bool:
        now, pace = time.monotonic(), self._paces.setdefault(message, Pace(NOTICES))
        if pace.wait(now):
            self._left_out[message] = self._left_out.get(message, 0) + 1
            return False
        pace.done(now)
        return True


def _notices(outcome: Outcome) -> Iterator[tuple[str, str]]:
    if outcome.row == "istio-init":
        yield "a pod redirects itself with istio-init", outcome.reason
    if outcome.around:
        yield "IPv6 traffic of a pod bypasses its sidecar", outcome.reason
    if outcome.mismatch:
        yield "the runtime and the API server contradict each other about a pod", outcome.mismatch
