"""What somebody should know of a pod though nothing has failed, in the log: once for each pod."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plugin.handler import Outcome

MOST = 4096  # pods of which it is remembered that it was said; more than ten times as many as a node runs

_log = logging.getLogger(__name__)


class Notices:
    """Those of one agent."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str, str, str], None] = {}  # the oldest first

    def tell(self, outcome: Outcome) -> None:
        """Say what is worth knowing of a pod that was let pass or redirected."""
        for message, reason in _notices(outcome):
            pod = (message, outcome.namespace, outcome.pod, outcome.pod_uid or "")
            if pod in self._said:
                continue
            self._said[pod] = None
            if len(self._said) > MOST:
                del self._said[next(iter(self._said))]
            _log.warning(message, extra={"namespace": outcome.namespace, "pod": outcome.pod, "reason": reason})


def _notices(outcome: Outcome) -> Iterator[tuple[str, str]]:
    if outcome.row == "istio-init":
        yield "a pod redirects itself with istio-init", outcome.reason
    if outcome.bypassing:
        yield "IPv6 traffic of a pod bypasses its sidecar", outcome.reason
    if outcome.ipv6_off:
        yield "IPv6 of a pod does not pass its sidecar", outcome.reason
    if outcome.mismatch:
        yield "the runtime and the API server contradict each other about a pod", outcome.mismatch
