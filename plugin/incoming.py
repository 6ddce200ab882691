"""A request of a client on its connection: received in bounded time, and answered in its version (F31, F32)."""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
import threading
from contextlib import suppress

from plugin import wire
from plugin.cni import CniError, Code
from plugin.descriptors import moved_up
from plugin.wire import WireError

SLOWEST_REQUEST = 5.0  # seconds for a client to send its request, and to read its answer
FIRST_WORD, LATER_WORDS = 0.3, 3.0  # seconds; well below the timeouts of `plugin.client`
_INT = struct.calcsize("i")


class Incoming:
    """A request: its bytes as they are received, at most one descriptor, and answers in its version (F31)."""

    def __init__(self, connection: socket.socket) -> None:
        """Prepare to receive it on a connection that does not block."""
        self.connection = connection
        self._version = wire.VERSION
        self._received = bytearray()
        self._descriptors: list[int] = []
        self._next_word: asyncio.TimerHandle | None = None
        self._sending = threading.Lock()
        self._rest: bytes | None = None  # of an answer of which something was sent
        self._loop_alone_sends = False

    @property
    def size(self) -> int:
        """The bytes of it that have arrived."""
        return len(self._received)

    @property
    def netns(self) -> int | None:
        """The descriptor that came with it."""
        return self._descriptors[0] if self._descriptors else None

    async def receive(self) -> bytes:
        """Receive one REQUEST.

        Raises:
            WireError: if it is not a valid request.
            CniError: code 11, if there is no descriptor for the netns that comes with it.
            TimeoutError: if it has not come within `SLOWEST_REQUEST`.
        """
        if (payload := self._take()) is not None:
            return payload
        async with asyncio.timeout(SLOWEST_REQUEST):
            while (payload := self._take()) is None:
                await _readable(self.connection)
        return payload

    def _take(self) -> bytes | None:
        """Take what has arrived; return the payload once it is there, None before."""
        while len(self._received) < (size := self._whole_size()):
            try:
                data, ancillary, flags, _ = self.connection.recvmsg(
                    65536, socket.CMSG_SPACE(4 * _INT), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return None
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    sent = array.array("i", content[: len(content) - len(content) % _INT])
                    self._descriptors += map(moved_up, sent)
            if flags & socket.MSG_CTRUNC and not self._descriptors:
                raise CniError(
                    Code.TRY_AGAIN_LATER,
                    "the agent has no free file descriptor for the pod's network namespace, so the pod is not started yet; the "
                    "runtime tries again",
                )
            if len(self._descriptors) > 1 or flags & socket.MSG_CTRUNC:
                raise WireError("saw several file descriptors with one request, expected the netns alone")
            if not data:
                raise WireError(f"saw {len(self._received)} bytes of a request and then its end, expected {size}")
            self._received += data
        return bytes(self._received[wire.HEAD : size])

    def _whole_size(self) -> int:
        """Return the bytes of the whole request, or those of its header until that is there."""
        if len(self._received) < wire.HEAD:
            return wire.HEAD
        kind, length = wire.head(bytes(self._received[: wire.HEAD]), wire.LARGEST_REQUEST, wire.OLDEST)
        self._version = self._received[0]
        if kind != wire.REQUEST:
            raise WireError(f"saw a message of kind {kind}, expected a request ({wire.REQUEST})")
        return wire.HEAD + length

    def keep_client_waiting(self) -> None:
        """Send WORKING now and then, until `answer` or `close`."""
        self._next_word = asyncio.get_running_loop().call_later(FIRST_WORD, self._send_word)

    def _send_word(self) -> None:
        with self._sending, suppress(OSError):  # the client gave up; work that has begun is finished anyway
            if self._rest is None:
                self.connection.send(wire.frame(wire.WORKING, b"", self._version))
        self._next_word = asyncio.get_running_loop().call_later(LATER_WORDS, self._send_word)

    async def say_working(self) -> None:
        """Send WORKING now."""
        await _send(self.connection, wire.frame(wire.WORKING, b"", self._version))

    def answer_at_once(self, status: int, stdout: bytes) -> None:
        """Answer, as far as that does not have to wait; `answer` does the rest. Callable from any thread."""
        message = self._result(status, stdout)
        with self._sending, suppress(OSError):
            if self._rest is None and not self._loop_alone_sends:
                self._rest = message[self.connection.send(message) :]

    async def answer(self, status: int, stdout: bytes) -> None:
        """Answer, or finish the answer that has begun.

        Raises:
            OSError: if the client has gone, or does not read for `SLOWEST_REQUEST`.
        """
        self._leave_to_loop()
        if rest := self._result(status, stdout) if self._rest is None else self._rest:
            await _send(self.connection, rest)

    def _result(self, status: int, stdout: bytes) -> bytes:
        return wire.frame(wire.RESULT, bytes((status,)) + stdout, self._version)

    def close(self) -> None:
        """Send nothing any more, and close what came with it; the listener closes the connection."""
        self._leave_to_loop()
        for descriptor in self._descriptors:
            os.close(descriptor)

    def _leave_to_loop(self) -> None:
        """Have no timer and no other thread send anything any more."""
        if self._next_word:
            self._next_word.cancel()
        with self._sending:
            self._loop_alone_sends = True


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
        sent = connection.send(data)
    except BlockingIOError:
        sent = 0
    if sent == len(data):
        return
    try:
        async with asyncio.timeout(SLOWEST_REQUEST):
            await asyncio.get_running_loop().sock_sendall(connection, data[sent:])
    except TimeoutError as error:
        raise ConnectionAbortedError("the client does not read its answer") from error
