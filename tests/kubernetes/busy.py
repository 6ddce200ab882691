"""An HTTP server in front of the API server that answers in its place what that does not say when it is wanted to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

REFUSAL = {
    "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "TooManyRequests", "code": 429,
    "message": "too many requests, please try again later",
}  # fmt: skip


class BusyServer:
    """Refuses requests with 429 as long as `refuses` is positive, which it counts down; hands all others on."""

    def __init__(self, upstream: str, tls: ssl.SSLContext, *, refuses: int, retry_after: int) -> None:
        """Prepare.

        Args:
            upstream: the API server's URL.
            tls: how it is known.
            refuses: how many requests are refused first.
            retry_after: seconds for which the refused are told to wait.
        """
        self._upstream, self._tls = upstream, tls
        self._retry_after = retry_after
        self.refuses = refuses
        self.seen: dict[
            tuple[str, str], list[tuple[float, int]]
        ] = {}  # by path and Accept: when, in seconds, and the status
        self.url = ""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls))
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        address: Any = self._runner.addresses[0]
        self.url = f"http://127.0.0.1:{address[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        now = asyncio.get_running_loop().time()
        answers = self.seen.setdefault((request.path, request.headers.get("Accept", "")), [])
        if self.refuses > 0:
            self.refuses -= 1
            answers.append((now, 429))
            return web.json_response(REFUSAL, status=429, headers={"Retry-After": str(self._retry_after)})
        headers = {key: value for key, value in request.headers.items() if key in ("Authorization", "Accept")}
        url = self._upstream + request.path_qs
        async with self._session.get(url, headers=headers) as upstream:
            answers.append((now, upstream.status))
            answer = web.StreamResponse(status=upstream.status, headers={"Content-Type": upstream.content_type})
            await answer.prepare(request)
            async for chunk in upstream.content.iter_any():
                await answer.write(chunk)
            return answer
