"""A TCP proxy on loopback in front of the API server, to cut what goes through it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Proxy:
    """Hands bytes on in both directions until they are cut."""

    def __init__(self, upstream: int) -> None:
        """Prepare.

        Args:
            upstream: the port on loopback that connections are handed on to.
        """
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self) -> None:
        """Take connections, on the same port each time."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Take no more connections, and cut those that there are."""
        if self._server:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks)

    def cut(self) -> None:
        """Cut all connections, as a firewall that forgets them does; new ones are taken."""
        for connection in self._connections:
            connection.transport.abort()

    def freeze(self) -> None:
        """Hand nothing on any more for the connections that there are, and do not tell; new ones are taken."""
        for connection in self._connections:
            connection.transport.pause_reading()  # type: ignore[attr-defined] # of a TCP transport

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, up_writer}
        self._connections |= both
        await asyncio.gather(_hand_on(reader, up_writer), _hand_on(up_reader, writer))
        self._connections -= both

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # it was cut
    finally:
        writer.close()
