"""The node's sandboxes as the runtime records them, and the ADDs that this agent has answered."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from installer.aio import Changes, HangingCalls
from installer.host.cni_cache import container_id
from installer.repair.sandbox_index import SandboxIndex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from installer.host.cni_cache import Sandbox, Sandboxes
    from installer.pods.verdicts import Key
    from installer.repair.netns_proof import NetnsFiles
    from plugin.handler import Outcome
    from plugin.pod import Pod

PATIENCE = 10.0  # seconds for the runtime's records, of which there may be thousands (F48)
MOST_ADDED = 1024  # recorded ADDs, the oldest dropped first: a node has a few hundred pods

_log = logging.getLogger(__name__)


class NodeSandboxes:
    """Maintains an index of them; bound to one event loop."""

    def __init__(self, sandboxes: Sandboxes, files: NetnsFiles, changes: Changes) -> None:
        """Prepare; `changes` is notified when the runtime has recorded or forgotten one."""
        self._sandboxes = sandboxes
        self._files = files
        self._changes = changes
        self.strangers = Changes()  # of the records of sandboxes that no ADD here was answered for
        self._watcher = sandboxes.watcher(self._on_record)
        self._is_watched = False
        self._added: dict[str, Key | None] = {}  # container id to the pod whose ADD was redirected; None: it passed
        self._indexed: Sequence[Sandbox] = ()
        self._reason = ""  # why the records cannot be read
        self._calls = HangingCalls(PATIENCE)
        self.index = self._index(())

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing is recorded or forgotten without a wake."""
        return self._is_watched and self._sandboxes.is_at_rest

    @property
    def unreadable(self) -> int:
        """The number of runtime results that do not parse."""
        return len(self._sandboxes.unreadable)

    def add(self, outcome: Outcome) -> None:
        """Record an ADD that was answered with a redirect or a pass."""
        pod = outcome.namespace, outcome.pod, outcome.pod_uid or ""
        self._added[outcome.container_id] = pod if outcome.outcome == "redirect" else None
        while len(self._added) > MOST_ADDED:
            del self._added[next(iter(self._added))]

    def was_added(self, pod: Pod, container_id: str) -> bool:
        """Whether a pod's ADD was answered with a redirect: the ADD of this sandbox or, if none is known, any."""
        name = pod.namespace, pod.name
        if container_id:
            return (self._added.get(container_id) or ())[:2] == name
        redirected = filter(None, self._added.values())
        return any(each[:2] == name and bool(each[2]) and pod.has_uid(each[2]) for each in redirected)

    async def update(self) -> None:
        """Update the index; if the runtime's results cannot be read, it stays unchanged."""
        try:
            self.index = await self._calls(self._read)
            self._reason = ""
        except OSError as error:
            if str(error) != self._reason:
                self._reason = str(error)
                _log.warning("cannot read what the runtime keeps of its sandboxes", extra={"reason": self._reason})

    def close(self) -> None:
        """Stop watching; while the folder does not answer, that ends with the process (F48)."""
        if not self._calls.is_waiting:
            self._watcher.close()

    def _on_record(self, name: str) -> None:
        """Notify of a record that has come, changed or gone; called from the watcher's thread."""
        of = container_id(name)
        if of not in self._added and all(each.container_id != of for each in self._indexed):
            self.strangers.notify()
        self._changes.notify()

    def _read(self) -> SandboxIndex:
        self._is_watched = self._watcher.refresh()
        sandboxes = self._sandboxes.read()
        if sandboxes is self._indexed:
            return self.index
        self._indexed = sandboxes
        return self._index(sandboxes)

    def _index(self, sandboxes: Sequence[Sandbox]) -> SandboxIndex:
        records = self._sandboxes
        return SandboxIndex(
            sandboxes, self._files, was_added=self._added.__contains__, unreadable=lambda: records.unreadable
        )
