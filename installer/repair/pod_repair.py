"""Running pods that should be redirected and are not: found, named, and redirected where that is asked for (F1, F2, F18, F35).

A pod of the mesh is redirected if its ADD has been answered with a redirect, or if its netns holds one: what is there counts,
not how its containers fare. A netns is written into only if it is proven to be the pod's (`installer.repair.netns_proof`).
Whichever pod runs for a while without either is counted and named, whatever the reason.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from installer.aio import wait
from installer.config.value_types import RepairMode
from installer.pods.runtime_class import own_network_stack, without_effect
from installer.repair import unredirected
from installer.repair.inspection import Found, Look, looked
from installer.repair.running_pods import RunningPods, key_of
from installer.repair.runtime_check import RuntimeCheck
from installer.repair.sandbox_index import Doubt, SandboxIndex
from installer.repair.unredirected import Outcome
from plugin.decision import decide
from plugin.program import Plan
from plugin.redirect import Redirect
from plugin.values import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from installer.config.desired import DesiredState
    from installer.fleet.state import NodeState
    from installer.host.cni_cache import Sandbox, Sandboxes
    from installer.repair.netns_proof import NetnsFiles
    from installer.repair.running_pods import Key, RunningPod
    from plugin.backend import Capability
    from plugin.parameters import Defaults
    from plugin.pod import Pod
    from plugin.values import Address

LOOK_EVERY = 2.0  # seconds between two looks for new sandboxes
SOON = 0.2  # seconds between them until all pods have been counted once: the node's status waits for that
AGAIN = 30.0  # seconds before what failed is tried again
PATIENCE = 30.0  # seconds that a pod may run before it counts that no redirect has been seen
DEADLINE = 10.0  # seconds for one netns: its pod decides what is in it (F37)
DELETE_EVERY = 10.0  # seconds between two pods of a node that are deleted: not all of an application at once
MOST_ADDED = 4096  # ADDs that are remembered: a node has a few hundred pods

_log = logging.getLogger(__name__)


class Pods(Protocol):
    """Those of the node."""

    @property
    def known(self) -> bool:
        """Whether all of them are known."""

    def __iter__(self) -> Iterator[Pod]:
        """Go through them."""


class Cluster(Protocol):
    """What is done to pods at the API server; what cannot be done is returned in words, or an empty text."""

    async def tell(self, pod: Pod, reason: str, note: str, *, warning: bool) -> str:
        """Write an Event about a pod."""

    async def delete_pod(self, pod: Pod) -> str:
        """Have a pod start anew."""

    async def confirm(self, pod: Pod) -> str:
        """Make sure that a pod is still what is known of it, with the same addresses."""

    async def handler_of(self, runtime_class: str) -> str:
        """Return the name of the runtime's handler that a RuntimeClass stands for; empty if that cannot be told."""


class PodRepair:
    """Looks after the pods that run; belongs to one event loop."""

    def __init__(
        self,
        pods: Pods,
        workers: Executor,
        *,
        sandboxes: Sandboxes,
        files: NetnsFiles,
        orders: Callable[[], DesiredState],
        defaults: Callable[[], Defaults],
        capability: Callable[[], Capability],
        node: Callable[[], NodeState],
        may_act: Callable[[], bool],
        cluster: Cluster | None,
        observe: Callable[[str], None],
    ) -> None:
        """Wire it.

        Args:
            pods: those of the node.
            workers: threads that may enter a netns, and that no ADD waits for.
            sandboxes: what the runtime keeps of them.
            files: the runtime's netns files.
            orders: what is in force, now.
            defaults: for what pods do not say, now.
            capability: what this node's backend can do, now.
            node: what the node's files are like, now.
            may_act: whether what is in force is known to be what is asked for, now.
            cluster: None: there is none, so that nobody is told and nothing deleted.
            observe: told the reason of each outcome.
        """
        self._pods = pods
        self._running = RunningPods(pods, excluded=lambda: orders().settings.exclude_namespaces, defaults=defaults)
        self._workers = workers
        self._sandboxes = sandboxes
        self._files = files
        self._orders = orders
        self._defaults = defaults
        self._capability = capability
        self._node = node
        self._may_act = may_act
        self._cluster = cluster
        self._observe = observe
        self._decided_by: object = None
        self._busy: set[Key] = set()  # whose look into their netns is not back yet
        self._added: dict[str, Key] = {}  # by container id: the pod whose ADD was redirected
        self._indexed_of: Sequence[Sandbox] = ()
        self._index = self._index_of(())
        self._delete_from = 0.0  # the time before which none is deleted
        self._runtime = RuntimeCheck()
        self._has_counted = False
        self.repaired = 0  # pods that were given their redirect while they ran

    @property
    def notes(self) -> list[str]:
        """The running pods that should be redirected and are not, each with why: the first ten."""
        return self._running.notes

    @property
    def unredirected(self) -> int:
        """How many running pods should be redirected and are not, as far as is known."""
        return sum(bool(each.note) for each in self._running)

    @property
    def redirected(self) -> int | None:
        """How many pods hold a redirect, whoever wrote it; None until all have been looked into once."""
        return sum(each.redirected for each in self._running) if self._has_counted else None

    @property
    def unreadable(self) -> int:
        """How many results of the runtime are not understood."""
        return len(self._sandboxes.unreadable)

    @property
    def hidden_since(self) -> float | None:
        """When the latest netns was mounted that cannot be seen from here, and would be repaired; None: there is none."""
        if self._orders().settings.repair_mode is not RepairMode.REDIRECT or not self._orders().installed:
            return None
        return max((each.hidden for each in self._running if each.hidden), default=None)

    @property
    def runtime(self) -> str | None:
        """Why the runtime is known not to load our entry; None if it is not (F23)."""
        return self._runtime.reason(str(self._orders().settings.cni_conf_dir / (self._node().conflist or "")))

    def added(self, container_id: str, namespace: str, name: str, uid: str) -> None:
        """Take note of an ADD that was answered with a redirect."""
        self._added[container_id] = namespace, name, uid
        while len(self._added) > MOST_ADDED:
            del self._added[next(iter(self._added))]

    async def run(self, stop: asyncio.Event) -> None:
        """Look until told to stop."""
        reason = ""
        while not stop.is_set():
            try:
                self._index = await asyncio.to_thread(self._indexed)
                reason = ""
            except OSError as error:
                if str(error) != reason:
                    reason = str(error)
                    _log.warning("what the runtime keeps of its sandboxes cannot be read", extra={"reason": reason})
            self._check_runtime()
            await self._look()
            await wait(stop, LOOK_EVERY if self._has_counted else SOON)

    def _indexed(self) -> SandboxIndex:
        seen = self._sandboxes.look()
        if seen is self._indexed_of:
            return self._index
        self._indexed_of = seen
        return self._index_of(seen)

    def _index_of(self, seen: Sequence[Sandbox]) -> SandboxIndex:
        was_added, unreadable = self._added.__contains__, lambda: self._sandboxes.unreadable
        return SandboxIndex(seen, self._files, was_added=was_added, unreadable=unreadable)

    def _check_runtime(self) -> None:
        settings, node, before = self._orders().settings, self._node(), self.runtime
        if settings.chained:  # else others decide where the entry goes
            written = _written(settings.conf_dir_mount, node)
            self._runtime.see(self._index.setups, node, written, time.time())
        now = self.runtime
        if now and not before:
            _log.error("the container runtime does not load the plugin's entry", extra={"reason": now})
        elif before and not now:
            _log.warning("the container runtime is not known any more not to load the plugin's entry")

    async def _look(self) -> None:
        if not self._may_act():
            self._running.forget()
            return
        deciding = self._deciding()
        if deciding != self._decided_by:
            self._decided_by = deciding
            self._running.decide_anew()
        are_all_known = self._pods.known
        await self._running.judge()
        self._running.update(asyncio.get_running_loop().time(), lambda pod: self._index.of(pod) is not None)
        for running in self._running:
            if not self._goes_on():
                return
            await self._look_at(running)
        self._has_counted |= are_all_known

    def _deciding(self) -> object:
        orders = self._orders()
        settings = orders.settings
        return settings.exclude_namespaces, settings.repair_mode, orders.installed, self._capability(), self._defaults()

    def _goes_on(self) -> bool:
        """Whether what is in force is as it was when this round of looks began: each of them may take its time."""
        return self._deciding() == self._decided_by and self._may_act()

    async def _look_at(self, running: RunningPod) -> None:
        sandbox, now = self._index.of(running.pod), asyncio.get_running_loop().time()
        container_id = sandbox.container_id if sandbox else ""
        if running.settled == container_id:
            return
        mode = self._orders().settings.repair_mode
        if (
            now < running.again
            or key_of(running.pod) in self._busy
            or (mode is RepairMode.DELETE and now < self._delete_from)
        ):
            return
        if stack := await self._own_stack(running.pod):
            await self._say(running, container_id, Outcome("RedirectIneffective", without_effect(running.pod, stack)))
            return
        if self._was_added(running.pod, container_id):
            running.settle(container_id, redirected=True)
            return
        found = await self._look_into(running, sandbox)
        running.redirected, running.hidden = found.redirected or found.repaired, found.hidden
        if found.redirected:
            if found.told:
                extra = {"namespace": running.pod.namespace, "pod": running.pod.name, "reason": found.told}
                _log.warning("traffic of a running pod bypasses its sidecar", extra=extra)
            running.settle(container_id, redirected=True)
            return
        running.again = now + min(AGAIN, now - running.first)  # at first often: it may be about to be known
        if not self._orders().installed:
            running.note = ""  # none is to be redirected
        elif not found.unknown or now - running.since >= PATIENCE:
            await self._say(running, container_id, await self._outcome(running, sandbox, found, mode))

    async def _own_stack(self, pod: Pod) -> str:
        """Name the runtime if it gives the pod a network stack of its own (F42)."""
        if not pod.runtime_class or not self._orders().installed:
            return ""
        handler = await self._cluster.handler_of(pod.runtime_class) if self._cluster else ""
        return own_network_stack(handler or pod.runtime_class)

    def _was_added(self, pod: Pod, container_id: str) -> bool:
        name = pod.namespace, pod.name
        if container_id:
            return self._added.get(container_id, ())[:2] == name
        return any(each[:2] == name and bool(each[2]) and pod.has_uid(each[2]) for each in self._added.values())

    async def _look_into(self, running: RunningPod, sandbox: Sandbox | None) -> Found:
        """Look into a pod's netns, and write into it if it is to be; within a time, whatever is in it."""
        pod, verdict, orders = running.pod, running.verdict, self._orders()
        known = self._index.known(pod)
        if isinstance(known, Doubt):
            return Found(unknown=known.reason)
        plan = None if isinstance(verdict, InvalidValue) else self._plan(pod, known.addresses)
        writes = plan is not None and orders.installed and orders.settings.repair_mode is RepairMode.REDIRECT
        if writes and not (sandbox and sandbox.uid) and self._cluster and (doubt := await self._cluster.confirm(pod)):
            return Found(unknown=doubt)
        look, loop = Look(known, plan, writes), asyncio.get_running_loop()
        work = loop.run_in_executor(self._workers, looked, look, self._files, self._capability())
        self._busy.add(key_of(pod))
        work.add_done_callback(lambda _: self._busy.discard(key_of(pod)))
        done, _ = await asyncio.wait([work], timeout=DEADLINE)
        return work.result() if done else Found(unknown=f"its netns was not looked through within {DEADLINE:.0f} s")

    def _plan(self, pod: Pod, addresses: tuple[Address, ...]) -> Plan | None:
        defaults = self._defaults()
        with suppress(InvalidValue):
            verdict = decide(pod, addresses, defaults)
            if isinstance(verdict, Redirect):
                return Plan(verdict, addresses, lambda known: decide(pod, known, defaults), defaults.ipv6)
        return None

    async def _outcome(self, running: RunningPod, sandbox: Sandbox | None, found: Found, mode: RepairMode) -> Outcome:
        invalid = running.verdict if isinstance(running.verdict, InvalidValue) else None
        if outcome := unredirected.outcome(found, sandbox, invalid):
            return outcome
        if mode is not RepairMode.DELETE or not self._goes_on():
            return unredirected.left(sandbox)
        if self._runtime.without_entry:
            return unredirected.held_back(sandbox)
        self._delete_from = asyncio.get_running_loop().time() + DELETE_EVERY
        refused = await self._cluster.delete_pod(running.pod) if self._cluster else "the agent has no cluster"
        return unredirected.deleted(sandbox, refused)

    async def _say(self, running: RunningPod, container_id: str, outcome: Outcome) -> None:
        pod = running.pod
        self._observe(outcome.reason)
        self.repaired += outcome.is_repaired
        running.note = "" if outcome.is_repaired else f"pod {pod.namespace}/{pod.name}: {outcome.message}"
        if outcome.settled:
            running.settle(container_id, redirected=outcome.is_repaired)
        else:
            running.again = asyncio.get_running_loop().time() + AGAIN
        known, running.observed = running.observed == outcome[:2], (outcome.reason, outcome.message)
        if known:
            return
        extra = {"namespace": pod.namespace, "pod": pod.name, "reason": outcome.message}
        _log.warning("a running pod had no redirect: %s", outcome.reason, extra=extra)
        if not self._cluster:
            return
        if why := await self._cluster.tell(pod, outcome.reason, outcome.message, warning=not outcome.is_repaired):
            _log.warning("an Event could not be written", extra={"reason": why})


def _written(conf_dir: Path, node: NodeState) -> float | None:
    """Look when the file with our entry was last written or put in its place, in seconds since 1970."""
    if not node.conflist:
        return None
    try:
        return (conf_dir / node.conflist).stat().st_ctime
    except OSError:
        return None
