"""The controller as a process: the leader acts, and exits immediately when it loses leadership."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import uuid
from typing import TYPE_CHECKING

from kubernetes.config import ConfigException

from installer.aio import either
from installer.controller.client import Api, NotLeadingError
from installer.controller.metrics import Metrics
from installer.controller.reconciler import Loop, Options
from installer.controller.watches import Removals, Watches
from installer.documents.depth import read_as_deep_as_the_api_server
from installer.fleet.state import Condition
from installer.kube.lease import Lease, LeaseLostError, connect
from installer.telemetry import logs
from installer.telemetry.health import Health
from installer.version import release
from plugin.pod import ManifestError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from installer.config.value_types import HostPort, LogLevel

LOST = 3  # the exit status after leadership is lost

_log = logging.getLogger(__name__)


def run(options: Options, kubeconfig: Path | None, health_address: HostPort | None, log_level: LogLevel) -> int:
    """Run the controller in the foreground until SIGTERM or SIGINT; return the exit status."""
    read_as_deep_as_the_api_server()
    with logs.to_stderr(log_level):
        try:
            controller = Controller(options, kubeconfig)
        except (ConfigException, ManifestError, OSError) as error:
            _log.error("no credentials for the API server", extra={"reason": str(error), "kubeconfig": str(kubeconfig)})
            return 1
        try:
            return asyncio.run(controller.run(health_address))
        except* NotLeadingError:
            status = controller.lost("a write came too late")
        except* Exception as errors:  # noqa: BLE001 - logged in the format of all lines
            _log.exception("exiting after an error", extra={"reason": _describe(errors)})
            status = 1
        return status


class Controller:
    """One controller and its parts."""

    def __init__(self, options: Options, kubeconfig: Path | None) -> None:
        """Make the parts.

        Raises:
            ConfigException: if there are no credentials.
            ManifestError: if the kubeconfig is invalid or too large.
            OSError: if it cannot be read.
        """
        self._identity = f"{socket.gethostname()}_{uuid.uuid4()}"
        self._lease = Lease(connect(kubeconfig), options.namespace, self._identity)
        self._metrics, removals = Metrics(), Removals()
        self._api = Api(kubeconfig, options.namespace, lambda: self._lease.held)
        self._loop = Loop(self._api, options, removals, self._metrics)
        self._watches = Watches(kubeconfig, options.namespace, self._loop.observe, removals)
        self._health = Health(self._conditions, self._metrics.registry)
        self._stop, self._stop_lease = asyncio.Event(), threading.Event()

    async def run(self, health_address: HostPort | None) -> int:
        """Acquire the lease, act, and release it; return the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        if health_address:
            address = await self._health.start(health_address)
            _log.info("health", extra={"address": f"{address.host}:{address.port}", "release": release()})
        try:
            if await asyncio.to_thread(self._lease.acquire, self._stop_lease):
                self._metrics.leader.set(1)
                await self._lead()
            return 0
        finally:
            await self._api.close()
            await self._health.stop()

    def lost(self, reason: str) -> int:
        """Log that this controller lost its leadership, and return the exit status."""
        _log.error("lost leadership; exiting", extra={"reason": reason, "holder": self._lease.holder})
        return LOST

    async def _lead(self) -> None:
        keepers = [threading.Thread(target=self._keep, args=(how,)) for how in (self._lease.hold, self._lease.run_out)]
        for each in keepers:
            each.start()
        try:
            async with asyncio.TaskGroup() as parts:
                parts.create_task(self._loop.run(self._stop))
                parts.create_task(self._watch())
        finally:
            self._stop_lease.set()
            for each in keepers:
                await asyncio.to_thread(each.join)
        await asyncio.to_thread(self._lease.release)

    async def _watch(self) -> None:
        """Start the watches once all kinds can be listed: kopf would not notice a definition that is added later."""
        await either(self._loop.all_listed, self._stop)
        if not self._stop.is_set():
            await self._watches.run(self._stop)

    def _keep(self, how: Callable[[threading.Event], None]) -> None:
        try:
            how(self._stop_lease)
        except LeaseLostError as error:
            os._exit(self.lost(str(error)))  # immediately, whatever is running: another controller may act from now on
        except Exception:  # noqa: BLE001 - after any error, nothing renews the lease any more
            _log.exception("the lease is no longer renewed; exiting")
            os._exit(LOST)

    def _end(self) -> None:
        self._stop.set()
        if not self._lease.held:
            self._stop_lease.set()

    def _conditions(self) -> list[Condition]:
        if not self._lease.held:
            return [Condition("lease", None, f"{self._lease.holder or 'nobody'} leads; standing by")]
        known = None if self._loop.all_listed.is_set() else "has not listed all objects yet"
        return [Condition("lease", None, "leading"), Condition("known", known)]


def _describe(errors: BaseExceptionGroup[Exception]) -> str:
    """Describe the innermost error."""
    bottom: BaseException = errors
    while isinstance(bottom, BaseExceptionGroup):
        bottom = bottom.exceptions[0]
    return f"{type(bottom).__name__}: {bottom}"
