"""Questions about the nf_tables of the netns that this thread is in: by name, or up to a bound (nfnetlink, F37).

A pod with NET_ADMIN decides how much is in its netns. libnftables reads all of it, in one call that nothing can cut short.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Self

from plugin.redirect import Family
from plugin.rtnetlink import DUMP, HEADER, NLMSG_DONE, NLMSG_ERROR, REQUEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

NETLINK_NETFILTER = 12
NFNL_SUBSYS_NFTABLES = 10 << 8
GETTABLE, GETCHAIN = NFNL_SUBSYS_NFTABLES | 1, NFNL_SUBSYS_NFTABLES | 4  # linux/netfilter/nf_tables.h
NFTA_TABLE_NAME = NFTA_CHAIN_TABLE = 1
NFTA_CHAIN_NAME = 3
NFPROTO_UNSPEC, NFPROTO_INET = 0, 1  # of all families; IPv4 and IPv6 in one
NFPROTO: Mapping[Family, int] = {Family.V4: 2, Family.V6: 10}
GENERIC_HEADER = 4  # bytes of struct nfgenmsg
RECEIVED = 1 << 16  # bytes; a dump comes in pieces of at most half of that, each made when it is asked for

# What a kernel without nf_tables says.
_ABSENT = (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP)


def is_there() -> bool:
    """Say whether this kernel has netfilter's netlink at all: without it nobody has written anything by nftables."""
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER).close()
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise
    return True


class TooManyError(Exception):
    """A netns holds more than is looked through; the message says what and how many."""


class Nfnetlink:
    """A conversation with the kernel about one netns, that of the thread that opened it."""

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def has_chain(self, family: Family, table: str, chain: str) -> bool:
        """Say whether a chain is there; the kernel finds it by its hash, however many there are.

        Raises:
            OSError: if the kernel does not say.
        """
        names = _string(NFTA_CHAIN_TABLE, table) + _string(NFTA_CHAIN_NAME, chain)
        self._send(GETCHAIN, REQUEST, NFPROTO[family], names)
        kind, body = next(self._messages())
        if kind != NLMSG_ERROR:
            return True
        code = _code(body)
        if code in (errno.ENOENT, *_ABSENT):
            return False
        raise OSError(code, f"looking for chain {chain}: {os.strerror(code)}")

    def tables(self, most: int) -> Iterator[tuple[tuple[Family, ...], str]]:
        """Name the tables of all families, each with those that it is about; errors as `chains` says."""
        return self._names(GETTABLE, NFTA_TABLE_NAME, most, "tables")

    def chains(self, most: int) -> Iterator[tuple[tuple[Family, ...], str]]:
        """Name the chains of all tables, each with the families that it is about.

        Args:
            most: how many are read.

        Raises:
            TooManyError: if there are more.
            OSError: if the kernel does not say.
        """
        return self._names(GETCHAIN, NFTA_CHAIN_NAME, most, "chains")

    def _names(self, question: int, attribute: int, most: int, what: str) -> Iterator[tuple[tuple[Family, ...], str]]:
        self._send(question, REQUEST | DUMP, NFPROTO_UNSPEC)
        count = 0
        while True:
            for kind, body in self._messages():
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    code = _code(body)
                    if code in _ABSENT:
                        return
                    raise OSError(code, f"listing {what}: {os.strerror(code)}")
                count += 1
                if count > most:
                    raise TooManyError(f"it holds more than {most} nftables {what}")
                about = tuple(each for each, number in NFPROTO.items() if body[0] in (number, NFPROTO_INET))
                yield about, _text(body[GENERIC_HEADER:], attribute)

    def _send(self, kind: int, flags: int, family: int, attributes: bytes = b"") -> None:
        body = struct.pack("BBH", family, 0, 0) + attributes
        self._socket.send(struct.pack("IHHII", HEADER + len(body), kind, flags, 1, 0) + body)

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        received = self._socket.recv(RECEIVED)
        while received:
            length, kind = struct.unpack_from("IH", received)
            yield kind, received[HEADER:length]
            received = received[(length + 3) & ~3 :]


def _code(body: bytes) -> int:
    code: int = -struct.unpack_from("i", body)[0]
    return code


def _string(kind: int, value: str) -> bytes:
    data = value.encode() + b"\0"
    attribute = struct.pack("HH", 4 + len(data), kind) + data
    return attribute + bytes(-len(attribute) % 4)


def _text(data: bytes, wanted: int) -> str:
    """Read one attribute, a text that ends with a zero byte; empty if it is not there."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("HH", data)
        if kind == wanted:
            return data[4:length].rstrip(b"\0").decode("utf-8", "replace")
        data = data[max(4, (length + 3) & ~3) :]
    return ""
