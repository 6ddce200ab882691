"""Netlink sockets to the kernel of the current thread's netns, on which nobody else can answer (F45).

Any process with NET_ADMIN in a netns, such as a pod's, may send to any netlink socket there (netlink(7)). A socket that is
connected to the kernel refuses these messages; those that arrived before are dropped, and what does not parse is an error.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

KERNEL = 0  # its port id; a process' socket never has it
NLMSG_ERROR, NLMSG_DONE = 2, 3
REQUEST, ACK, DUMP, EXCL, CREATE, APPEND = 0x1, 0x4, 0x300, 0x200, 0x400, 0x800
DUMP_INTERRUPTED = 0x10
HEADER = struct.Struct("IHHII")  # struct nlmsghdr: length, kind, flags, sequence number, port id
CODE = struct.Struct("i")
RECEIVED = 1 << 16  # bytes; a dump arrives in pieces of at most half of that, each produced on request
MOST_FOREIGN = 4096  # dropped messages: more than the kernel queues for a socket
LONGEST = struct.pack("ll", 5, 0)  # seconds and microseconds for an answer; the kernel gives it at once


class Message(NamedTuple):
    """A message from or to the kernel: NEW…, GET… or DEL…, and its body, which begins with a struct of its protocol."""

    kind: int
    body: bytes
    flags: int = 0
    sequence: int = 1

    def encode(self) -> bytes:
        """Prepend the header."""
        return HEADER.pack(HEADER.size + len(self.body), self.kind, self.flags, self.sequence, 0) + self.body

    @property
    def code(self) -> int:
        """The errno of an NLMSG_ERROR or NLMSG_DONE; 0 for success, EPROTO for any other kind of message."""
        if self.kind not in (NLMSG_ERROR, NLMSG_DONE) or len(self.body) < CODE.size:
            return errno.EPROTO
        code: int = CODE.unpack_from(self.body)[0]
        return -code


class Netlink:
    """A netlink socket for one netns, that of the thread that opened it."""

    def __init__(self, protocol: int) -> None:
        """Open it.

        Args:
            protocol: a NETLINK_… number.

        Raises:
            OSError: if the kernel lacks the protocol.
        """
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, LONGEST)
            self._socket.connect((KERNEL, 0))
        except OSError:
            self._socket.close()
            raise
        self._foreign = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it, and discard an unfinished dump; idempotent."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send a message or a transaction; the kernel has carried it out, and queued its answers, when this returns.

        Raises:
            OSError: if the kernel does not take it.
        """
        self._socket.send(data)

    def answer(self) -> Message:
        """Receive the answer to a request that has a single one.

        Raises:
            OSError: as for `messages`.
        """
        return self.messages()[0]

    def messages(self, flags: int = 0) -> list[Message]:
        """Receive once: at least one message.

        Raises:
            OSError: if there is none in time, or what arrived is not netlink.
        """
        received, at, found = self._receive(flags), 0, list[Message]()
        while at < len(received) or not found:
            left = len(received) - at
            if left < HEADER.size:
                raise _malformed(f"saw {left} bytes, expected a header of {HEADER.size}")
            length, kind, marks, sequence, _ = HEADER.unpack_from(received, at)
            if not HEADER.size <= length <= left:
                raise _malformed(f"saw a length of {length} bytes, expected {HEADER.size} to {left}")
            found.append(Message(kind, received[at + HEADER.size : at + length], marks, sequence))
            at += aligned(length)
        return found

    def dump(self, kind: int, body: bytes, doing: str, *, ignored: int = 0) -> Iterator[Message]:
        """Iterate over what the kernel lists.

        Args:
            kind: GET….
            body: selects what is listed.
            doing: describes it in an error.
            ignored: flags of an answer that are no error, such as DUMP_INTERRUPTED.

        Raises:
            OSError: if the kernel returns an error; EINTR if something changed meanwhile, so that the list may be inconsistent.
        """
        self.send(Message(kind, body, REQUEST | DUMP).encode())
        while True:
            for message in self.messages():
                if message.flags & DUMP_INTERRUPTED & ~ignored:
                    raise InterruptedError(errno.EINTR, f"{doing}: they changed meanwhile")
                if message.kind == NLMSG_DONE and not message.code:
                    return
                if message.kind in (NLMSG_ERROR, NLMSG_DONE):
                    raise OSError(message.code, f"{doing}: {os.strerror(message.code)}")
                yield message

    def _receive(self, flags: int) -> bytes:
        """Receive from the kernel, and drop what others sent before this socket refused it."""
        while self._foreign <= MOST_FOREIGN:
            received, (sender, _) = self._socket.recvfrom(RECEIVED, flags)
            if sender == KERNEL:
                return received
            self._foreign += 1
        raise _malformed(f"saw more than {MOST_FOREIGN} messages of others, expected only the kernel's")


def aligned(length: int) -> int:
    """Round up to the start of the next message or attribute."""
    return (length + 3) & ~3


def _malformed(seen: str) -> OSError:
    return OSError(errno.EPROTO, f"reading netlink: {seen}")
