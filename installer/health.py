"""Health over HTTP: /healthz (the agent's loop turns), /readyz (the node is ready, or why not), /metrics."""

from collections.abc import Callable, Sequence

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from installer.nodestate import Condition
from installer.settings import HostPort


class Health:
    """The HTTP server."""

    def __init__(self, conditions: Callable[[], Sequence[Condition]], registry: CollectorRegistry) -> None:
        """Wire it.

        Args:
            conditions: what readiness asks for, as it is now.
            registry: what /metrics shows.
        """
        self._conditions = conditions
        self._registry = registry
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self, address: HostPort) -> HostPort:
        """Listen.

        Returns:
            Where it listens: with the port that the kernel chose, if 0 was asked for.

        Raises:
            OSError: if the address is taken, or is none of this node's.
        """
        await self._runner.setup()
        await web.TCPSite(self._runner, address.host, address.port).start()
        return HostPort(*self._runner.addresses[0][:2])

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        conditions = self._conditions()
        ready = all(condition.reason is None for condition in conditions)
        return web.Response(status=200 if ready else 503, text="".join(f"{condition}\n" for condition in conditions))

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
