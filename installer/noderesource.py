"""This node's IstioCNINode, written by its agent alone and only when something has changed (D5).

Server-side apply: what others write on it, such as its owner, stays. An Event on the Node tells of each turn for the better or
the worse. What keeps changing is written less and less often, as it is by then: 5,000 nodes may be in the same trouble.
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from installer.apiserver import ApiError
from installer.nodestatus import GROUP, KIND, PLURAL, VERSION, status
from installer.pace import REPORTS, Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from installer.apiserver import ApiServer
    from installer.events import Events
    from installer.nodestatus import Seen
    from installer.pace import Limits

LOOK_EVERY = 1.0  # seconds between two looks whether something has changed
SPREAD = (
    10.0  # seconds, by chance, before it is written that a resource is obeyed: 5,000 nodes have heard of it at once
)
COUNTS = {"pods", "repairs"}  # the fields that count something
COUNTS_EVERY = 600.0  # seconds between two writes for the sake of these alone
AGAIN_EVERY = 1800.0  # seconds after which it is written though nothing has changed: somebody may have deleted it
RETRIES = (1, 2, 5, 10, 30, 60)  # seconds between tries, and as much again by chance

_log = logging.getLogger(__name__)


class NodeResource:
    """Keeps the IstioCNINode as the node is."""

    def __init__(
        self,
        node_name: str,
        api: ApiServer,
        events: Events,
        look: Callable[[], Seen],
        *,
        spread: float = SPREAD,
        limits: Limits = REPORTS,
    ) -> None:
        """Prepare; `run` begins.

        Args:
            node_name: the node's, and the object's.
            api: where it is written.
            events: tells of its turns.
            look: what is to be reported, as it is now.
            spread: seconds, by chance, before it is written that a resource is obeyed.
            limits: how often it is written.
        """
        self._node_name = node_name
        self._api = api
        self._events = events
        self._look = look
        self._spread = spread
        self._pace = Pace(limits)
        self._path = f"/apis/{GROUP}/{VERSION}/{PLURAL}/{node_name}"
        self._written: dict[str, Any] = {}
        self._written_at = -COUNTS_EVERY
        self._node_uid = ""
        self._made = False
        self._was_well = False
        self._reason = ""

    async def run(self) -> None:
        """Keep it so until cancelled. Nothing that the API server does or does not do ends it."""
        failures = 0
        while True:
            changed = self._changed()
            if not changed or self._pace.wait(asyncio.get_running_loop().time()):
                await asyncio.sleep(LOOK_EVERY)
                continue
            if "controlPlane" in changed:
                await asyncio.sleep(random.uniform(0, self._spread))  # noqa: S311 - not for secrets
            try:
                await self.write()
                failures, self._reason = 0, ""
            except ApiError as error:
                self._say(str(error))
                pause = RETRIES[min(failures, len(RETRIES) - 1)]
                failures += 1
                await asyncio.sleep(max(pause, error.after) * random.uniform(1, 2))  # noqa: S311

    async def write(self) -> None:
        """Write it as it is now.

        Raises:
            ApiError: if that was not done.
        """
        if not self._made:
            await self._make()
        last, now = self._written, status(self._look(), self._written, datetime.now(UTC))
        head = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {"name": self._node_name}}
        try:
            await self._api.apply(f"{self._path}/status", head | {"status": now})
        except ApiError as error:
            self._made = self._made and error.status != 404  # somebody has deleted it
            raise
        self._written, self._written_at = now, asyncio.get_running_loop().time()
        self._pace.done(self._written_at)
        before, ready = _ready(last), _ready(now)
        # An agent that starts is not ready for one reason after the other.
        same = ("status", "reason") if self._was_well else ("status",)
        self._was_well = self._was_well or ready["status"] == "True"
        if self._node_uid and any(before.get(each) != ready[each] for each in same):
            await self._tell(ready, first=not last)

    def _changed(self) -> set[str]:
        """Name the fields that are to be written: what has changed, but those that count something only now and then."""
        now = status(self._look(), self._written, datetime.now(UTC))
        changed = {key for key in now.keys() | self._written.keys() if now.get(key) != self._written.get(key)}
        ago = asyncio.get_running_loop().time() - self._written_at
        if ago >= AGAIN_EVERY:
            return changed | COUNTS
        return changed - COUNTS if ago < COUNTS_EVERY else changed

    async def _make(self) -> None:
        """Have the object be there, owned by its Node, and take up what the agent before has written."""
        found = await self._api.get(self._path)
        self._written = (found or {}).get("status") or {}
        node = await self._api.get(f"/api/v1/nodes/{self._node_name}")
        made: dict[str, Any] = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {"name": self._node_name}}
        if node:
            self._node_uid = node["metadata"]["uid"]
            owner = {"apiVersion": "v1", "kind": "Node", "name": self._node_name, "uid": self._node_uid}
            made["metadata"]["ownerReferences"] = [owner]
        await self._api.apply(self._path, made)
        self._made = True

    async def _tell(self, ready: Mapping[str, Any], *, first: bool) -> None:
        """Write an Event on the Node; that this fails is no reason to write the status again."""
        well = ready["status"] == "True"
        if first and not well:
            return  # it has only just started
        node = {"apiVersion": "v1", "kind": "Node", "name": self._node_name, "uid": self._node_uid}
        warning = not well and ready["reason"] != "Removed"
        try:
            await self._events.tell(node, ready["reason"], ready["message"], warning=warning)
        except ApiError as error:
            _log.warning("an Event could not be written", extra={"reason": str(error)})

    def _say(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            _log.warning("the IstioCNINode of this node cannot be written", extra={"reason": reason})


def _ready(of: Mapping[str, Any]) -> Mapping[str, Any]:
    conditions = of.get("conditions") or [{}]
    ready: Mapping[str, Any] = conditions[0]
    return ready
