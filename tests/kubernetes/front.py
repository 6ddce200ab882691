"""An HTTP server in front of the API server, as a load balancer is, that can answer in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import aiohttp
import yaml
from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType


class Said(NamedTuple):
    """An answer that is not the API server's."""

    status: int
    body: str
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Front:
    """Hands requests on, but for those that `instead` answers: it is given each path."""

    def __init__(self, upstream: str, tls: ssl.SSLContext) -> None:
        """Prepare.

        Args:
            upstream: the API server's URL.
            tls: how it is known.
        """
        self._upstream, self._tls = upstream, tls
        self.instead: Callable[[str], Said | None] = lambda _: None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls))
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        address: Any = self._runner.addresses[0]
        self.url = f"http://127.0.0.1:{address[1]}"
        return self

    def kubeconfig(self, like: Path, path: Path) -> Path:
        """Write a kubeconfig that leads here, with the credentials of another."""
        written = yaml.safe_load(like.read_text())
        written["clusters"][0]["cluster"] = {"server": self.url}
        path.write_text(yaml.safe_dump(written))
        return path

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    def _note(self, request: web.Request, status: int) -> None:
        """Take note of an answer as it begins."""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if said := self.instead(request.path):
            headers = {**dict(said.headers), "Content-Type": said.content_type}
            return web.Response(status=said.status, text=said.body, headers=headers)
        headers = {
            name: request.headers[name]
            for name in ("Authorization", "Accept", "Content-Type")
            if name in request.headers
        }
        given: dict[str, Any] = {"headers": headers, "data": await request.read() or None}
        async with self._session.request(request.method, self._upstream + request.path_qs, **given) as upstream:
            self._note(request, upstream.status)
            kept = {name: upstream.headers[name] for name in ("Content-Type", "Audit-Id") if name in upstream.headers}
            answer = web.StreamResponse(status=upstream.status, headers=kept)
            await answer.prepare(request)
            async for chunk in upstream.content.iter_any():
                await answer.write(chunk)
            return answer
