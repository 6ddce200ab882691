"""The nf_tables of the current thread's netns, through nfnetlink: lookups by name, bounded dumps, and batches (F37).

A pod with NET_ADMIN decides how much is in its netns. libnftables reads all of it, in one call that cannot be interrupted.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

from plugin.netlink import ACK, APPEND, CREATE, REQUEST, Message, Netlink, aligned
from plugin.redirect import Family

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
NESTED = 0x8000  # netlink(7)
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


class Nfnetlink(Netlink):
    """A netlink socket for the nf_tables of one netns. After a change closing it takes 7 to 20 ms: answer first (D4)."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def has_chain(self, family: Family, table: str, chain: str) -> bool:
        """Return whether a chain exists; the kernel finds it by its hash, however many there are.

        Raises:
            OSError: if the kernel returns an error.
        """
        names = string(NFTA_CHAIN_TABLE, table) + string(NFTA_CHAIN_NAME, chain)
        self.send(Message(GETCHAIN, _about(NFPROTO[family]) + names, REQUEST).encode())
        answer = self.answer()
        if answer.kind == NEWCHAIN:
            return True
        code = answer.code
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

    def listed(self, question: int, family: int = NFPROTO_UNSPEC, limits: bytes = b"") -> Iterator[Message]:
        """Iterate over a dump of the kernel, as `dump` does.

        Args:
            question: GETTABLE, GETCHAIN or GETRULE.
            family: by its NFPROTO number.
            limits: filter attributes; the rules of one table are selected by its family and name.
        """
        return self.dump(question, _about(family) + limits, "listing nftables")

    def commit(self, batch: bytes) -> None:
        """Send a transaction made by `batch`: the kernel applies all of it or nothing.

        Raises:
            OSError: the first refusal, without the refused message: libnftables names its line.
        """
        self.send(batch)
        acknowledged = False
        while not acknowledged:
            for message in self.messages(socket.MSG_DONTWAIT):
                if message.code:
                    raise OSError(message.code, f"writing nftables: {os.strerror(message.code)}")
                acknowledged = acknowledged or message.sequence == LAST

    def _names(self, question: int, attribute: int, most: int, what: str) -> Iterator[tuple[tuple[Family, ...], str]]:
        try:
            for count, message in enumerate(self.listed(question)):
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


def batch(messages: Sequence[Message]) -> bytes:
    """Build a transaction of messages."""
    begin = struct.pack(">BBH", 0, 0, NFNL_SUBSYS_NFTABLES)
    *most, last = messages
    flags = {NEWTABLE: CREATE, NEWCHAIN: CREATE, NEWRULE: CREATE | APPEND}
    sent = [Message(BATCH_BEGIN, begin, REQUEST)]
    sent += [Message(each.kind, each.body, REQUEST | flags.get(each.kind, 0)) for each in most]
    sent.append(Message(last.kind, last.body, REQUEST | ACK | flags.get(last.kind, 0), LAST))
    sent.append(Message(BATCH_END, begin, REQUEST))
    return b"".join(each.encode() for each in sent)


def attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Iterate over the attributes of a message body: the type of each, and its bytes with header and padding."""
    data = body[GENERIC_HEADER:]
    while len(data) >= 4:
        length, kind = struct.unpack_from("HH", data)
        end = max(4, aligned(length))
        yield kind & ~NESTED, data[:end]
        data = data[end:]


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


def _about(family: int) -> bytes:
    return struct.pack("BBH", family, 0, 0)
