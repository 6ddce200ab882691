"""The agent's side of the socket: takes requests of clients that are root, in bounded time and size (F29, F32)."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import select
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plugin import wire
from plugin.cni import CniError, Code
from plugin.descriptors import moved_up, room
from plugin.listener import Listener
from plugin.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from plugin.handler import Reply

    Handle = Callable[[bytes, int | None, Callable[[], bool]], Awaitable[Reply | None]]

BACKLOG = 4096  # the kernel may hold fewer
MOST, UNHEARD = (
    1024,
    64,
)  # concurrent requests, each with the descriptors of connection and netns; and silent connections
BUSY = 16  # concurrent requests, from which on each client gets WORKING at once
SLOWEST_REQUEST = 5.0  # seconds for a client to send its request
FIRST_WORD, LATER_WORDS = 0.3, 3.0  # seconds; well below the timeouts of `plugin.client`
_INT = struct.calcsize("i")
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED, unix(7)


class Server:
    """Listens on a Unix socket for the requests of `plugin.client`, one per connection."""

    def __init__(self, path: Path, handle: Handle) -> None:
        self._path = path
        self._handle = handle
        self._listener: Listener | None = None
        self._at = (0, 0)  # device and inode of the socket file
        self._ending: set[asyncio.Task[None]] = set()  # listeners whose socket was deleted
        self._turn = asyncio.Lock()
        self._works: dict[object, _Work] = {}

    @property
    def serving(self) -> bool:
        """Whether clients are answered on the socket that the path means now, which may have been deleted or replaced."""
        if self._listener is None or not self._listener.serving:
            return False
        try:
            seen = self._path.lstat()
        except OSError:
            return False
        return (seen.st_dev, seen.st_ino) == self._at

    async def start(self) -> None:
        """Listen on a socket that only root may write to; recreate one that was deleted or replaced.

        Raises:
            OSError: if it cannot listen on the path.
        """
        self.listen(self.bind())

    def bind(self) -> socket.socket:
        """Put a socket in place, on which `listen` accepts clients. Callable from any thread, as the file system may hang.

        Raises:
            OSError: if it cannot listen on the path.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._bind(listening)
        except OSError:
            listening.close()
            raise
        return listening

    def listen(self, listening: socket.socket) -> None:
        """Accept clients on a socket that is in place, and no more on an earlier one."""
        if self._listener:
            ending = asyncio.create_task(self._listener.stop())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        most = min(MOST, room() // 2)
        unheard = min(UNHEARD, most // 2)  # even with few descriptors, silent connections leave room for requests
        self._listener = Listener(listening, self._serve, most=most, unheard=unheard, at_a_time=most)
        self._listener.start()

    def _bind(self, listening: socket.socket) -> None:
        fresh = self._path.with_name(f".{self._path.name}.new")
        fresh.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listening.bind(os.fspath(fresh))
        finally:
            os.umask(before)
        listening.listen(BACKLOG)
        seen = fresh.lstat()
        fresh.replace(self._path)  # a client sees the old socket or one that answers, never none
        self._at = seen.st_dev, seen.st_ino

    async def stop(self) -> None:
        """Stop accepting, and finish the requests in progress. The path stays: a client waits for the next agent."""
        if self._listener:
            await self._listener.stop()
        if self._ending:
            await asyncio.wait(self._ending)

    async def _serve(self, connection: socket.socket, heard: Callable[[], None]) -> None:
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
            heard()
            await self._take_turn(request)
            await self._answer(request, payload)
        except CniError as error:
            await request.send(wire.RESULT, b"\x01" + error.encode())
        finally:
            request.close()

    async def _take_turn(self, request: _Incoming) -> None:
        """In a burst, send the client WORKING, and accept the others before the work begins.

        A client without an answer for a second tries again, which makes the burst larger.
        """
        if self._listener and self._listener.count >= BUSY:
            await request.send(wire.WORKING)
            async with self._turn:
                await asyncio.sleep(0)

    async def _answer(self, request: _Incoming, payload: bytes) -> None:
        reply = None
        while reply is None:
            work = self._work_for(payload, request.netns)
            work.clients.add(request.connection)
            try:
                await _wait_for(work.task, request)
            finally:
                work.clients.discard(request.connection)
            reply = work.task.result()
            if reply is None and _has_gone(request.connection):
                return
        try:
            with contextlib.suppress(OSError):
                await request.send(wire.RESULT, bytes((reply.status,)) + reply.stdout)
        finally:
            work.record(reply)

    def _work_for(self, payload: bytes, netns: int | None) -> _Work:
        """Begin the work for a request, or join that for the same one: the client may be retrying."""
        key = (payload, netns is not None and _identity(netns))
        if (work := self._works.get(key)) is None:
            clients: set[socket.socket] = set()
            handling = self._handle(payload, netns, lambda: not all(map(_has_gone, [*clients])))
            work = self._works[key] = _Work(asyncio.ensure_future(handling), clients)
            work.task.add_done_callback(lambda _: self._works.pop(key))
        return work


@dataclass(slots=True)
class _Work:
    """The work for one request, and the connections waiting for it."""

    task: asyncio.Future[Reply | None]
    clients: set[socket.socket]
    recorded: bool = False

    def record(self, reply: Reply) -> None:
        """Tell log and metrics of it, once: the first client has its answer by then."""
        if not self.recorded:
            self.recorded = True
            reply.record()


class _Incoming:
    """A request: its bytes as they are received, at most one descriptor, and answers in its version (F31)."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._version = wire.VERSION
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
            WireError: if it is not a valid request.
        """
        await self._until(wire.HEAD)
        kind, length = wire.head(bytes(self._received[: wire.HEAD]), wire.LARGEST_REQUEST, wire.OLDEST)
        self._version = self._received[0]
        if kind != wire.REQUEST:
            raise WireError(f"saw a message of kind {kind}, expected a request ({wire.REQUEST})")
        await self._until(wire.HEAD + length)
        return bytes(self._received[wire.HEAD : wire.HEAD + length])

    async def _until(self, size: int) -> None:
        while len(self._received) < size:
            try:
                data, ancillary, flags, _ = self.connection.recvmsg(
                    65536, socket.CMSG_SPACE(4 * _INT), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                await _readable(self.connection)
                continue
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    sent = array.array("i", content[: len(content) - len(content) % _INT])
                    self._descriptors += map(moved_up, sent)
            if len(self._descriptors) > 1 or flags & socket.MSG_CTRUNC:
                raise WireError("saw several file descriptors with one request, expected the netns alone")
            if not data:
                raise WireError(f"saw {len(self._received)} bytes of a request and then its end, expected {size}")
            self._received += data

    async def send(self, kind: int, payload: bytes = b"") -> None:
        """Send the client a message."""
        await _send(self.connection, wire.frame(kind, payload, self._version))

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


async def _wait_for(work: asyncio.Future[Reply | None], request: _Incoming) -> None:
    """Wait for work, and report WORKING to the client meanwhile."""
    pause = FIRST_WORD
    while not (await asyncio.wait([work], timeout=pause))[0]:
        pause = LATER_WORDS
        with contextlib.suppress(OSError):  # the client gave up; work that has begun is finished anyway
            await request.send(wire.WORKING)


def _has_gone(connection: socket.socket) -> bool:
    """Whether the peer has closed the connection, so that nobody waits for an answer. Callable from any thread."""
    poll = select.poll()
    try:
        poll.register(connection, 0)
    except (OSError, ValueError):  # closed on our side
        return True
    return any(events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, events in poll.poll(0))


def _identity(fd: int) -> tuple[int, int]:
    there = os.fstat(fd)
    return there.st_dev, there.st_ino


def _require_root(connection: socket.socket) -> None:
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(peer)
    if uid != 0:
        raise CniError(
            Code.NOT_ALLOWED,
            f"the agent saw a request of uid {uid} (process {pid}), expected root, which runs the plugin",
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
