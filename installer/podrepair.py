"""Running pods that should be redirected and are not: found, named, and redirected where that is asked for (F1, F2, F18, F35).

A pod of the mesh is redirected if its ADD has been answered with a redirect, or if its netns holds one: what is there counts,
not how its containers fare. A netns is written into only if it is proven to be the pod's (`installer.netnsproof`). Whichever
pod runs for a while without either is counted and named, whatever the reason.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from installer.netnsproof import Known, UnprovenError
from installer.runtimecheck import RuntimeCheck
from installer.sandboxindex import Doubt, SandboxIndex, addresses_of
from installer.settings import RepairMode
from installer.waiting import wait
from plugin.apply import ApplyError, apply
from plugin.decision import decide
from plugin.detect import holds_redirect
from plugin.outside import Pass, outside_mesh
from plugin.redirect import Family, Redirect
from plugin.values import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Executor
    from pathlib import Path

    from installer.netnsproof import NetnsFiles
    from installer.nodestate import NodeState
    from installer.orders import Orders
    from installer.sandboxes import Sandbox, Sandboxes
    from plugin.backend import Capability
    from plugin.parameters import Defaults
    from plugin.pod import Pod
    from plugin.values import Address

LOOK_EVERY = 2.0  # seconds between two looks for new sandboxes
AGAIN = 30.0  # seconds before what failed is tried again
PATIENCE = 30.0  # seconds that a pod may run before it counts that no redirect has been seen
DEADLINE = 10.0  # seconds for one netns: its pod decides what is in it (F37)
DELETE_EVERY = 10.0  # seconds between two pods of a node that are deleted: not all of an application at once
NAMED = 10  # pods at most in the node's status
MOST_ADDED = 4096  # ADDs that are remembered: a node has a few hundred pods

WITHOUT = "it runs without its redirect"

_log = logging.getLogger(__name__)


class Cluster(Protocol):
    """What is done to pods at the API server; what cannot be done is returned in words, or an empty text."""

    async def tell(self, pod: Pod, reason: str, note: str, *, warning: bool) -> str:
        """Write an Event about a pod."""

    async def delete_pod(self, pod: Pod) -> str:
        """Have a pod start anew."""

    async def confirm(self, pod: Pod) -> str:
        """Make sure that a pod is still what is known of it, with the same addresses."""


class Outcome(NamedTuple):
    """What became of a pod that had no redirect: in a word, as an Event has it, and for people; whether it is settled."""

    reason: str
    message: str
    settled: bool = True


class Found(NamedTuple):
    """What a look into a pod's netns has found: its redirect; or that it lacks it, and has it now; or why nobody knows."""

    redirected: bool = False
    repaired: bool = False
    unknown: str = ""
    refused: str = ""


class Look(NamedTuple):
    """What is done in a pod's netns: looked for a redirect of these families, and `write` put there if it has none."""

    known: Known
    families: tuple[Family, ...]
    write: Redirect | None


@dataclass
class _Watched:
    """A pod of the mesh that runs.

    Attributes:
        pod: as it is now.
        verdict: how it is to be redirected, or what is wrong with what it asks for.
        first: when it was first seen.
        since: when it was first seen to run.
        settled: the container id of the sandbox that needs no further look; None: not settled.
        again: before that it is not looked at once more.
        note: what is wrong with it; empty: nothing is, or not for long enough.
        observed: the outcome that was told last.
    """

    pod: Pod
    verdict: Redirect | InvalidValue
    first: float
    since: float
    settled: str | None = None
    again: float = 0.0
    note: str = ""
    observed: tuple[str, str] = ("", "")


class PodRepair:
    """Looks after the pods that run; belongs to one event loop."""

    def __init__(
        self,
        pods: Iterable[Pod],
        workers: Executor,
        *,
        sandboxes: Sandboxes,
        files: NetnsFiles,
        orders: Callable[[], Orders],
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
        self._watched: dict[tuple[str, str, str], _Watched] = {}
        self._busy: set[tuple[str, str, str]] = set()  # whose look into their netns is not back yet
        self._verdicts: dict[tuple[str, str, str], tuple[Pod, Redirect | InvalidValue | None]] = {}
        self._added: dict[str, tuple[str, str, str]] = {}  # by container id: the pod whose ADD was redirected
        self._indexed_of: Sequence[Sandbox] = ()
        self._index = self._index_of(())
        self._delete_from = 0.0  # the time before which none is deleted
        self._runtime = RuntimeCheck()
        self.repaired = 0  # pods that were given their redirect while they ran

    @property
    def notes(self) -> list[str]:
        """The running pods that should be redirected and are not, each with why: the first ten."""
        notes = sorted(each.note for each in self._watched.values() if each.note)
        return [*notes[:NAMED], *([f"and {len(notes) - NAMED} pods more"] if len(notes) > NAMED else [])]

    @property
    def unredirected(self) -> int:
        """How many running pods should be redirected and are not, as far as is known."""
        return sum(bool(each.note) for each in self._watched.values())

    @property
    def unreadable(self) -> int:
        """How many results of the runtime are not understood."""
        return len(self._sandboxes.unreadable)

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
            await wait(stop, LOOK_EVERY)

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
        deciding = self._deciding()
        if deciding != self._decided_by:
            self._decided_by = deciding
            self._watched, self._verdicts = {}, {}
        if not self._orders().installed or not self._may_act():
            self._watched = {}
            return
        await self._judge()
        self._watch()
        for watched in [*self._watched.values()]:
            if not self._goes_on():
                return
            await self._look_at(watched)

    def _deciding(self) -> object:
        orders = self._orders()
        settings = orders.settings
        return settings.exclude_namespaces, settings.repair_mode, orders.installed, self._capability(), self._defaults()

    def _goes_on(self) -> bool:
        """Whether what is in force is as it was when this round of looks began: each of them may take its time."""
        return self._deciding() == self._decided_by and self._may_act()

    async def _judge(self) -> None:
        """Decide about the pods that are new or changed, beside the event loop: a tenant chooses how long that takes (F37)."""
        before, verdicts = self._verdicts, {}
        for pod in self._pods:
            if not pod.is_injected:
                continue
            key = _key(pod)
            known = before.get(key)
            if known and known[0].ips == pod.ips and known[0].is_decided_like(pod):
                verdict = known[1]
            else:
                verdict = await asyncio.to_thread(self._verdict, pod)
            verdicts[key] = pod, verdict
        self._verdicts = verdicts

    def _watch(self) -> None:
        """Bring up to date which pods of the mesh run, or have a sandbox at least."""
        now, before, self._watched = asyncio.get_running_loop().time(), self._watched, {}
        for key, (pod, verdict) in self._verdicts.items():
            if verdict is None or not (pod.running or self._index.of(pod)):
                continue
            watched = self._watched[key] = before.get(key) or _Watched(pod, verdict, now, now)
            watched.pod, watched.verdict = pod, verdict
            if not pod.running:
                watched.since = now

    def _verdict(self, pod: Pod) -> Redirect | InvalidValue | None:
        if outside_mesh(pod.namespace, pod.name, self._orders().settings.exclude_namespaces, None):
            return None
        try:
            verdict = decide(pod, tuple(addresses_of(pod)), self._defaults())
        except InvalidValue as error:
            return error
        return None if isinstance(verdict, Pass) else verdict

    async def _look_at(self, watched: _Watched) -> None:
        sandbox, now = self._index.of(watched.pod), asyncio.get_running_loop().time()
        container_id = sandbox.container_id if sandbox else ""
        if watched.settled == container_id:
            return
        if self._was_added(watched.pod, container_id):
            watched.settled, watched.note = container_id, ""
            return
        mode = self._orders().settings.repair_mode
        if (
            now < watched.again
            or _key(watched.pod) in self._busy
            or (mode is RepairMode.DELETE and now < self._delete_from)
        ):
            return
        found = await self._look_into(watched, sandbox)
        if found.redirected:
            watched.settled, watched.note = container_id, ""
            return
        watched.again = now + min(AGAIN, now - watched.first)  # at first often: it may be about to be known
        if not found.unknown or now - watched.since >= PATIENCE:
            await self._say(watched, container_id, await self._outcome(watched, sandbox, found, mode))

    def _was_added(self, pod: Pod, container_id: str) -> bool:
        name = pod.namespace, pod.name
        if container_id:
            return self._added.get(container_id, ())[:2] == name
        return any(each[:2] == name and bool(each[2]) and pod.has_uid(each[2]) for each in self._added.values())

    async def _look_into(self, watched: _Watched, sandbox: Sandbox | None) -> Found:
        """Look into a pod's netns, and write into it if it is to be; within a time, whatever is in it."""
        pod, verdict = watched.pod, watched.verdict
        known = self._index.known(pod)
        if isinstance(known, Doubt):
            return Found(unknown=known.reason)
        writes = self._orders().settings.repair_mode is RepairMode.REDIRECT and not isinstance(verdict, InvalidValue)
        write = self._redirect(pod, known.addresses) if writes else None
        if write and not (sandbox and sandbox.uid) and self._cluster and (doubt := await self._cluster.confirm(pod)):
            return Found(unknown=doubt)
        families = verdict.families if isinstance(verdict, Redirect) else tuple(Family)
        look, loop = Look(known, families, write), asyncio.get_running_loop()
        work = loop.run_in_executor(self._workers, looked, look, self._files, self._capability())
        self._busy.add(_key(pod))
        work.add_done_callback(lambda _: self._busy.discard(_key(pod)))
        done, _ = await asyncio.wait([work], timeout=DEADLINE)
        return work.result() if done else Found(unknown=f"its netns was not looked through within {DEADLINE:.0f} s")

    def _redirect(self, pod: Pod, addresses: tuple[Address, ...]) -> Redirect | None:
        with suppress(InvalidValue):
            verdict = decide(pod, addresses, self._defaults())
            return None if isinstance(verdict, Pass) else verdict
        return None

    async def _outcome(self, watched: _Watched, sandbox: Sandbox | None, found: Found, mode: RepairMode) -> Outcome:
        why = self._why(sandbox)
        if found.repaired:
            said = f"{WITHOUT}{why}; it has it now. Connections that were open before stay as they are until they end"
            return Outcome("Redirected", said)
        if found.unknown:
            return Outcome("NotRedirected", f"no redirect of it has been seen: {found.unknown}", settled=False)
        if found.refused:
            return Outcome(
                "NotRedirected", f"{WITHOUT}{why}, and cannot be given it now: {found.refused}", settled=False
            )
        if isinstance(watched.verdict, InvalidValue):
            return Outcome("NotRedirected", f"{WITHOUT}{why}: {watched.verdict}. Correct that, and let it start anew")
        if mode is RepairMode.DELETE and self._goes_on():
            return await self._delete(watched.pod, why)
        return Outcome("NotRedirected", f"{WITHOUT}{why}; delete it, so that it starts anew")

    def _why(self, sandbox: Sandbox | None) -> str:
        """Say what is known of why a pod has none; nothing is known without its result."""
        if sandbox is None or sandbox.has_entry is None:
            return ""
        if sandbox.has_entry:
            return ": its network was set up through the plugin's entry, while it or its namespace was left alone"
        return f": its network {sandbox.network} was set up without the plugin's entry"

    async def _delete(self, pod: Pod, why: str) -> Outcome:
        if self._runtime.without_entry:
            said = "the one in its place may start without it too, as the container runtime does not load the plugin's entry"
            return Outcome("NotRedirected", f"{WITHOUT}{why}, and is not deleted: {said}", settled=False)
        self._delete_from = asyncio.get_running_loop().time() + DELETE_EVERY
        refused = await self._cluster.delete_pod(pod) if self._cluster else "the agent has no cluster"
        if refused:
            return Outcome("NotRedirected", f"{WITHOUT}{why}, and cannot be deleted: {refused}", settled=False)
        return Outcome("Deleted", f"{WITHOUT}{why}; it is deleted, so that it starts anew")

    async def _say(self, watched: _Watched, container_id: str, outcome: Outcome) -> None:
        pod = watched.pod
        self._observe(outcome.reason)
        if outcome.reason == "Redirected":
            self.repaired += 1
            watched.note = ""
        else:
            watched.note = f"pod {pod.namespace}/{pod.name}: {outcome.message}"
        if outcome.settled:
            watched.settled = container_id
        else:
            watched.again = asyncio.get_running_loop().time() + AGAIN
        known, watched.observed = watched.observed == outcome[:2], (outcome.reason, outcome.message)
        if known:
            return
        extra = {"namespace": pod.namespace, "pod": pod.name, "reason": outcome.message}
        _log.warning("a running pod had no redirect: %s", outcome.reason, extra=extra)
        if not self._cluster:
            return
        warning = outcome.reason != "Redirected"
        if why := await self._cluster.tell(pod, outcome.reason, outcome.message, warning=warning):
            _log.warning("an Event could not be written", extra={"reason": why})


def _key(pod: Pod) -> tuple[str, str, str]:
    return pod.namespace, pod.name, pod.uid


def looked(look: Look, files: NetnsFiles, capability: Capability) -> Found:
    """Look into a pod's netns, and redirect its traffic if that is asked for; on a worker."""
    try:
        with files.proven(look.known) as fd:
            try:
                if holds_redirect(fd, look.families):
                    return Found(redirected=True)
            except ApplyError as error:
                return Found(unknown=str(error))
            if look.write is None:
                return Found()
            if capability.unusable:
                return Found(unknown=f"this node redirects no pods: {capability.unusable}")
            if lacking := capability.lacks(look.write):
                return Found(refused=lacking)
            apply(fd, look.write, capability.backend)()
            return Found(repaired=True)
    except UnprovenError as error:
        return Found(unknown=f"its network namespace is not known for certain: {error}")
    except ApplyError as error:
        return Found(refused=str(error))
    except OSError as error:
        return Found(unknown=f"its network namespace cannot be opened: {error}")


def _written(conf_dir: Path, node: NodeState) -> float | None:
    """Look when the file with our entry was last written or put in its place, in seconds since 1970."""
    if not node.conflist:
        return None
    try:
        return (conf_dir / node.conflist).stat().st_ctime
    except OSError:
        return None
