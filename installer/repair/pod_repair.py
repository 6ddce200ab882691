"""Running pods that should be redirected and are not: found, reported, and redirected if asked for (F1, F2, F18, F35).

A mesh pod is redirected if its ADD was answered with a redirect, or if its netns holds one: rules count, not the state of its
containers. Rules are written only into a netns proven to be the pod's (`installer.repair.netns_proof`). A pod that runs
for a while without either is counted and reported, whatever the reason.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from installer.aio import either, until_next, wait
from installer.config.value_types import RepairMode
from installer.pods.runtime_class import own_network_stack, without_effect
from installer.pods.verdicts import key_of
from installer.repair import unredirected
from installer.repair.deletions import Deleter, Deletions
from installer.repair.inspection import Found, Inspection, inspect
from installer.repair.node_sandboxes import NodeSandboxes
from installer.repair.running_pods import RunningPods
from installer.repair.runtime_entry import RuntimeEntry
from installer.repair.sandbox_index import Doubt
from installer.repair.unredirected import Outcome
from plugin.decision import verdict
from plugin.program import Plan
from plugin.redirect import Redirect
from plugin.values import InvalidValue

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from installer.aio import Changes
    from installer.host.cni_cache import Sandbox, Sandboxes
    from installer.host.in_force import InForce
    from installer.pods.verdicts import Key, Verdicts
    from installer.repair.netns_proof import NetnsFiles
    from installer.repair.running_pods import RunningPod
    from plugin.handler import Outcome as Added
    from plugin.pod import Pod
    from plugin.values import Address

CHECK_EVERY = 2.0  # seconds between two checks, at least; and at most while a pod or a sandbox is not settled
RESYNC = 60.0  # seconds between two checks while nothing changes
# Seconds between two checks until the first full count, which the node's status waits for; and when the runtime has recorded
# a sandbox whose ADD was not answered here, so that one without a redirect is found while it is there.
SOON = 0.2
AGAIN = 30.0  # seconds before a failed inspection is retried
PATIENCE = 30.0  # seconds that a pod may run before it counts as unredirected
LOOK_AGAIN = 600.0  # seconds between two looks into each netns: others may take its rules away without any event
DEADLINE = 10.0  # seconds for one netns, whose content the pod decides (F37)
LATE = f"its netns was not inspected within {DEADLINE:.0f} s"

_log = logging.getLogger(__name__)


class Pods(Protocol):
    """The pods of the node."""

    @property
    def known(self) -> bool:
        """Whether all pods are known."""


class Cluster(Deleter, Protocol):
    """Actions on pods at the API server."""

    def record(self, pod: Pod, reason: str, note: str, *, warning: bool) -> None:
        """Have an Event about a pod written."""

    async def confirm(self, pod: Pod) -> str:
        """Check that a pod still runs with the same uid and addresses. Return why not; empty if it does."""

    async def handler_of(self, runtime_class: str) -> str:
        """Return the runtime handler of a RuntimeClass; empty if it is unknown."""


class PodRepair:
    """Checks and repairs running pods; bound to one event loop."""

    def __init__(
        self,
        pods: Pods,
        verdicts: Verdicts,
        in_force: InForce,
        workers: Executor,
        *,
        sandboxes: Sandboxes,
        files: NetnsFiles,
        cluster: Cluster | None,
        changes: Changes,
    ) -> None:
        """Prepare; `run` begins.

        Nothing is done before what is in force is known. No ADD waits for the threads of `workers`, which may enter a
        netns. Without `cluster` nothing is reported or deleted. `changes` has those of pods and settings, and is notified of
        those of sandboxes and of what is counted here.
        """
        self._pods = pods
        self._verdicts = verdicts
        self._in_force = in_force
        self._workers = workers
        self._files = files
        self._cluster = cluster
        self._running = RunningPods()
        self._changes = changes
        self._sandboxes = NodeSandboxes(sandboxes, files, changes)
        self._runtime = RuntimeEntry(in_force)
        self._last_inputs: object = None
        self._settled: object = None  # pods and sandboxes of which none needs a further check; None: some may
        self._look_again_at = 0.0
        self._busy: set[Key] = set()  # pods whose netns is being inspected
        self._deletions = Deletions(cluster)
        self._has_counted = False
        self.outcomes: Counter[str] = Counter()  # of running pods without a redirect, by reason; each change counts
        self.repaired = 0  # pods that were redirected while they ran

    @property
    def notes(self) -> list[str]:
        """The first ten running mesh pods without a redirect, each with the reason."""
        return self._running.notes

    @property
    def unredirected(self) -> int:
        """The number of running mesh pods without a redirect, as far as known."""
        return sum(bool(each.note) for each in self._running)

    @property
    def redirected(self) -> int | None:
        """The number of pods that hold a redirect, whoever wrote it; None until all have been inspected once."""
        return sum(each.redirected for each in self._running) if self._has_counted else None

    @property
    def unreadable(self) -> int:
        """The number of runtime results that do not parse."""
        return self._sandboxes.unreadable

    @property
    def hidden_since(self) -> float | None:
        """When the latest hidden netns that needs a repair was mounted; None: there is none."""
        if self._in_force.settings.repair_mode is not RepairMode.REDIRECT or not self._in_force.desired.installed:
            return None
        return max((each.hidden for each in self._running if each.hidden), default=None)

    @property
    def runtime(self) -> str | None:
        """The evidence that the runtime does not load the plugin's entry; None without any (F23)."""
        return self._runtime.reason

    def add(self, outcome: Added) -> None:
        """Record an ADD that was answered with a redirect or a pass."""
        self._sandboxes.add(outcome)

    async def run(self, stop: asyncio.Event) -> None:
        """Check the pods after each change, until told to stop."""
        changed, recorded = self._changes.listen(), self._sandboxes.strangers.listen()
        try:
            while not stop.is_set():
                changed.clear()
                recorded.clear()
                before = self._public_state()
                await self._sandboxes.update()
                await self._runtime.update(self._sandboxes.index.setups)
                await self._check(stop)
                if self._public_state() != before:
                    self._changes.notify()
                await wait(stop, SOON)
                if self._has_counted:
                    await either(stop, recorded, CHECK_EVERY - SOON)
                if self._settled and self._sandboxes.is_at_rest:
                    due = max(0.0, self._look_again_at - asyncio.get_running_loop().time())
                    await either(stop, changed, min(due, until_next(RESYNC)))
        finally:
            self._sandboxes.close()

    def _public_state(self) -> object:
        """Return what others read of it, to tell them when it changes."""
        return self.redirected, self.repaired, self.unredirected, self.notes, self.hidden_since, self.runtime

    async def _check(self, stop: asyncio.Event) -> None:
        if not self._in_force.is_known:
            self._running.forget()
            self._settled = None
            return
        inputs = self._inputs()
        if inputs != self._last_inputs:
            self._last_inputs = inputs
            self._running.inspect_again()
            self._settled = None
        self._look_again()
        are_all_known = self._pods.known
        await self._verdicts.update()
        now, index = asyncio.get_running_loop().time(), self._sandboxes.index
        seen = self._verdicts.version, index
        if seen != self._settled:
            self._settled = None
            self._running.update(self._verdicts, now, lambda pod: index.of(pod) is not None)
            for running in self._running:
                if stop.is_set() or not self._inputs_unchanged():
                    return
                await self._check_pod(running)
            if all(running.settled == self._identity(running.pod) for running in self._running):
                self._settled = seen
        self._has_counted |= are_all_known

    def _look_again(self) -> None:
        """Have each netns inspected now and then, also after an ADD that was answered with a redirect."""
        now = asyncio.get_running_loop().time()
        if now < self._look_again_at:
            return
        if self._look_again_at:
            self._running.inspect_again(whatever_was_added=True)
            self._settled = None
        self._look_again_at = now + LOOK_AGAIN

    def _identity(self, pod: Pod) -> str:
        """Identify a pod's sandbox: by its id or, if the runtime records none, by the pod's addresses."""
        sandbox = self._sandboxes.index.of(pod)
        return sandbox.container_id if sandbox else " ".join(pod.ips)

    def _inputs(self) -> object:
        now = self._in_force
        return now.policy, now.settings.repair_mode, now.desired.installed, now.capability

    def _inputs_unchanged(self) -> bool:
        """Whether the settings in force are the same as at the start of this round, as an inspection may take seconds."""
        return self._inputs() == self._last_inputs and self._in_force.is_known

    async def _check_pod(self, running: RunningPod) -> None:
        sandbox, now = self._sandboxes.index.of(running.pod), asyncio.get_running_loop().time()
        identity, container_id = self._identity(running.pod), sandbox.container_id if sandbox else ""
        mode = self._in_force.settings.repair_mode
        if running.settled == identity or now < running.again or key_of(running.pod) in self._busy:
            return
        if stack := await self._own_stack(running.pod):
            self._report(running, identity, Outcome("RedirectIneffective", without_effect(running.pod, stack)))
            return
        running.moved |= running.settled is not None and not container_id
        added = not running.moved and self._sandboxes.was_added(running.pod, container_id)
        if added and running.trusts_add:
            running.settle(identity, redirected=True)
            return
        found = (await self._inspect(running, sandbox))._replace(added=added)
        if added and found.unknown:  # such as a netns that this container does not see
            running.settle(identity, redirected=True)
            return
        running.redirected, running.hidden = found.redirected or found.repaired, found.hidden
        if found.redirected:
            running.settle(identity, redirected=True)
            return
        running.again = now + min(AGAIN, now - running.first)  # frequent at first: the missing facts may arrive soon
        if not self._in_force.desired.installed:
            running.note = ""  # no redirect is required
        elif found.unknown == LATE and running.note:
            pass  # on a busy node: what the last look has shown stays
        elif not found.unknown or now - running.since >= PATIENCE:
            self._report(running, identity, await self._outcome(running, sandbox, found, mode))

    async def _own_stack(self, pod: Pod) -> str:
        """Name the runtime if it gives the pod its own network stack (F42)."""
        if not pod.runtime_class or not self._in_force.desired.installed:
            return ""
        handler = await self._cluster.handler_of(pod.runtime_class) if self._cluster else ""
        return own_network_stack(handler or pod.runtime_class)

    async def _inspect(self, running: RunningPod, sandbox: Sandbox | None) -> Found:
        """Inspect a pod's netns, and repair it on request; bounded in time, whatever it holds."""
        pod, in_force = running.pod, self._in_force
        known = self._sandboxes.index.known(pod)
        if isinstance(known, Doubt):
            return Found(unknown=known.reason)
        plan = self._plan(pod, known.addresses)
        writes = bool(plan) and in_force.desired.installed and in_force.settings.repair_mode is RepairMode.REDIRECT
        if writes and not (sandbox and sandbox.uid):
            writes = not pod.terminating  # its addresses may be another's in a moment
            if writes and self._cluster and (doubt := await self._cluster.confirm(pod)):
                return Found(unknown=doubt)
        inspection, loop = Inspection(known, plan, writes), asyncio.get_running_loop()
        work = loop.run_in_executor(self._workers, inspect, inspection, self._files, in_force.capability)
        self._busy.add(key_of(pod))
        work.add_done_callback(lambda _: self._busy.discard(key_of(pod)))
        done, _ = await asyncio.wait([work], timeout=DEADLINE)
        return work.result() if done else Found(unknown=LATE)

    def _plan(self, pod: Pod, addresses: tuple[Address, ...]) -> Plan | None:
        policy = self._in_force.policy
        reached = verdict(pod, addresses, policy)
        if not isinstance(reached, Redirect):
            return None
        return Plan(reached, addresses, lambda known: verdict(pod, known, policy), policy.defaults.ipv6)

    async def _outcome(self, running: RunningPod, sandbox: Sandbox | None, found: Found, mode: RepairMode) -> Outcome:
        invalid = running.verdict if isinstance(running.verdict, InvalidValue) else None
        if outcome := unredirected.decide_outcome(found, sandbox, invalid):
            return outcome
        lack = unredirected.describe_lack(found, sandbox)
        if running.pod.terminating:
            is_own = running.refused == ""
            return unredirected.report_deletion(lack, "") if is_own else unredirected.report_terminating(lack)
        if (
            mode is not RepairMode.DELETE or found.added or not self._inputs_unchanged()
        ):  # its next one would lose it, too
            return unredirected.report_left(lack)
        if self._runtime.is_missed:
            return unredirected.report_held_back(lack)
        return await self._deletions.delete(running, lack)

    def _report(self, running: RunningPod, identity: str, outcome: Outcome) -> None:
        pod = running.pod
        self.outcomes[outcome.reason] += running.reported[0] != outcome.reason
        self.repaired += outcome.is_repaired
        running.note = "" if outcome.is_repaired else f"pod {pod.namespace}/{pod.name}: {outcome.message}"
        if outcome.settled:
            running.settle(identity, redirected=outcome.is_repaired)
        else:
            running.again = self._deletions.next_at if outcome.waits else asyncio.get_running_loop().time() + AGAIN
        is_repeated, running.reported = running.reported == outcome[:2], (outcome.reason, outcome.message)
        if is_repeated:
            return
        extra = {"namespace": pod.namespace, "pod": pod.name, "reason": outcome.message}
        _log.warning("a running pod had no redirect: %s", outcome.reason, extra=extra)
        if self._cluster:
            self._cluster.record(pod, outcome.reason, outcome.message, warning=not outcome.is_repaired)
