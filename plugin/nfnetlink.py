"""The nf_tables of the current thread's netns, through nfnetlink: lookups by name, bounded dumps, and batches (F37).

A pod with NET_ADMIN decides how much is in its netns. libnftables reads all of it, in one call that cannot be interrupted.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple, Self

from plugin.redirect import Family
from plugin.rtnetlink import ACK, CREATE, DUMP, HEADER, NLMSG_DONE, NLMSG_ERROR, REQUEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

NETLINK_NETFILTER = 12
NFNL_SUBSYS_NFTABLES = 10
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, NEWRULE, GETRULE = (  # linux/netfilter/nf_tables.h
    NFNL_SUBSYS_NFTABLES << 8 | number for number in (0, 1, 2, 3, 4, 6, 7)
)
BATCH_BEGIN, BATCH_END = 16, 17  # linux/netfilter/nfnetlink.h
NFTA_TABLE_NAME = NFTA_CHAIN_TABLE = NFTA_RULE_TABLE = 1
NFTA_CHAIN_NAME = 3
NFPROTO_UNSPEC, NFPROTO_INET = 0, 1  # of all families; IPv4 and IPv6 in one
NFPROTO: Mapping[Family, int] = {Family.V4: 2, Family.V6: 10}
GENERIC_HEADER = 4  # bytes of struct nfgenmsg
RECEIVED = 1 << 16  # bytes; a dump arrives in pieces of at most half of that, each produced on request
APPEND, DUMP_INTERRUPTED, NESTED = 0x800, 0x10, 0x8000  # netlink(7)
LAST = 2  # the sequence number of a batch's last message, which alone is acknowledged

# What a kernel without nf_tables says.
_ABSENT = (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP)


def is_there() -> bool:
    """Return whether this kernel has netfilter's netlink: without it there are no nftables rules."""
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER).close()
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise
    return True


class TooManyError(Exception):
    """A netns holds more than is examined; the message says what and how many."""


class Message(NamedTuple):
    """A message from or to the kernel: NEW…, GET… or DEL…, and its body, which begins with struct nfgenmsg."""

    kind: int
    body: bytes


class Nfnetlink:
    """A netlink socket for one netns, that of the thread that opened it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it; idempotent. After a change this takes 7 to 20 ms in the kernel: answer the runtime first (D4)."""
        self._socket.close()

    def has_chain(self, family: Family, table: str, chain: str) -> bool:
        """Return whether a chain exists; the kernel finds it by its hash, however many there are.

        Raises:
            OSError: if the kernel returns an error.
        """
        names = string(NFTA_CHAIN_TABLE, table) + string(NFTA_CHAIN_NAME, chain)
        self._send(GETCHAIN, REQUEST, NFPROTO[family], names)
        answer, _, _ = next(self._messages())
        if answer.kind != NLMSG_ERROR:
            return True
        code = _code(answer.body)
        if code in (errno.ENOENT, *_ABSENT):
            return False
        raise OSError(code, f"looking for chain {chain}: {os.strerror(code)}")

    def tables(self, most: int) -> Iterator[tuple[tuple[Family, ...], str]]:
        """List the tables of all families, each with the families it covers; errors as for `chains`."""
        return self._names(GETTABLE, NFTA_TABLE_NAME, most, "tables")

    def chains(self, most: int) -> Iterator[tuple[tuple[Family, ...], str]]:
        """List the chains of all tables, each with the families it covers.

        Args:
            most: the largest number to read.

        Raises:
            TooManyError: if there are more.
            OSError: if the kernel returns an error.
        """
        return self._names(GETCHAIN, NFTA_CHAIN_NAME, most, "chains")

    def dump(self, question: int, family: int = NFPROTO_UNSPEC, limits: bytes = b"") -> Iterator[Message]:
        """Iterate over a dump of the kernel. Closing the socket discards an unfinished one.

        Args:
            question: GETTABLE, GETCHAIN or GETRULE.
            family: by its NFPROTO number.
            limits: filter attributes; the rules of one table are selected by its family and name.

        Raises:
            OSError: if the kernel returns an error; EINTR if something changed meanwhile, so that the dump may be inconsistent.
        """
        self._send(question, REQUEST | DUMP, family, limits)
        while True:
            for message, flags, _ in self._messages():
                if flags & DUMP_INTERRUPTED:
                    raise InterruptedError(errno.EINTR, "listing nftables: they changed meanwhile")
                if message.kind == NLMSG_DONE:
                    return
                if message.kind == NLMSG_ERROR:
                    code = _code(message.body)
                    raise OSError(code, f"listing nftables: {os.strerror(code)}")
                yield message

    def commit(self, batch: bytes) -> None:
        """Send a transaction made by `batch`: the kernel applies all of it or nothing.

        Raises:
            OSError: the first refusal, without the refused message: libnftables names its line.
        """
        self._socket.send(batch)  # the kernel has applied it, and queued its answers, when this returns
        acknowledged = False
        while not acknowledged:
            for message, _, sequence in self._messages(socket.MSG_DONTWAIT):
                code = _code(message.body) if message.kind == NLMSG_ERROR else errno.EPROTO
                if code:
                    raise OSError(code, f"writing nftables: {os.strerror(code)}")
                acknowledged = acknowledged or sequence == LAST

    def _names(self, question: int, attribute: int, most: int, what: str) -> Iterator[tuple[tuple[Family, ...], str]]:
        try:
            for count, message in enumerate(self.dump(question)):
                if count == most:
                    raise TooManyError(f"it holds more than {most} nftables {what}")
                body = message.body
                about = tuple(each for each, number in NFPROTO.items() if body[0] in (number, NFPROTO_INET))
                yield about, text(body, attribute)
        except InterruptedError:
            raise
        except OSError as error:
            if error.errno not in _ABSENT:
                raise

    def _send(self, kind: int, flags: int, family: int, attributes: bytes = b"") -> None:
        self._socket.send(_encoded(kind, flags, struct.pack("BBH", family, 0, 0) + attributes))

    def _messages(self, flags: int = 0) -> Iterator[tuple[Message, int, int]]:
        """Receive once: return the messages, each with its flags and sequence number."""
        received = self._socket.recv(RECEIVED, flags)
        while received:
            length, kind, marks, sequence = struct.unpack_from("IHHI", received)
            yield Message(kind, received[HEADER:length]), marks, sequence
            received = received[aligned(length) :]


def batch(messages: Sequence[Message]) -> bytes:
    """Build a transaction of messages."""
    begin = struct.pack(">BBH", 0, 0, NFNL_SUBSYS_NFTABLES)
    *most, last = messages
    flags = {NEWTABLE: CREATE, NEWCHAIN: CREATE, NEWRULE: CREATE | APPEND}
    parts = [_encoded(BATCH_BEGIN, REQUEST, begin)]
    parts += [_encoded(kind, REQUEST | flags.get(kind, 0), body) for kind, body in most]
    parts.append(_encoded(last.kind, REQUEST | ACK | flags.get(last.kind, 0), last.body, LAST))
    parts.append(_encoded(BATCH_END, REQUEST, begin))
    return b"".join(parts)


def attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Iterate over the attributes of a message body: the type of each, and its bytes with header and padding."""
    data = body[GENERIC_HEADER:]
    while len(data) >= 4:
        length, kind = struct.unpack_from("HH", data)
        end = max(4, aligned(length))
        yield kind & ~NESTED, data[:end]
        data = data[end:]


def _code(body: bytes) -> int:
    code: int = -struct.unpack_from("i", body)[0]
    return code


def string(kind: int, value: str) -> bytes:
    """Encode a string attribute."""
    data = value.encode() + b"\0"
    attribute = struct.pack("HH", 4 + len(data), kind) + data
    return attribute + bytes(-len(attribute) % 4)


def text(body: bytes, wanted: int) -> str:
    """Decode a string attribute of a message; empty if it is missing."""
    for kind, data in attributes(body):
        if kind == wanted:
            return data[4 : struct.unpack_from("H", data)[0]].rstrip(b"\0").decode("utf-8", "replace")
    return ""


def aligned(length: int) -> int:
    """Round up to the start of the next message or attribute."""
    return (length + 3) & ~3


def _encoded(kind: int, flags: int, body: bytes, sequence: int = 1) -> bytes:
    return struct.pack("IHHII", HEADER + len(body), kind, flags, sequence, 0) + body
