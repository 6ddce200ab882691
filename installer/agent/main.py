"""The node agent: where its parts are made and wired, and the order in which they start and stop (D6, D7)."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from installer.agent import shutdown
from installer.agent.backends import Backends
from installer.agent.liveness import end_if_stuck
from installer.agent.malloc import keep_giving_back, keep_little
from installer.agent.metrics import LineCounts, Metrics, PodCounts
from installer.agent.node_status import Seen
from installer.agent.notices import Notices
from installer.agent.pod_events import PodEvents
from installer.agent.reconciler import Reconciler
from installer.aio import either, wait
from installer.config.desired import DesiredState
from installer.fleet.state import Condition
from installer.host.cni_cache import Sandboxes
from installer.host.files import AlreadyRunningError, explain, is_locked, lock
from installer.host.restart import keep_that_it_ends, would_help
from installer.host.socket_dir import ForeignDirectoryError, is_deleted, require_own
from installer.host.uninstall import uninstall
from installer.pods.verdicts import Verdicts
from installer.repair.netns_proof import NetnsFiles
from installer.repair.pod_repair import PodRepair
from installer.telemetry import logs
from installer.telemetry.health import Health
from installer.terminal.printable import say
from installer.version import release
from plugin.descriptors import raise_limit
from plugin.handler import Handler, Outcome
from plugin.parameters import Defaults
from plugin.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from installer.agent.cluster import Cluster
    from installer.config.settings import Settings
    from plugin.pod import Pod

NETNS_WORKERS = 8  # threads; more pods than that at once wait for their turn (F29)
REPAIR_WORKERS = 2  # threads that look into what runs already: no ADD waits for these
LOOK_EVERY = 5.0  # seconds between two looks whether a netns is hidden from this agent
RETRY = 1.0  # seconds between two tries at what this node refuses for now
NOT_SERVING = "saw its socket or its lock file deleted or replaced, expected them as it made them: it makes them anew"

_log = logging.getLogger(__name__)


class KnownPods(Protocol):
    """Where the agent knows its pods from: `installer.pods.cluster` or `installer.pods.folder`."""

    async def find(self, namespace: str, name: str, uid: str | None, *, anew: bool = False) -> Pod | None:
        """Find one pod, as `plugin.pod.PodSource` says."""

    def recall(self, namespace: str, name: str, uid: str | None) -> Pod | None:
        """Return one that is known, as that says."""

    async def run(self, stop: asyncio.Event) -> None:
        """Keep knowing them until told to stop."""

    @property
    def known(self) -> bool:
        """Whether all of this node's pods are known."""

    @property
    def reason(self) -> str:
        """Why they are not."""

    @property
    def count(self) -> int:
        """How many there are."""

    def __iter__(self) -> Iterator[Pod]:
        """Go through them."""


def run(settings: Settings) -> None:
    """Run the agent in the foreground until SIGTERM or SIGINT. What it has installed stays (D7)."""
    keep_little()
    raise_limit()
    with logs.to_stderr(settings.log_level) as lines:
        asyncio.run(Agent(settings, lines).run())


class Agent:
    """One agent and its parts."""

    def __init__(self, settings: Settings, lines: logs.Handler) -> None:
        self._settings = settings
        self._orders = DesiredState(settings)
        self._lines = lines
        self._told, self._stop = asyncio.Event(), asyncio.Event()
        self._uninstalls = False
        self._started = time.time()
        self._notices = Notices()
        self._backends = Backends()
        self._pods = _pods(settings)
        self._verdicts = Verdicts(self._pods, self._defaults)
        self._workers = ThreadPoolExecutor(NETNS_WORKERS, "netns")
        self._large = ThreadPoolExecutor(1, "large")
        self._lookers = ThreadPoolExecutor(REPAIR_WORKERS, "repair")
        handler = Handler(
            self._pods,
            self._workers,
            self._large,
            excluded=lambda: self._orders.settings.exclude_namespaces,
            defaults=self._defaults,
            capability=lambda: self._backends.chosen,
            observe=self._observe,
        )
        self._server = Server(settings.agent_socket, handler)
        self._served, self._not_serving = False, "not started yet"
        self._unserved = asyncio.Event()  # the socket or its lock may have been taken away
        self._lock: int | None = None
        self._unasked = ""  # why nobody can ask about health
        self._reconciler = Reconciler(lambda: self._orders, self._is_serving)
        self._metrics = Metrics(
            version=release(),
            node=lambda: self._reconciler.state,
            pods=self._count_pods,
            backends=lambda: self._backends,
            log_lines=lambda: LineCounts(lines.dropped, lines.suppressed),
        )
        self._health = Health(self._conditions, self._metrics.registry)
        self._cluster: Cluster | None = None
        if not settings.pods_from:
            from installer.agent.cluster import Cluster  # noqa: PLC0415 - it loads kopf, which a folder needs not

            self._cluster = Cluster(settings, self._apply, self._look)
            self._orders = self._cluster.orders
            self._pod_events = PodEvents(
                self._pods,
                self._cluster,
                excluded=lambda: self._orders.settings.exclude_namespaces,
                verdicts=self._verdicts,
                is_known=lambda: self._orders_known,
            )
        self._pod_repair = PodRepair(
            self._pods,
            self._lookers,
            sandboxes=Sandboxes(settings.cni_cache_dir_mount),
            files=NetnsFiles(settings.netns_dir, settings.netns_dir_mount),
            orders=lambda: self._orders,
            defaults=self._defaults,
            capability=lambda: self._backends.chosen,
            node=lambda: self._reconciler.state,
            may_act=lambda: self._orders_known,
            cluster=self._cluster,
            observe=self._metrics.running_pod,
        )

    async def run(self) -> None:
        """Start the parts in the order of D6: socket, plugin file, conflist last; stop them in the opposite one."""
        self._loop = loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._hear_signal)
        async with AsyncExitStack() as stack:
            for threads in (self._workers, self._large, self._lookers):
                stack.callback(threads.shutdown, wait=False, cancel_futures=True)
            stack.callback(self._let_go)
            if self._cluster:
                stack.push_async_callback(self._cluster.close)
            if not await self._hold_node():
                return
            stack.push_async_callback(self._health.stop)
            try:
                async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as parts:
                    parts.create_task(self._end(limit))
                    parts.create_task(keep_giving_back(self._stop))
                    parts.create_task(self._lines.keep_summarizing(self._stop))
                    parts.create_task(end_if_stuck(self._told, way_out=shutdown.WAY_OUT))
                    parts.create_task(self._serve_health())
                    parts.create_task(self._pods.run(self._stop))
                    if self._cluster:
                        parts.create_task(self._cluster.run(self._stop))
                        parts.create_task(self._verdicts.run(self._stop))
                        parts.create_task(self._pod_events.run(self._stop))
                    parts.create_task(self._serve())
                    parts.create_task(self._reconciler.run(self._stop))
                    parts.create_task(self._pod_repair.run(self._stop))
                    parts.create_task(self._end_to_see())
                    parts.create_task(self._say_when_ready())
            except TimeoutError:
                _log.error(
                    "not everything came to its end in time; what was under way is left",
                    extra={"seconds": shutdown.DRAINED},
                )
        if self._uninstalls:
            for step in uninstall(self._settings):
                _log.log(logging.ERROR if step.failed else logging.WARNING, step.text)

    @property
    def _orders_known(self) -> bool:
        """Whether what is in force is known to be what is asked for."""
        return self._cluster is None or self._cluster.known

    def _hear_signal(self) -> None:
        """End in order; told so twice, end at once."""
        if self._told.is_set():
            self._stop.set()
        self._told.set()

    async def _end(self, limit: asyncio.Timeout) -> None:
        """Wait for the end, and take everything out before it if nobody is to come after us (D7).

        Args:
            limit: of all parts; what has not ended by then is left.
        """
        await self._told.wait()
        now = asyncio.get_running_loop().time()
        limit.reschedule(now + shutdown.DRAINED)
        reason = await self._cluster.why_to_take_out(now + shutdown.ASKED) if self._cluster else ""
        if reason and self._cluster:
            self._uninstalls = True
            self._apply(replace(self._orders, installed=False, reason=reason))
            with suppress(TimeoutError):
                async with asyncio.timeout_at(now + shutdown.TAKEN_OUT):
                    while not self._reconciler.state.removed:  # noqa: ASYNC110 - it works in a thread of its own
                        await asyncio.sleep(0.02)
            await self._cluster.report(now + shutdown.REPORTED)
        self._stop.set()

    def _apply(self, orders: DesiredState) -> None:
        """Let orders be in force: requests see them at once, the node's files as soon as the reconciler has looked."""
        before, self._orders = self._orders, orders
        logs.switch(orders.settings.log_level)
        if orders.settings.redirect_backend != before.settings.redirect_backend:
            self._choosing = asyncio.create_task(self._choose_backend())
        self._reconciler.wake()

    async def _hold_node(self) -> bool:
        """Wait until no other agent serves on this socket, as during an upgrade.

        Raises:
            ForeignDirectoryError: if the socket's directory is another program's.
        """
        waiting = False
        while not self._told.is_set():
            try:
                self._take_lock()
            except (AlreadyRunningError, OSError) as error:
                if not waiting:
                    _log.warning("waits for its turn", extra={"reason": _why(error)})
                waiting = True
                await self._pause()
            else:
                return True
        return False

    def _take_lock(self) -> None:
        if self._lock is None or not is_locked(self._lock, self._settings.agent_socket):
            self._let_go()
            require_own(self._settings.agent_socket)
            self._lock = lock(self._settings.agent_socket)

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _is_serving(self) -> bool:
        """Whether the plugin is answered, and this is the node's agent; if not, have that mended. From any thread."""
        held = self._lock
        if held is not None and is_locked(held, self._settings.agent_socket) and self._server.serving:
            return True
        self._loop.call_soon_threadsafe(self._unserved.set)
        return False

    async def _serve(self) -> None:
        """Serve the plugin until told to stop; a node that cannot redirect serves all the same, and says so (STATUS).

        Whoever sees that it is not served any more sets `_unserved`: the reconciler, which watches the socket's directory, or
        a question for readiness.
        """
        await self._choose_backend()
        while not self._stop.is_set():
            self._unserved.clear()
            if not self._is_serving():
                await self._listen()
                self._reconciler.wake()
            await wait(self._stop, RETRY)
            await either(self._stop, self._unserved)
        await self._server.stop()

    async def _listen(self) -> None:
        if not self._not_serving:
            self._not_serving = NOT_SERVING
            _log.error("does not serve the plugin", extra={"reason": self._not_serving})
            self._reconciler.wake()
        try:
            self._take_lock()
            await self._server.start()
        except (AlreadyRunningError, ForeignDirectoryError, OSError) as error:
            reason = _why(error)
            if reason != self._not_serving:
                _log.error("cannot serve the plugin", extra={"reason": reason})
            self._not_serving = reason
            if is_deleted(self._settings.agent_socket):
                _log.error("ends: the directory of agentSocket was deleted from under this container's mount")
                self._told.set()
        else:
            if self._served:
                _log.warning("serves the plugin again")
            self._served, self._not_serving = True, ""

    async def _serve_health(self) -> None:
        """Answer about health; where that cannot be, as another program listens there, pods are served all the same."""
        address = self._settings.health_address
        while address and not self._stop.is_set():
            try:
                found = await self._health.start(address)
            except OSError as error:
                before, self._unasked = self._unasked, explain(error)
                if self._unasked != before:
                    extra = {"address": f"{address.host}:{address.port}", "reason": self._unasked}
                    _log.error(
                        "cannot answer about health: probes and scrapes reach another program or none", extra=extra
                    )
                await wait(self._stop, RETRY)
            else:
                self._unasked = ""
                _log.info("health", extra={"address": f"{found.host}:{found.port}"})
                return

    async def _end_to_see(self) -> None:
        """End where a running pod's netns is hidden from this container, and would be seen by the next (F41)."""
        socket, mounts = self._settings.agent_socket, self._settings.mounts
        while mounts and not self._told.is_set():  # without, nothing is between the node's mounts and this process
            since = self._pod_repair.hidden_since
            if (
                since is not None
                and self._reconciler.state.installed  # else more pods would start without their redirect
                and would_help(socket, since, self._started, time.time())
                and keep_that_it_ends(socket)
            ):
                _log.warning(
                    "exiting: a running pod needs its redirect, and only a restarted container can see its netns"
                )
                self._told.set()
            await wait(self._told, LOOK_EVERY)

    async def _choose_backend(self) -> None:
        await self._backends.try_all(self._workers, self._orders.settings.redirect_backend)

    async def _pause(self) -> None:
        await wait(self._told, RETRY)

    async def _say_when_ready(self) -> None:
        ready, stop = asyncio.create_task(self._until_ready()), asyncio.create_task(self._told.wait())
        await asyncio.wait((ready, stop), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        stop.cancel()

    async def _until_ready(self) -> None:
        while any(condition.reason for condition in self._conditions()):  # noqa: ASYNC110 - three parts, four causes
            await asyncio.sleep(0.02)
        state = self._reconciler.state
        if state.removed:
            say(f"ready: nothing is installed, as {self._orders.reason}")
            return
        say(
            f"ready: {state.conflist} in {self._settings.cni_conf_dir} has istio-cni, {self._settings.agent_socket} is "
            f"served, {self._pods.count} pods of node {self._settings.node_name} are known"
        )

    def _conditions(self) -> list[Condition]:
        chosen = self._backends.chosen
        return [
            Condition("installed", self._reconciler.state.reason, self._orders.reason),
            Condition("serving", None if self._is_serving() else self._not_serving or NOT_SERVING),
            Condition("redirecting", chosen.unusable, f"by {chosen}"),
            Condition("pods", None if self._pods.known else self._pods.reason),
            Condition("runtime", self._pod_repair.runtime),
        ]

    def _defaults(self) -> Defaults:
        return Defaults(self._orders.settings.inbound_ports_default, self._orders.settings.ipv6)

    def _count_pods(self) -> PodCounts:
        repair = self._pod_repair
        return PodCounts(self._pods.count, repair.redirected or 0, repair.unredirected, repair.unreadable)

    def _look(self) -> Seen:
        return Seen(
            version=release(),
            orders=self._orders,
            node=self._reconciler.state,
            tried=self._backends.tried,
            chosen=self._backends.chosen,
            conditions=self._conditions(),
            redirected=self._pod_repair.redirected,
            repaired=self._pod_repair.repaired,
            unredirected_pods=self._pod_repair.notes,
            unasked=self._unasked,
            unredirected=self._pod_repair.unredirected,
        )

    def _observe(self, outcome: Outcome) -> None:
        of = outcome.command, outcome.outcome, outcome.seconds, outcome.row
        self._metrics.request(
            *of,
            bypassing=outcome.bypassing,
            mismatch=outcome.mismatch,
            families=outcome.families,
            ipv6_off=outcome.ipv6_off,
        )
        self._notices.tell(outcome)
        if (outcome.command, outcome.outcome) == ("ADD", "redirect"):
            self._pod_repair.added(outcome.container_id, outcome.namespace, outcome.pod, outcome.pod_uid or "")
        message = f"{outcome.command or 'request'}: {outcome.outcome}"  # by which lines are counted as alike
        _log.log(
            logging.WARNING if outcome.outcome == "error" else logging.INFO,
            message,
            extra={
                "namespace": outcome.namespace,
                "pod": outcome.pod,
                "container_id": outcome.container_id,
                "reason": outcome.reason,
                "code": outcome.code,
                "seconds": round(outcome.seconds, 6),
            },
        )


def _why(error: Exception) -> str:
    return explain(error) if isinstance(error, OSError) else str(error)


def _pods(settings: Settings) -> KnownPods:
    if settings.pods_from:
        from installer.pods.folder import ManifestPods  # noqa: PLC0415 - as above

        return ManifestPods(settings.pods_from)
    from installer.pods.cluster import NodePods  # noqa: PLC0415

    return NodePods(settings.node_name, settings.kubeconfig)
