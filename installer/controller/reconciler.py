"""The controller's loop: compares the observed with the desired state, level-triggered (D8). Events only wake it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from installer.aio import either, wait
from installer.config.active import is_being_deleted
from installer.config.control_plane import GROUP, KIND, VERSION
from installer.controller import finalizer, node_lifecycle, plan, stalled_rollout, status, taints
from installer.controller.pod_warnings import PodWarnings
from installer.controller.role_binding import RoleBindingKeeper
from installer.controller.rollout import Roller
from installer.controller.watches import Kind
from installer.controller.writer import Writer
from installer.fleet import objects
from installer.fleet.node_health import PATIENCE
from installer.kube.api_error import ApiError
from installer.kube.backoff import Backoff
from installer.kube.names import DAEMONSET, node_reference
from installer.kube.store import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from installer.controller.client import Api
    from installer.controller.metrics import Metrics
    from installer.controller.plan import Plan, World
    from installer.controller.watches import Observed, Removals

DEBOUNCE = 0.2  # seconds in which to gather a burst of events
TICK = 10.0  # seconds: the end of patience makes no event
COMPARE_EVERY = 600.0  # seconds between lists of everything
NODES_PER_STATUS = 500  # a second: each status is sent to every agent, so with 5,000 nodes one is written every 10 s
AGENT = "deletion of an agent's pod"  # the name of a write of `Writer`
LONGEST_PAUSE = 30.0  # seconds between two attempts

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """The controller's options: the DaemonSet's namespace, the deadline of an uninstall, whether new nodes are tainted."""

    namespace: str
    deadline: timedelta
    taint_new_nodes: bool


class Loop:
    """Observes, plans and writes. Belongs to one event loop."""

    def __init__(self, api: Api, options: Options, removals: Removals, metrics: Metrics) -> None:
        self._api = api
        self._options = options
        self._removals = removals
        self._metrics = metrics
        self._caches: dict[Kind, Store[Any]] = {
            Kind.RESOURCE: Store(dict, key="uid"),
            Kind.REPORT: Store(objects.read_report),
            Kind.NODE: Store(objects.read_node),
            Kind.DAEMONSET: Store(dict),
            Kind.POD: Store(objects.read_agent_pod),
        }
        self._woken = asyncio.Event()
        self._unhealthy_since: dict[str, datetime] | None = None  # None: not judged yet
        self._warnings = PodWarnings(api)
        self._role_binding = RoleBindingKeeper(api, options.namespace)
        self._next_status_write = 0.0
        self._writer = Writer(self._woken.set)
        self._roller = Roller(api)
        self.all_listed = asyncio.Event()

    def observe(self, event: Observed) -> None:
        """Keep an observed object, and wake if it is new."""
        if self._caches[event.kind].observe(event.manifest, deleted=event.deleted):
            self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set."""
        compared, backoff = 0.0, Backoff(1.0, LONGEST_PAUSE)
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            self._woken.clear()
            try:
                if not self.all_listed.is_set() or loop.time() - compared >= COMPARE_EVERY:
                    await self._compare()
                    compared = loop.time()
                await self._reconcile()
                backoff.reset()
            except ApiError as error:
                _log.warning("request to the API server failed; retrying", extra={"reason": str(error)})
                await wait(stop, backoff.next(error.retry_after))
                continue
            await either(stop, self._woken, TICK)
            await wait(stop, DEBOUNCE)

    async def _compare(self) -> None:
        lists: dict[Kind, Callable[[], AsyncIterator[dict[str, Any]]]] = {
            Kind.RESOURCE: self._api.resources,
            Kind.REPORT: self._api.reports,
            Kind.NODE: self._api.nodes,
            Kind.DAEMONSET: self._api.daemonset,
            Kind.POD: self._api.pods,
        }
        for kind, list_all in lists.items():
            cache = self._caches[kind]
            before = cache.versions()
            cache.replace([cache.entry(each) async for each in list_all()], before)
        self._role_binding.forget()
        self.all_listed.set()

    def _world(self) -> World:
        reports: Mapping[str, objects.Report] = self._caches[Kind.REPORT].items
        return plan.World(
            resources=list(self._caches[Kind.RESOURCE].items.values()),
            daemonset=self._caches[Kind.DAEMONSET].items.get(DAEMONSET),
            nodes=dict(self._caches[Kind.NODE].items),
            reports={name: each for name, each in reports.items() if each.state},
            unreported={name: each for name, each in reports.items() if not each.state},
            pods=objects.by_node(self._caches[Kind.POD].items.values()),
            warnings=self._warnings.by_uid,
        )

    async def _reconcile(self) -> None:
        now = datetime.now(UTC)
        await self._warnings.update(self._caches[Kind.POD].items.values(), now)
        world = self._world()
        desired = plan.make_plan(world, self._options.namespace)
        faults = [*await self._roll_out(world, desired, now), *await self._role_binding.keep(desired)]
        # Nodes are judged by the current DaemonSet; the plan does not include a resource created meanwhile.
        world = replace(self._world(), resources=world.resources)
        fleet = await self._pass_unready_nodes(world, desired, self._judge(world, desired, now), now)
        await self._taint(world, desired, now)
        await self._write_statuses(world, desired, fleet, faults, now)
        await self._patch_conditions(world, fleet, now)
        self._metrics.reconciliations.inc()

    async def _roll_out(self, world: World, desired: Plan, now: datetime) -> list[status.Fault]:
        park = False
        for resource in filter(is_being_deleted, world.resources):
            deadline, refused = self._options.deadline, self._roller.is_refused
            step = finalizer.decide_uninstall(resource, world, desired, deadline=deadline, refused=refused, now=now)
            park |= step.park
            for each in step.events:
                await self._api.record(_about(resource), each)
            if step.release:
                self._removals.release(resource["metadata"]["uid"])
        applied, faults = await self._roller.roll_out(
            world, desired, park=park, clock=asyncio.get_running_loop().time()
        )
        if applied:
            self._caches[Kind.DAEMONSET].observe(applied)
            self._woken.set()
        return faults

    async def _pass_unready_nodes(
        self, world: World, desired: Plan, fleet: status.Fleet, now: datetime
    ) -> status.Fleet:
        """Replace agents that wait for nodes that were not ready before, unless the API server refuses."""
        names = plan.managed_nodes(world, desired) if desired.installed else []
        found = stalled_rollout.find_next(world, names, now)
        chosen = {pod.node: pod for pod in found.agents}
        requests = ((name, partial(self._api.replace, pod)) for name, pod in chosen.items())
        async for name, terminating in self._writer.write(AGENT, requests, now):
            self._caches[Kind.POD].observe(terminating)
            _log.info(
                "replacing an agent: the rollout passes nodes that were not ready before it", extra={"object": name}
            )
        refused = any(self._writer.is_refused(AGENT, name) for name in chosen)
        return fleet if found.waits or refused else replace(fleet, held_up_by=0)

    async def _taint(self, world: World, desired: Plan, now: datetime) -> None:
        # Without an agent on a tainted node, nothing would ever remove the taint.
        wanted = plan.nodes_with_agents(world, besides=[taints.TAINT]) if desired.installed else set()
        wanted_taints = {
            name: taints.decide_taints(
                node,
                world.reports.get(name),
                world.pods.get(name),
                now,
                wanted=name in wanted,
                taint_new=self._options.taint_new_nodes,
            )
            for name, node in world.nodes.items()
        }
        requests = (
            (name, partial(self._api.taint, name, world.nodes[name].version, [dict(each) for each in node_taints]))
            for name, node_taints in wanted_taints.items()
            if node_taints is not None
        )
        async for name, patched in self._writer.write("taint", requests, now):
            self._caches[Kind.NODE].observe(patched)
            node, node_taints = world.nodes[name], wanted_taints[name] or ()
            event = taints.build_event(added=len(node_taints) > len(node.taints), wanted=name in wanted)
            await self._api.record(node_reference(name, node.uid), event)

    async def _patch_conditions(self, world: World, fleet: status.Fleet, now: datetime) -> None:
        """Write to IstioCNINodes why agents do not run."""
        requests = (
            (each.node.name, partial(self._api.patch_condition, each))
            for each in node_lifecycle.condition_patches(world, fleet.verdicts, now)
        )
        async for _, patched in self._writer.write("IstioCNINode", requests, now):
            self._caches[Kind.REPORT].observe(patched)

    async def _write_statuses(
        self, world: World, desired: Plan, fleet: status.Fleet, faults: list[status.Fault], now: datetime
    ) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._next_status_write:
            loop.call_at(self._next_status_write, self._woken.set)
            return
        changes = {
            f"{each.resource['metadata']['namespace']}/{each.resource['metadata']['name']}": each
            for each in plan.status_changes(world, desired, fleet, faults, now)
        }
        writes = ((name, partial(self._write_status, each)) for name, each in changes.items())
        async for name, written in self._writer.write("status", writes, now):
            self._next_status_write = loop.time() + max(1.0, len(world.nodes) / NODES_PER_STATUS)
            self._metrics.status_writes.inc()
            self._caches[Kind.RESOURCE].observe(written)
            for each in changes[name].events:
                await self._api.record(_about(written), each)

    async def _write_status(self, change: plan.StatusChange) -> dict[str, Any] | None:
        written = await self._api.write_status(change.resource, change.patch)
        if written is None:  # gone without an event of the watch: its handler waits
            self._caches[Kind.RESOURCE].observe(change.resource, deleted=True)
            self._removals.release(change.resource["metadata"]["uid"])
        return written

    def _judge(self, world: World, desired: Plan, now: datetime) -> status.Fleet:
        if self._unhealthy_since is None:
            # Patience is over for failures reported before this start.
            before = objects.component_status((desired.active or {}).get("status") or {})
            old = before.get("status") == status.ERROR
            self._unhealthy_since = dict.fromkeys(world.nodes, now - PATIENCE) if old else {}
        fleet = plan.judge_fleet(world, desired, self._unhealthy_since, now)
        self._unhealthy_since = plan.update_unhealthy_since(self._unhealthy_since, fleet.verdicts, now)
        self._metrics.judged(fleet)
        return fleet


def _about(resource: Mapping[str, Any]) -> dict[str, Any]:
    metadata = resource["metadata"]
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
