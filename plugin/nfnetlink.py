"""The nf_tables of the current thread's netns, through nfnetlink: lookups by name, bounded dumps, and batches (F37).

A pod with NET_ADMIN decides how much is in its netns. libnftables reads all of it, in one call that cannot be interrupted.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from plugin.netlink import ACK, APPEND, CREATE, EXCL, REQUEST, Message, Netlink, aligned
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
NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_HOOK_HOOKNUM = 3, 4, 1
NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS = 2, 4
NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 2
VERDICT = (2, 2)  # within the data of an expression `immediate`: NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT
NFTA_VERDICT_CHAIN, NFTA_TARGET_NAME = 2, 1
NF_INET_LOCAL_OUT = 3
REDIRECTS, TARGETS = ("redir", "nat"), ("REDIRECT", "DNAT")  # expressions, and targets of iptables in `target`
NFPROTO_UNSPEC, NFPROTO_INET = 0, 1  # of all families; IPv4 and IPv6 in one
NFPROTO: Mapping[Family, int] = {Family.V4: 2, Family.V6: 10}
GENERIC_HEADER = 4  # bytes of struct nfgenmsg
ATTRIBUTE = 4  # bytes of an attribute's header
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


class Step(NamedTuple):
    """A rule, as far as it leads packets: to another chain, whose name is empty if it does not, or to another destination."""

    jump: str = ""
    redirects: bool = False


class ListedChain(NamedTuple):
    """A chain: the NFPROTO number of its family, its table, its name, and whether what the netns sends enters it."""

    family: int
    table: str
    name: str
    is_at_output: bool

    @classmethod
    def of(cls, body: bytes) -> ListedChain:
        """Parse what the kernel lists."""
        hook = inside(body, NFTA_CHAIN_HOOK, NFTA_HOOK_HOOKNUM)[ATTRIBUTE:]
        is_at_output = int.from_bytes(hook, "big") == NF_INET_LOCAL_OUT
        return cls(body[0], text(body, NFTA_CHAIN_TABLE), text(body, NFTA_CHAIN_NAME), is_at_output)


class Nfnetlink(Netlink):
    """A netlink socket for the nf_tables of one netns. After a deletion closing it takes 7 to 20 ms: answer first (D4)."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def is_at_output(self, family: int, table: str, chain: str) -> bool:
        """Return whether a chain exists that what the netns sends enters; the kernel finds it by its hash, among any number.

        `family` is its NFPROTO number.

        Raises:
            OSError: if the kernel returns an error.
        """
        names = string(NFTA_CHAIN_TABLE, table) + string(NFTA_CHAIN_NAME, chain)
        self.send(Message(GETCHAIN, _about(family) + names, REQUEST).encode())
        answer = self.answer()
        if answer.kind == NEWCHAIN:
            return ListedChain.of(answer.body).is_at_output
        code = answer.code
        if code in (errno.ENOENT, *_ABSENT):
            return False
        raise OSError(code, f"looking for chain {chain}: {os.strerror(code)}")

    def chains(self, most: int) -> Iterator[ListedChain]:
        """List the chains of all tables.

        Args:
            most: the largest number to read.

        Raises:
            TooManyError: if there are more.
            OSError: if the kernel returns an error.
        """
        try:
            for count, message in enumerate(self.listed(GETCHAIN)):
                if count == most:
                    raise TooManyError(f"it holds more than {most} nftables chains")
                yield ListedChain.of(message.body)
        except InterruptedError:
            raise
        except OSError as error:
            if error.errno not in _ABSENT:
                raise

    def rules(self, family: int, table: str, chain: str, *, most: int) -> list[Step]:
        """List the rules of one chain; arguments as for `is_at_output`, errors as for `chains`."""
        limits = string(NFTA_RULE_TABLE, table) + string(NFTA_RULE_CHAIN, chain)
        found: list[Step] = []
        for message in self.listed(GETRULE, family, limits):
            if len(found) == most:
                raise TooManyError(f"chain {chain} of nftables has more than {most} rules")
            found.append(_step(message.body))
        return found

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


def batch(messages: Sequence[Message], *, exclusive: bool = False) -> bytes:
    """Build a transaction of messages; an exclusive one is refused where one of its tables exists."""
    begin = struct.pack(">BBH", 0, 0, NFNL_SUBSYS_NFTABLES)
    *most, last = messages
    flags = {NEWTABLE: CREATE | (EXCL if exclusive else 0), NEWCHAIN: CREATE, NEWRULE: CREATE | APPEND}
    sent = [Message(BATCH_BEGIN, begin, REQUEST)]
    sent += [Message(each.kind, each.body, REQUEST | flags.get(each.kind, 0)) for each in most]
    sent.append(Message(last.kind, last.body, REQUEST | ACK | flags.get(last.kind, 0), LAST))
    sent.append(Message(BATCH_END, begin, REQUEST))
    return b"".join(each.encode() for each in sent)


def attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Iterate over the attributes of a message body: the type of each, and its bytes with header and padding.

    Those within an attribute are listed alike, as its header is as long as the struct before those of a message.
    """
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


def inside(body: bytes, *path: int) -> bytes:
    """Find an attribute within attributes, with its header, as `attributes` lists it; empty if it is missing."""
    for wanted in path:
        body = next(
            (data[: struct.unpack_from("H", data)[0]] for kind, data in attributes(body) if kind == wanted), b""
        )
    return body


def _step(rule: bytes) -> Step:
    jump, redirects = "", False
    for _, expression in attributes(inside(rule, NFTA_RULE_EXPRESSIONS)):
        name, data = text(expression, NFTA_EXPR_NAME), inside(expression, NFTA_EXPR_DATA)
        if name == "immediate":
            jump = jump or text(inside(data, *VERDICT), NFTA_VERDICT_CHAIN)
        redirects = redirects or name in REDIRECTS or (name == "target" and text(data, NFTA_TARGET_NAME) in TARGETS)
    return Step(jump, redirects)


def _about(family: int) -> bytes:
    return struct.pack("BBH", family, 0, 0)
