"""An HTTP server in front of the API server that refuses requests in its place."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from tests.kubernetes.front import Front

if TYPE_CHECKING:
    import ssl

REFUSAL = {
    "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "TooManyRequests", "code": 429,
    "message": "too many requests, please try again later",
}  # fmt: skip


class BusyServer(Front):
    """Refuses requests with 429 as long as `refuses` is positive, which it counts down; hands all others on."""

    def __init__(self, upstream: str, tls: ssl.SSLContext, *, refuses: int, retry_after: int) -> None:
        """Prepare; the refused are told to wait `retry_after` seconds."""
        super().__init__(upstream, tls)
        self._retry_after = retry_after
        self.refuses = refuses
        self.seen: dict[tuple[str, str], list[tuple[float, int]]] = {}  # by path and Accept: seconds, and the status

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.refuses <= 0:
            return await super()._answer(request)
        self.refuses -= 1
        self._note(request, 429)
        return web.json_response(REFUSAL, status=429, headers={"Retry-After": str(self._retry_after)})

    def _note(self, request: web.Request, status: int) -> None:
        answers = self.seen.setdefault((request.path, request.headers.get("Accept", "")), [])
        answers.append((asyncio.get_running_loop().time(), status))
