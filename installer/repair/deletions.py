"""Deletes pods without a redirect, one after the other, so that their controllers recreate them (`repairMode: delete`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from installer.repair import unredirected

if TYPE_CHECKING:
    from installer.repair.running_pods import RunningPod
    from installer.repair.unredirected import Outcome
    from plugin.pod import Pod

DELETE_EVERY = 10.0  # seconds between two deletions on a node, so that no application loses all its pods at once
REFUSED_EVERY = 1.0  # seconds after one that is refused, such as of a pod without a controller: others do not wait


class Deleter(Protocol):
    """The cluster, as far as it deletes."""

    async def delete_pod(self, pod: Pod) -> str:
        """Delete a pod, so that its controller recreates it. Return why that failed; empty if it did not."""


class Deletions:
    """The deletions of one node, spaced; bound to one event loop.

    Attributes:
        next_at: the earliest time of the next one, by the loop's clock.
    """

    def __init__(self, cluster: Deleter | None) -> None:
        """Prepare; without a cluster each deletion is refused."""
        self._cluster = cluster
        self.next_at = 0.0

    async def delete(self, running: RunningPod, lack: str) -> Outcome:
        """Delete a pod if its turn has come; `lack` says what it lacks."""
        loop = asyncio.get_running_loop()
        waits = loop.time() < self.next_at
        if not waits:
            refused = await self._cluster.delete_pod(running.pod) if self._cluster else "the agent has no cluster"
            self.next_at = loop.time() + (REFUSED_EVERY if refused else DELETE_EVERY)
            running.refused = refused
        if running.refused is None:
            return unredirected.report_waiting(lack)
        return unredirected.report_deletion(lack, running.refused, waits=waits)
