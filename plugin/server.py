"""The agent's side of the socket: takes requests of clients that are root, in bounded time and size (F29, F32)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from plugin.cni import CniError, Code
from plugin.descriptors import room
from plugin.incoming import SLOWEST_REQUEST, Incoming
from plugin.listener import Listener
from plugin.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from plugin.handler import Reply, Waiting

    Handle = Callable[[bytes, int | None, Waiting], Awaitable[Reply | None]]

BACKLOG = 4096  # the kernel may hold fewer
MOST, UNHEARD = (
    1024,
    64,
)  # concurrent requests, each with the descriptors of connection and netns; and silent connections
BUSY = 16  # concurrent connections, from which on each client gets WORKING at once
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
        request = Incoming(connection)
        try:
            try:
                _require_root(connection)
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
            await request.answer(1, error.encode())
        finally:
            request.close()

    async def _take_turn(self, request: Incoming) -> None:
        """In a burst, send the client WORKING, and accept the others before the work begins.

        A client without an answer for a second tries again, which makes the burst larger.
        """
        if self._listener and self._listener.count >= BUSY:
            await request.say_working()
            async with self._turn:
                await asyncio.sleep(0)

    async def _answer(self, request: Incoming, payload: bytes) -> None:
        reply = None
        request.keep_client_waiting()
        while reply is None:
            work = await self._work(request, payload)
            reply = work.reply.result()
            if reply is None and _has_gone(request.connection):
                return
        try:
            with contextlib.suppress(OSError):
                await request.answer(reply.status, reply.stdout)
        finally:
            work.record(reply)

    async def _work(self, request: Incoming, payload: bytes) -> _Work:
        """Do the work for a request, or wait for that for the same one: the client may be retrying."""
        key = (payload, request.netns is not None and _identity(request.netns))
        if work := self._works.get(key):
            work.clients.add(request)
            try:
                await asyncio.wait([work.reply])
            finally:
                work.clients.discard(request)
            return work
        work = self._works[key] = _Work(asyncio.get_running_loop().create_future(), {request})
        try:
            work.reply.set_result(await self._handle(payload, request.netns, work))
        finally:
            work.reply.cancel()  # if it has failed: those who wait for it fail, too
            del self._works[key]
        return work


@dataclass(slots=True)
class _Work:
    """The work for one request, which goes on when its client has gone, and the clients waiting for it: `Waiting`."""

    reply: asyncio.Future[Reply | None]
    clients: set[Incoming]
    recorded: bool = False

    def is_wanted(self) -> bool:
        """Return whether one still waits, as `Waiting` specifies."""
        return not all(_has_gone(each.connection) for each in [*self.clients])

    def answer(self, status: int, stdout: bytes) -> None:
        """Answer them, as `Waiting` specifies."""
        for each in [*self.clients]:
            each.answer_at_once(status, stdout)

    def record(self, reply: Reply) -> None:
        """Tell log and metrics of it, once: the first client has its answer by then."""
        if not self.recorded:
            self.recorded = True
            reply.record()


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
