"""The agent's side of the socket: takes requests of clients that are root, in bounded time and size (F29, F32)."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

from plugin import wire
from plugin.cni import CniError, Code
from plugin.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from plugin.handler import Reply

    Handle = Callable[[bytes, int | None], Awaitable[Reply]]

BACKLOG = 1024
SLOWEST_REQUEST = 5.0  # seconds for a client to send its request
WORKING_EVERY = 0.3  # seconds; well below wire's SILENCE of a client
_INT = struct.calcsize("i")
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED, unix(7)


class Server:
    """Listens on a Unix socket for the requests of `plugin.client`, one a connection."""

    def __init__(self, path: Path, handle: Handle) -> None:
        self._path = path
        self._handle = handle
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def serving(self) -> bool:
        """Whether clients are answered."""
        return self._accepting is not None and not self._accepting.done()

    async def start(self) -> None:
        """Listen, in a directory that root alone may enter, on a socket that root alone may write to.

        Raises:
            OSError: if the path cannot be listened on.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.parent.chmod(0o700)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        fresh = self._path.with_name(f".{self._path.name}.new")
        fresh.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listener.bind(os.fspath(fresh))
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
        fresh.replace(self._path)  # a client sees the old socket or one that answers, never none
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept(listener), name="accept")

    async def stop(self) -> None:
        """Stop accepting, and let what is under way come to its end. The path stays: a client waits for the next agent."""
        if self._accepting:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
        if self._listener:
            self._listener.close()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED):
                    raise
                await asyncio.sleep(0.05)  # out of descriptors for a moment: the backlog holds the others
                continue
            task = asyncio.create_task(self._serve(connection))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):
            request = _Incoming(connection)
            try:
                try:
                    _require_root(connection)
                    async with asyncio.timeout(SLOWEST_REQUEST):
                        payload = await request.receive()
                except TimeoutError:
                    raise CniError(
                        Code.IO_FAILURE,
                        f"the agent saw {request.size} bytes of a request in {SLOWEST_REQUEST:.0f} s, expected all of it",
                    ) from None
                except WireError as error:
                    raise CniError(Code.DECODING_FAILURE, str(error)) from error
                await self._answer(connection, payload, request.netns)
            except CniError as error:
                await _send(connection, wire.frame(wire.RESULT, b"\x01" + error.encode()))
            finally:
                request.close()

    async def _answer(self, connection: socket.socket, payload: bytes, netns: int | None) -> None:
        work = asyncio.ensure_future(self._handle(payload, netns))
        while not (await asyncio.wait([work], timeout=WORKING_EVERY))[0]:
            with contextlib.suppress(ConnectionError):  # the client gave up; the work is finished all the same
                await _send(connection, wire.frame(wire.WORKING, b""))
        reply = work.result()
        with contextlib.suppress(ConnectionError):
            await _send(connection, wire.frame(wire.RESULT, bytes((reply.status,)) + reply.stdout))


class _Incoming:
    """A request as it comes in: its bytes and the one descriptor that may come with them."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()
        self._descriptors: list[int] = []

    @property
    def size(self) -> int:
        return len(self._received)

    @property
    def netns(self) -> int | None:
        return self._descriptors[0] if self._descriptors else None

    async def receive(self) -> bytes:
        """Receive one REQUEST.

        Raises:
            WireError: if it is none.
        """
        await self._until(wire.HEAD)
        kind, length = wire.head(bytes(self._received[: wire.HEAD]), wire.LARGEST_REQUEST)
        if kind != wire.REQUEST:
            raise WireError(f"saw a message of kind {kind}, expected a request ({wire.REQUEST})")
        await self._until(wire.HEAD + length)
        return bytes(self._received[wire.HEAD : wire.HEAD + length])

    async def _until(self, size: int) -> None:
        while len(self._received) < size:
            try:
                data, ancillary, flags, _ = self._connection.recvmsg(
                    65536, socket.CMSG_SPACE(4 * _INT), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                await _readable(self._connection)
                continue
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    self._descriptors += array.array("i", content[: len(content) - len(content) % _INT])
            if len(self._descriptors) > 1 or flags & socket.MSG_CTRUNC:
                raise WireError("saw several file descriptors with one request, expected the netns alone")
            if not data:
                raise WireError(f"saw {len(self._received)} bytes of a request and then its end, expected {size}")
            self._received += data

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


def _require_root(connection: socket.socket) -> None:
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(peer)
    if uid != 0:
        raise CniError(
            Code.NOT_ALLOWED,
            f"the agent saw a request of uid {uid} (process {pid}), expected root: the runtime asks it",
        )


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _send(connection: socket.socket, data: bytes) -> None:
    try:
        async with asyncio.timeout(SLOWEST_REQUEST):
            await asyncio.get_running_loop().sock_sendall(connection, data)
    except TimeoutError as error:
        raise ConnectionAbortedError("the client does not read its answer") from error
