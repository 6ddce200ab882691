"""Running pods that are to be redirected and are not, as they started before the plugin was there (F1, F2, F18).

What a pod's netns holds counts, not how its containers fare. Each sandbox is looked at once: those that there are when the
agent starts, later ones as they come, and all again when what decides has changed.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, NamedTuple, Protocol

from installer.sandboxes import Sandboxes
from installer.settings import RepairMode
from installer.waiting import wait
from plugin import netns
from plugin.apply import ApplyError, apply, holds_redirect
from plugin.decision import decide
from plugin.netns import NetnsFd
from plugin.outside import Pass, outside_mesh
from plugin.values import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor
    from pathlib import Path

    from installer.orders import Orders
    from installer.sandboxes import Sandbox
    from plugin.backend import Capability
    from plugin.parameters import Defaults
    from plugin.pod import Pod
    from plugin.redirect import Redirect

LOOK_EVERY = 2.0  # seconds between two looks for new sandboxes
AGAIN = 30.0  # seconds before what failed is tried again
DELETE_EVERY = 10.0  # seconds between two pods of a node that are deleted: not all of an application at once
NAMED = 10  # pods at most in the node's status

STARTED_BEFORE = (
    "it was started without its redirect, before the plugin was on its node or while its namespace was excluded"
)

_log = logging.getLogger(__name__)


class Cluster(Protocol):
    """What is done to pods at the API server; what cannot be done is returned in words, or an empty text."""

    async def tell(self, pod: Pod, reason: str, note: str, *, warning: bool) -> str:
        """Write an Event about a pod."""

    async def delete_pod(self, pod: Pod) -> str:
        """Have a pod start anew."""


class Outcome(NamedTuple):
    """What became of a pod that had no redirect: in a word, as an Event has it, and for people; whether it is settled."""

    reason: str
    message: str
    settled: bool = True


class PodRepair:
    """Looks after the pods that run; belongs to one event loop."""

    def __init__(
        self,
        pods: Iterable[Pod],
        workers: Executor,
        *,
        cache: Path,
        netns_dir: Path,
        orders: Callable[[], Orders],
        defaults: Callable[[], Defaults],
        capability: Callable[[], Capability],
        may_act: Callable[[], bool],
        cluster: Cluster | None,
        observe: Callable[[str], None],
    ) -> None:
        """Wire it.

        Args:
            pods: those of the node.
            workers: threads that may enter a netns.
            cache: libcni's folder.
            netns_dir: the folder of the netns files.
            orders: what is in force, now.
            defaults: for what pods do not say, now.
            capability: what this node's backend can do, now.
            may_act: whether what is in force is known to be what is asked for, now.
            cluster: None: there is none, so that nobody is told and nothing deleted.
            observe: told the reason of each outcome.
        """
        self._pods = pods
        self._workers = workers
        self._sandboxes = Sandboxes(cache, netns_dir)
        self._orders = orders
        self._defaults = defaults
        self._capability = capability
        self._may_act = may_act
        self._cluster = cluster
        self._observe = observe
        self._decided_by: object = None
        self._settled: set[Path] = set()
        self._again: dict[Path, float] = {}
        self._delete_from = 0.0  # the time before which none is deleted
        self._notes: dict[Path, str] = {}
        self.repaired = 0  # pods that were given their redirect while they ran

    @property
    def notes(self) -> list[str]:
        """The pods that are to be redirected and are not, each with why: the first ten."""
        notes = sorted(self._notes.values())
        return [*notes[:NAMED], *([f"and {len(notes) - NAMED} pods more"] if len(notes) > NAMED else [])]

    async def run(self, stop: asyncio.Event) -> None:
        """Look until told to stop."""
        reason = ""
        while not stop.is_set():
            try:
                await self._look()
                reason = ""
            except OSError as error:
                if str(error) != reason:
                    reason = str(error)
                    _log.warning("which pods run cannot be seen: none is repaired", extra={"reason": reason})
            await wait(stop, LOOK_EVERY)

    async def _look(self) -> None:
        orders, capability = self._orders(), self._capability()
        mode = orders.settings.repair_mode
        decided_by = (orders.settings.exclude_namespaces, mode, orders.installed, capability)
        if decided_by != self._decided_by:
            self._decided_by = decided_by
            self._settled, self._again, self._notes = set(), {}, {}
        if mode is RepairMode.NONE or not orders.installed or capability.unusable or not self._may_act():
            return
        there = await asyncio.to_thread(self._sandboxes.look)
        paths = {each.netns for each in there}
        self._settled &= paths
        self._again = {path: when for path, when in self._again.items() if path in paths}
        self._notes = {path: note for path, note in self._notes.items() if path in paths}
        now = asyncio.get_running_loop().time()
        for sandbox in there:
            if sandbox.netns not in self._settled and self._again.get(sandbox.netns, 0.0) <= now:
                await self._look_at(sandbox, mode, capability)

    async def _look_at(self, sandbox: Sandbox, mode: RepairMode, capability: Capability) -> None:
        pod = next((each for each in self._pods if _is_of(sandbox, each)), None)
        if pod is None:
            return  # not heard of yet, or gone
        if mode is RepairMode.DELETE and asyncio.get_running_loop().time() < self._delete_from:
            return
        outcome: Outcome | None = None
        if redirect := self._redirect(pod, sandbox):
            loop = asyncio.get_running_loop()
            outcome = await loop.run_in_executor(self._workers, _mend, sandbox, redirect, capability, mode)
        if outcome is None:
            self._settle(sandbox)
            return
        if mode is RepairMode.DELETE and outcome.reason == "NotRedirected":
            outcome = await self._delete(pod)
        await self._say(pod, sandbox, outcome)

    def _redirect(self, pod: Pod, sandbox: Sandbox) -> Redirect | None:
        if outside_mesh(pod.namespace, pod.name, self._orders().settings.exclude_namespaces, None):
            return None
        try:
            verdict = decide(pod, sandbox.addresses, self._defaults())
        except InvalidValue:
            return None  # its ADD would fail: it was started by a plugin that reads it otherwise
        return None if isinstance(verdict, Pass) else verdict

    async def _delete(self, pod: Pod) -> Outcome:
        self._delete_from = asyncio.get_running_loop().time() + DELETE_EVERY
        refused = await self._cluster.delete_pod(pod) if self._cluster else "the agent has no cluster"
        if refused:
            return Outcome("NotRedirected", f"{STARTED_BEFORE}, and cannot be deleted: {refused}", settled=False)
        return Outcome("Deleted", f"{STARTED_BEFORE}; it is deleted, so that it starts anew")

    async def _say(self, pod: Pod, sandbox: Sandbox, outcome: Outcome) -> None:
        note = f"pod {pod.namespace}/{pod.name}: {outcome.message}"
        known = self._notes.get(sandbox.netns) == note
        self._notes.pop(sandbox.netns, None)
        self._observe(outcome.reason)
        if outcome.reason == "Redirected":
            self.repaired += 1
        else:
            self._notes[sandbox.netns] = note
        if outcome.settled:
            self._settle(sandbox)
        else:
            self._again[sandbox.netns] = asyncio.get_running_loop().time() + AGAIN
        if known:
            return
        extra = {"namespace": pod.namespace, "pod": pod.name, "reason": outcome.message}
        _log.warning("a running pod had no redirect: %s", outcome.reason, extra=extra)
        if not self._cluster:
            return
        warning = outcome.reason != "Redirected"
        if why := await self._cluster.tell(pod, outcome.reason, outcome.message, warning=warning):
            _log.warning("an Event could not be written", extra={"reason": why})

    def _settle(self, sandbox: Sandbox) -> None:
        self._settled.add(sandbox.netns)
        self._again.pop(sandbox.netns, None)


def _is_of(sandbox: Sandbox, pod: Pod) -> bool:
    same = (pod.namespace, pod.name) == (sandbox.namespace, sandbox.name)
    return same and (not pod.uid or pod.has_uid(sandbox.uid))


def _mend(sandbox: Sandbox, redirect: Redirect, capability: Capability, mode: RepairMode) -> Outcome | None:
    """Look into a pod's netns, and redirect its traffic if that is asked for; on a worker. None: all is well, or it is gone."""
    try:
        fd = NetnsFd(os.open(sandbox.netns, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
    except FileNotFoundError:
        return None
    try:
        if not netns.is_network_namespace(fd) or netns.is_own(fd) or holds_redirect(fd, redirect.families):
            return None
        if mode is not RepairMode.REDIRECT:
            return Outcome("NotRedirected", f"{STARTED_BEFORE}; delete it, so that it starts anew")
        if lacking := capability.lacks(redirect):
            return Outcome("NotRedirected", f"{STARTED_BEFORE}, and cannot be now: {lacking}", settled=False)
        apply(fd, redirect, capability.backend)()
    except ApplyError as error:
        return Outcome("NotRedirected", f"{STARTED_BEFORE}, and cannot be now: {error}", settled=False)
    finally:
        os.close(fd)
    said = f"{STARTED_BEFORE}; it has it now. Connections that were open before stay as they are until they end"
    return Outcome("Redirected", said)
