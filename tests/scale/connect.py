"""How a simulated agent reaches the API server, and what all of them together have sent and received."""

from __future__ import annotations

import functools
import json
import socket
import struct
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp

from installer.kube.api_error import Answer, ApiError
from installer.kube.client import CONNECTIONS, ApiClient, Request

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

_TCP_INFO_SIZE = 136
_ACKED, _RECEIVED = 120, 128  # offsets in the kernel's struct tcp_info, 64 bits each


@dataclass
class Tally:
    """What has been seen until now.

    Args:
        times: when each request was sent, in seconds of the monotonic clock.
        answers: by status.
        again: what made a client ask again, by what it was.
        watches: that are open, by path.
        events: by path and type; `event_bytes` the size of their JSON.
        live: sockets that are open.
        connections: how many were made.
    """

    times: list[float] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    watches: Counter[str] = field(default_factory=Counter)
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    event_bytes: Counter[tuple[str, str]] = field(default_factory=Counter)
    live: set[CountedSocket] = field(default_factory=set)
    connections: int = 0
    _sent: int = 0
    _received: int = 0

    def asked(self) -> None:
        """Note that a request is sent now."""
        self.times.append(time.monotonic())

    def carried(self) -> tuple[int, int]:
        """Return the bytes that were sent and received over TCP: requests, answers, TLS."""
        live = [each.carried() for each in self.live]
        return self._sent + sum(sent for sent, _ in live), self._received + sum(received for _, received in live)

    def cut(self) -> None:
        """Cut all connections, as a load balancer does that goes away."""
        for each in [*self.live]:
            with suppress(OSError):  # it is just being closed
                each.shutdown(socket.SHUT_RDWR)

    def closed(self, sent: int, received: int) -> None:
        """Note what a socket has carried that is being closed."""
        self._sent += sent
        self._received += received


class CountedSocket(socket.socket):
    """A TCP socket that tells what it has carried."""

    def __init__(self, family: int, kind: int, protocol: int, tally: Tally) -> None:
        super().__init__(family, kind, protocol)
        self._tally = tally
        tally.connections += 1
        tally.live.add(self)

    def carried(self) -> tuple[int, int]:
        """Return the bytes sent (and acknowledged) and received."""
        info = self.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        (sent,), (received,) = struct.unpack_from("Q", info, _ACKED), struct.unpack_from("Q", info, _RECEIVED)
        return sent, received

    def close(self) -> None:
        """Close it, and hand over what it has carried."""
        if self in self._tally.live:
            self._tally.live.discard(self)
            self._tally.closed(*self.carried())
        super().close()


@dataclass(frozen=True)
class Client:
    """The credentials of one agent.

    Args:
        url: of the API server.
        tls: how it is known; one for all agents, as it costs memory.
        token: the agent's.
        tally: what counts.
    """

    url: str
    tls: ssl.SSLContext
    token: str
    tally: Tally

    def session(self, *, limit: int, patience: float | None = None) -> aiohttp.ClientSession:
        """Make a session of its own connections: at most `limit` at once, 0 for any number."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=limit, ssl=self.tls, socket_factory=functools.partial(_socket, tally=self.tally)
            ),
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=aiohttp.ClientTimeout(total=patience),
        )


class Api(ApiClient):
    """The agent's own way of asking, with a token at hand instead of a kubeconfig that is read each time."""

    def __init__(self, client: Client, written: Callable[[str, Mapping[str, Any]], None] = lambda *_: None) -> None:
        """Prepare; `written` is told path and body of what was written."""
        super().__init__(None)
        self._client = client
        self._written = written

    async def _request(self, asked: Request) -> Any:
        tally = self._client.tally
        tally.asked()
        self._session = self._session or self._client.session(limit=CONNECTIONS)
        limit, url = aiohttp.ClientTimeout(total=asked.patience), self._client.url + asked.path
        given: dict[str, Any] = {"params": asked.query, "headers": asked.headers, "data": asked.data}
        try:
            async with self._session.request(asked.method, url, **given, timeout=limit) as answer:
                tally.answers[answer.status] += 1
                if answer.status >= 300:
                    if answer.status != 404:
                        tally.again[str(answer.status)] += 1
                    text = await answer.text()
                    raise Answer(answer.status, answer.headers, text).error(self._client.url, asked.path)
                if asked.data is not None:
                    self._written(asked.path, json.loads(asked.data))
                return await answer.json()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            tally.again[type(error).__name__] += 1
            raise ApiError(f"{asked.path}: {error!r}") from error


def _socket(address: Any, tally: Tally) -> CountedSocket:
    family, kind, protocol, *_ = address
    return CountedSocket(family, kind, protocol, tally)
