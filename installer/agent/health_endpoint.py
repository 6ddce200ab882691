"""Serving the health address: if another program listens there, the agent still serves pods and tries again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from installer.aio import wait
from installer.host.files import explain

if TYPE_CHECKING:
    import asyncio

    from installer.config.value_types import HostPort
    from installer.telemetry.health import Health

RETRY = 1.0  # seconds

_log = logging.getLogger(__name__)


class HealthEndpoint:
    """The health server on its address; `unavailable` holds the reason if it does not listen, and is empty if it does."""

    def __init__(self, health: Health, address: HostPort | None) -> None:
        self._health = health
        self._address = address
        self.unavailable = ""

    async def run(self, stop: asyncio.Event) -> None:
        """Listen as soon as the address is free; do nothing without an address."""
        address = self._address
        while address and not stop.is_set():
            try:
                bound = await self._health.start(address)
            except OSError as error:
                before, self.unavailable = self.unavailable, explain(error)
                if self.unavailable != before:
                    _log.error(
                        "cannot listen on the health address: probes and scrapes reach another program or none",
                        extra={"address": f"{address.host}:{address.port}", "reason": self.unavailable},
                    )
                await wait(stop, RETRY)
            else:
                self.unavailable = ""
                _log.info("health", extra={"address": f"{bound.host}:{bound.port}"})
                return

    async def close(self) -> None:
        """Stop listening."""
        await self._health.stop()
