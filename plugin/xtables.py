"""The iptables-legacy rules in the current thread's netns, read within a bound (ip_tables.h, F37).

iptables-legacy-save would read all of them, and create the requested table.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from plugin.nfnetlink import NF_INET_LOCAL_OUT, TARGETS, Step, TooManyError
from plugin.redirect import Family

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SO_GET_INFO, SO_GET_ENTRIES = 64, 65
SOL: Mapping[Family, tuple[int, int]] = {
    Family.V4: (socket.AF_INET, socket.SOL_IP),
    Family.V6: (socket.AF_INET6, socket.IPPROTO_IPV6),
}
NAMES: Mapping[Family, str] = {Family.V4: "ip_tables_names", Family.V6: "ip6_tables_names"}
NAME = 32  # bytes of a table's name
INFO = struct.Struct(f"{NAME}sI5I5I2I")  # struct ipt_getinfo: name, valid hooks, entries, underflows, number, size
ENTRIES = 40  # bytes of struct ipt_get_entries before the table's own
LARGEST = 4 << 20  # bytes of a table: about 12,000 chains
TARGET_OFFSET: Mapping[Family, int] = {Family.V4: 88, Family.V6: 140}  # where an entry says where its target is
TARGET = 32  # bytes of struct xt_entry_target before its data: size, name, revision
HEAD = "ERROR"  # the target of the entry before the first rule of a chain


def rules(family: Family, table: str) -> Mapping[str, list[Step]]:
    """List the rules of a table by chain: of OUTPUT, and of the chains that are no built-in ones.

    A table that does not exist has none, and is not created.

    Raises:
        TooManyError: if the table exceeds the bound.
        OSError: if the kernel returns an error.
    """
    try:
        there = Path("/proc/thread-self/net", NAMES[family]).read_text(encoding="ascii").split()
    except FileNotFoundError:  # a kernel without iptables-legacy
        return {}
    if table not in there:
        return {}
    (begin, end), entries = _entries(family, table)
    return _by_chain([*_parsed(entries, TARGET_OFFSET[family])], begin, end)


class _Entry(NamedTuple):
    """A rule or the head of a chain: where it stands, its target, and the chain's name, or where a standard target leads."""

    offset: int
    target: str
    chain: str
    verdict: int


def _by_chain(entries: list[_Entry], begin: int, end: int) -> Mapping[str, list[Step]]:
    """Sort the entries by chain; OUTPUT stands from `begin` to `end`, each other chain after its head."""
    heads = {after.offset: each.chain for each, after in pairwise(entries) if each.target == HEAD}
    found: dict[str, list[Step]] = {"OUTPUT": [], **{name: [] for name in heads.values()}}
    chain = ""
    for each in entries:
        chain = heads.get(each.offset, chain)
        inside = "OUTPUT" if begin <= each.offset <= end else chain
        if inside in found and each.target != HEAD:
            jump = heads.get(each.verdict, "") if not each.target else ""
            found[inside].append(Step(jump, each.target in TARGETS))
    return found


def _parsed(entries: bytes, target_offset: int) -> Iterator[_Entry]:
    """Go through struct ipt_entry or ip6t_entry: the offsets of its target and of the next entry, and the target itself."""
    offset = 0
    while offset + target_offset + 4 <= len(entries):
        target, following = struct.unpack_from("HH", entries, offset + target_offset)
        name = _string(entries, offset + target + 2, 29)
        data = offset + target + TARGET
        chain = _string(entries, data, 30) if name == HEAD else ""
        (verdict,) = struct.unpack_from("i", entries, data) if not name else (-1,)
        yield _Entry(offset, name, chain, verdict)
        if following < target_offset:
            raise OSError(errno.EPROTO, f"reading iptables-legacy's rules: saw an entry of {following} bytes")
        offset += following


def _string(data: bytes, offset: int, size: int) -> str:
    return data[offset : offset + size].partition(b"\0")[0].decode("ascii", "replace")


def _entries(family: Family, table: str) -> tuple[tuple[int, int], bytes]:
    """Read where OUTPUT begins and ends in a table, and the table's entries."""
    domain, level = SOL[family]
    with socket.socket(domain, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        asked = table.encode().ljust(INFO.size, b"\0")
        info = INFO.unpack(_getsockopt(raw, level, SO_GET_INFO, asked))
        begin, end, size = info[2 + NF_INET_LOCAL_OUT], info[7 + NF_INET_LOCAL_OUT], info[-1]
        if size > LARGEST:
            raise TooManyError(f"its iptables-legacy table {table} has {size} bytes, expected at most {LARGEST}")
        asked = struct.pack(f"{NAME}sI4x", table.encode(), size).ljust(ENTRIES + size, b"\0")
        return (begin, end), _getsockopt(raw, level, SO_GET_ENTRIES, asked)[ENTRIES:]


def _getsockopt(raw: socket.socket, level: int, option: int, asked: bytes) -> bytes:
    """Call getsockopt(2) with a filled buffer, which Python's own does not support."""
    buffer = ctypes.create_string_buffer(asked, len(asked))
    length = ctypes.c_uint(len(asked))
    if _libc().getsockopt(raw.fileno(), level, option, buffer, ctypes.byref(length)):
        code = ctypes.get_errno()
        raise OSError(code, f"reading iptables-legacy's rules: {os.strerror(code)}")
    return buffer.raw


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
