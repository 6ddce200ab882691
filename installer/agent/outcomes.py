"""Handling the outcome of each request: count it, log it, and warn once of what a pod's owner should know."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from installer.agent.metrics import Metrics
    from plugin.handler import Outcome

MOST = 4096  # warnings on record, oldest dropped first; more than ten times the pods of a node

_log = logging.getLogger(__name__)


class Outcomes:
    """Takes each outcome."""

    def __init__(self, metrics: Metrics, on_added: Callable[[Outcome], None]) -> None:
        """Prepare; `on_added` is called for each ADD that was answered with a redirect or a pass."""
        self._metrics = metrics
        self._on_added = on_added
        self._warnings = Warnings()

    def take(self, outcome: Outcome) -> None:
        """Take one."""
        self._metrics.request(outcome)
        self._warnings.log(outcome)
        if outcome.command == "ADD" and outcome.outcome in ("redirect", "pass"):
            self._on_added(outcome)
        message = f"{outcome.command or 'request'}: {outcome.outcome}"  # the rate limit counts lines by their message
        _log.log(
            logging.WARNING if outcome.outcome == "error" else logging.INFO,
            message,
            extra={
                "namespace": outcome.namespace,
                "pod": outcome.pod,
                "container_id": outcome.container_id,
                "reason": outcome.reason,
                "code": outcome.code,
                "seconds": round(outcome.seconds, 6),
            },
        )


class Warnings:
    """Logs each warning about a pod once, at the default level, although nothing has failed."""

    def __init__(self) -> None:
        self._logged: dict[tuple[str, str, str, str], None] = {}  # the oldest first

    def log(self, outcome: Outcome) -> None:
        """Log the warnings about a pod that passed or was redirected."""
        for message, reason in _warnings(outcome):
            pod = (message, outcome.namespace, outcome.pod, outcome.pod_uid or "")
            if pod in self._logged:
                continue
            self._logged[pod] = None
            if len(self._logged) > MOST:
                del self._logged[next(iter(self._logged))]
            _log.warning(message, extra={"namespace": outcome.namespace, "pod": outcome.pod, "reason": reason})


def _warnings(outcome: Outcome) -> Iterator[tuple[str, str]]:
    if outcome.row == "istio-init":
        yield "a pod redirects itself with istio-init", outcome.reason
    if outcome.bypassing:
        yield "IPv6 traffic of a pod bypasses its sidecar", outcome.reason
    if outcome.ipv6_off:
        yield "IPv6 of a pod does not pass its sidecar", outcome.reason
    if outcome.mismatch:
        yield "the runtime and the API server contradict each other about a pod", outcome.mismatch
