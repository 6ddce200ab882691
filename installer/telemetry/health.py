"""Health over HTTP: /healthz (the event loop runs), /readyz (whether the node is ready, and why not), /metrics.

Every program on the node may connect, and others with a setting. So it accepts one request per connection, of some kilobytes
and within a few seconds, and a bounded number of connections; the oldest without a request yields to the next (F37). A probe
sends its whole request at once: the kernel holds a connection back until it has sent something (TCP_DEFER_ACCEPT, tcp(7)),
and a complete request is answered before any other connection is handled.

No library does that: aiohttp and uvicorn build on asyncio's servers, which accept connections without bound and, out of
descriptors, log a traceback per turn; uvicorn's limit answers 503 to probes too; http.server uses a thread per connection.
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from installer.config.value_types import HostPort
from installer.telemetry.prometheus import CONTENT_TYPE_LATEST, generate_latest
from plugin.descriptors import room
from plugin.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from installer.fleet.state import Condition
    from installer.telemetry.prometheus import CollectorRegistry

MOST = 128  # connections, or a quarter of the available descriptors
BACKLOG = 4096  # connections queued in the kernel, which may hold fewer
AT_A_TIME = 16  # connections accepted per turn of the loop
SLOWEST = 3.0  # seconds from the connection to the end of the answer
LARGEST = 8192  # bytes of a request and anything after it
CROWD, METRICS_FOR = 4, 1.0  # from that many concurrent connections on, metrics may be that many seconds old

_TEXT = "text/plain; charset=utf-8"
_REQUEST = re.compile(rb"(GET|HEAD) (/[^ ?\r\n]*)(?:\?[^ \r\n]*)? HTTP/1\.[01]\r?\n")
_END = re.compile(rb"\r?\n\r?\n")


class _Answer(NamedTuple):
    status: HTTPStatus
    body: bytes
    kind: str = _TEXT

    def encode(self, *, head_alone: bool) -> bytes:
        lines = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Type: {self.kind}",
            f"Content-Length: {len(self.body)}",
            "Connection: close",
        )
        head = "".join(line + "\r\n" for line in (*lines, "")).encode()
        return head if head_alone else head + self.body


class Health:
    """The HTTP server."""

    def __init__(self, conditions: Callable[[], Sequence[Condition]], registry: CollectorRegistry) -> None:
        """Prepare; `start` listens. `conditions` returns the current readiness conditions."""
        self._conditions = conditions
        self._registry = registry
        self._listener: Listener | None = None
        self._shown = b"", float("-inf")  # the cached metrics, and when they were generated

    async def start(self, address: HostPort) -> HostPort:
        """Listen; on an address without a host: on all addresses, of both families.

        Returns:
            The address, with the port that the kernel chose if 0 was given.

        Raises:
            OSError: if the address is in use, or does not belong to this node.
        """
        host = address.host or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")  # noqa: S104 - the pod's own network
        found = await asyncio.get_running_loop().getaddrinfo(
            host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, where = found[0]
        listening = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        try:
            if not address.host and family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, math.ceil(SLOWEST))
            listening.bind(where)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
        most = min(MOST, room() // 4)
        self._listener = Listener(listening, self._serve, most=most + 1, unheard=most, at_a_time=AT_A_TIME)
        self._listener.start()
        return HostPort(*listening.getsockname()[:2])

    async def stop(self) -> None:
        """Stop listening."""
        if self._listener:
            await self._listener.stop()

    async def _serve(self, connection: socket.socket, heard: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(SLOWEST):
                received = b""
                while not _END.search(received) and len(received) <= LARGEST:
                    if not (chunk := await loop.sock_recv(connection, LARGEST)):
                        return
                    received += chunk
                heard()
                await loop.sock_sendall(connection, self._answer(received))
                connection.shutdown(socket.SHUT_WR)
                connection.recv(LARGEST)  # with unread bytes the kernel would reset the connection and lose the answer
        except (TimeoutError, OSError):
            return  # the client has gone, or is too slow

    def _answer(self, received: bytes) -> bytes:
        if len(received) > LARGEST:
            answer = _Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"")
            return answer.encode(head_alone=False)
        if not (request := _REQUEST.match(received)):
            return _Answer(HTTPStatus.BAD_REQUEST, b"expected GET or HEAD, in HTTP/1\n").encode(head_alone=False)
        method, path = request.groups()
        return self._page(path).encode(head_alone=method == b"HEAD")

    def _page(self, path: bytes) -> _Answer:
        match path:
            case b"/healthz":
                return _Answer(HTTPStatus.OK, b"ok\n")
            case b"/readyz":
                conditions = self._conditions()
                ready = all(condition.reason is None for condition in conditions)
                text = "".join(f"{condition}\n" for condition in conditions).encode(errors="backslashreplace")
                return _Answer(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, text)
            case b"/metrics":
                return _Answer(HTTPStatus.OK, self._metrics(), CONTENT_TYPE_LATEST)
            case _:
                return _Answer(HTTPStatus.NOT_FOUND, b"expected /healthz, /readyz or /metrics\n")

    def _metrics(self) -> bytes:
        """Generate the metrics; concurrent scrapes share a copy, as it takes milliseconds that pods would wait for."""
        now = asyncio.get_running_loop().time()
        crowded = self._listener is not None and self._listener.count >= CROWD
        if not crowded or now >= self._shown[1] + METRICS_FOR:
            self._shown = generate_latest(self._registry), now
        return self._shown[0]
