"""The node agent's composition root: it builds and wires the parts, and starts and stops them in order (D6, D7)."""

from __future__ import annotations

import asyncio
import logging
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from installer.agent import shutdown
from installer.agent.backends import choose_backend
from installer.agent.health_endpoint import HealthEndpoint
from installer.agent.liveness import end_if_stuck
from installer.agent.malloc import keep_giving_back, keep_little
from installer.agent.metrics import LineCounts, Metrics, PodCounts
from installer.agent.node_status import Observed
from installer.agent.outcomes import Outcomes
from installer.agent.readiness import Readiness
from installer.agent.reconciler import Reconciler
from installer.agent.remount import exit_to_see_mounts
from installer.agent.serving import Serving
from installer.aio import Changes
from installer.config.desired import DesiredState
from installer.documents.depth import read_as_deep_as_the_api_server
from installer.host import unanswered
from installer.host.cni_cache import Sandboxes
from installer.host.in_force import InForce
from installer.host.restart import process_created
from installer.host.socket_dir import clear
from installer.host.uninstall import uninstall
from installer.pods.source import open_pod_source
from installer.pods.verdicts import Verdicts
from installer.repair.netns_proof import NetnsFiles
from installer.repair.pod_repair import PodRepair
from installer.repair.process_netns import ProcessNetns
from installer.telemetry import logs
from installer.telemetry.health import Health
from installer.version import release
from plugin.descriptors import raise_limit
from plugin.handler import Handler
from plugin.server import Server
from plugin.workers import Workers

if TYPE_CHECKING:
    from installer.agent.cluster import Cluster
    from installer.agent.pod_events import PodEvents
    from installer.config.istio_chart import IstioChart
    from installer.config.settings import Settings
    from installer.fleet.state import NodeState

NETNS_WORKERS = 8  # threads; further pods wait for their turn (F29)
REPAIR_WORKERS = 2  # threads that inspect running pods: no ADD waits for these

_log = logging.getLogger(__name__)


def run(settings: Settings, istio_chart: IstioChart | None = None) -> None:
    """Run the agent in the foreground until SIGTERM or SIGINT. The installation stays (D7).

    Args:
        settings: the agent's.
        istio_chart: where Istio's own chart runs it, with less than ours gives it; None: ours does, or nothing.
    """
    keep_little()
    raise_limit()
    read_as_deep_as_the_api_server()
    with logs.to_stderr(settings.log_level) as lines, unanswered.logged():
        if istio_chart:
            extra = {"reason": "; ".join(istio_chart.left_out)}
            _log.warning("running in Istio's own chart, which does not allow everything", extra=extra)
        asyncio.run(_run(settings, lines, istio_chart))


async def _run(settings: Settings, lines: logs.Handler, istio_chart: IstioChart | None) -> None:
    await Agent(settings, lines, istio_chart).run()


class Agent:
    """One agent and its parts; bound to the event loop that creates it."""

    def __init__(self, settings: Settings, lines: logs.Handler, istio_chart: IstioChart | None = None) -> None:
        self._settings = settings
        self._istio_chart = istio_chart
        self._lines = lines
        self._stopping, self._stop = asyncio.Event(), asyncio.Event()
        self._is_signalled = False  # so that this container does not start again
        self._uninstalls = False  # no agent comes after this one
        self._created = process_created()
        self._changes = changes = Changes()
        self._in_force = in_force = InForce(DesiredState(settings))
        self._workers = ThreadPoolExecutor(NETNS_WORKERS, "netns")
        self._large = ThreadPoolExecutor(1, "large")
        self._freeing = ThreadPoolExecutor(1, "freeing")
        self._repairers = ThreadPoolExecutor(REPAIR_WORKERS, "repair")
        self._pods = open_pod_source(settings, changes.notify)
        self._verdicts = Verdicts(self._pods, lambda: in_force.policy)
        self._cluster: Cluster | None = None
        self._pod_events: PodEvents | None = None
        if not settings.pods_from:
            self._join_cluster()
        self._pod_repair = PodRepair(
            self._pods,
            self._verdicts,
            in_force,
            self._repairers,
            sandboxes=Sandboxes(settings.cni_cache_dir, settings.cni_cache_dir_mount),
            files=ProcessNetns(settings.netns_dir)
            if istio_chart
            else NetnsFiles(settings.netns_dir, settings.netns_dir_mount),
            cluster=self._cluster,
            changes=changes,
        )
        metrics = Metrics(version=release(), in_force=in_force, pods=self._count_pods, log_lines=self._count_lines)
        outcomes = Outcomes(metrics, self._pod_repair.add)
        workers = Workers(self._workers, self._large, self._freeing)
        handler = Handler(self._pods, workers, in_force=in_force, observe=outcomes.take)
        self._serving = Serving(settings.agent_socket, Server(settings.agent_socket, handler))
        self._reconciler = Reconciler(lambda: in_force.desired, self._serving.is_serving, self._on_state)
        left_out = istio_chart.left_out if istio_chart else ()
        self._readiness = Readiness(
            in_force,
            self._serving,
            self._pods,
            self._pod_repair,
            changes,
            cluster=self._cluster,
            left_out=left_out,
        )
        addresses = (settings.health_address, *((istio_chart.ready,) if istio_chart else ()))
        self._health = [
            HealthEndpoint(Health(self._readiness.conditions, metrics.registry), each) for each in addresses
        ]

    def _join_cluster(self) -> None:
        from installer.agent.cluster import Cluster  # noqa: PLC0415 - loads kopf, which a folder of pods does not need
        from installer.agent.pod_events import PodEvents  # noqa: PLC0415

        changes = self._changes
        self._cluster = Cluster(
            self._settings, self._in_force, self._apply, self._observe, changes, istio_chart=self._istio_chart
        )
        self._pod_events = PodEvents(self._verdicts, self._in_force, self._cluster, changes)

    async def run(self) -> None:
        """Start the parts, and stop them in reverse order. The reconciler adds the conflist entry last (D6)."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        async with AsyncExitStack() as stack:
            for threads in (self._freeing, self._workers, self._large, self._repairers):
                stack.callback(threads.shutdown, wait=False, cancel_futures=True)
            stack.callback(self._serving.close)
            if self._cluster:
                stack.push_async_callback(self._cluster.close)
            if not await self._serving.hold_node(self._stopping):
                return
            if self._cluster and (reason := await self._cluster.why_to_give_way()):
                _log.warning("not installing: another agent has taken this one's place", extra={"reason": reason})
                self._uninstalls = True
            else:
                await self._run_parts(stack)
        if self._uninstalls:
            for step in uninstall(self._settings):
                _log.log(logging.ERROR if step.failed else logging.WARNING, step.text)
        elif self._is_signalled:
            clear(self._settings.agent_socket)

    async def _run_parts(self, stack: AsyncExitStack) -> None:
        for each in self._health:
            stack.push_async_callback(each.close)
        try:
            async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as parts:
                parts.create_task(self._end(limit))
                self._start(parts)
        except TimeoutError:
            extra = {"seconds": shutdown.DRAINED}
            _log.error("not all parts ended in time; exiting with work under way", extra=extra)

    def _start(self, parts: asyncio.TaskGroup) -> None:
        stop, stopping = self._stop, self._stopping
        parts.create_task(keep_giving_back(stop))
        parts.create_task(self._lines.keep_summarizing(stop))
        parts.create_task(end_if_stuck(stopping, stop_within=shutdown.STOP_WITHIN))
        for each in self._health:
            parts.create_task(each.run(stop))
        parts.create_task(self._pods.run(stop))
        if self._cluster:
            parts.create_task(self._cluster.run(stop))
        if self._pod_events:
            parts.create_task(self._pod_events.run(stop))
        parts.create_task(self._serve())
        parts.create_task(self._reconciler.run(stop))
        if not self._istio_chart or self._istio_chart.inspects:
            parts.create_task(self._pod_repair.run(stop))
        parts.create_task(exit_to_see_mounts(self._in_force, self._pod_repair, self._created, self._changes, stopping))
        parts.create_task(self._readiness.announce(stopping))

    async def _serve(self) -> None:
        """Serve; a node that cannot redirect serves too, and reports that (STATUS)."""
        await self._choose_backend()
        await self._serving.run(self._stop, self._stopping, self._on_serving)

    async def _choose_backend(self) -> None:
        await choose_backend(self._in_force, self._workers)
        self._changes.notify()

    def _on_signal(self) -> None:
        """Shut down in order; on a second signal exit at once."""
        if self._stopping.is_set():
            self._stop.set()
        self._is_signalled = True
        self._stopping.set()

    async def _end(self, limit: asyncio.Timeout) -> None:
        """Wait for the stop; then uninstall if no agent follows this one (D7).

        Args:
            limit: the timeout of all parts; what has not ended by then is abandoned.
        """
        await self._stopping.wait()
        now = asyncio.get_running_loop().time()
        limit.reschedule(now + shutdown.DRAINED)
        if self._cluster and (reason := await self._cluster.why_to_uninstall(now + shutdown.ASKED)):
            self._uninstalls = True
            self._apply(replace(self._in_force.desired, installed=False, reason=reason))
            with suppress(TimeoutError):
                async with asyncio.timeout_at(now + shutdown.TAKEN_OUT):
                    while not self._in_force.state.removed:  # noqa: ASYNC110 - the reconciler works in its own thread
                        await asyncio.sleep(0.02)
            await self._cluster.report(now + shutdown.REPORTED)
        self._stop.set()

    def _apply(self, desired: DesiredState) -> None:
        """Put a desired state in force: for requests at once, for the node's files at the reconciler's next pass."""
        before, self._in_force.desired = self._in_force.desired, desired
        logs.switch(desired.settings.log_level)
        if desired.settings.redirect_backend != before.settings.redirect_backend:
            self._choosing = asyncio.create_task(self._choose_backend())
        self._reconciler.wake()
        self._changes.notify()

    def _on_state(self, state: NodeState) -> None:
        self._in_force.state = state  # from the reconciler's thread
        self._changes.notify()

    def _on_serving(self) -> None:
        self._reconciler.wake()
        self._changes.notify()

    def _count_pods(self) -> PodCounts:
        repair = self._pod_repair
        return PodCounts(
            self._pods.count, repair.redirected or 0, repair.unredirected, repair.unreadable, repair.outcomes
        )

    def _count_lines(self) -> LineCounts:
        return LineCounts(self._lines.dropped, self._lines.suppressed)

    def _observe(self) -> Observed:
        return Observed(
            version=release(),
            desired=self._in_force.desired,
            node=self._in_force.state,
            tried=self._in_force.tried,
            chosen=self._in_force.capability,
            conditions=self._readiness.conditions(),
            redirected=self._pod_repair.redirected,
            repaired=self._pod_repair.repaired,
            unredirected_pods=self._pod_repair.notes,
            unasked=self._health[0].unavailable,
            unredirected=self._pod_repair.unredirected,
        )
