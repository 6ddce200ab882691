"""The iptables-legacy rules in the current thread's netns, read within a bound (ip_tables.h, F37).

iptables-legacy-save would read all of them, and create the requested table.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from plugin.nfnetlink import TooManyError
from plugin.redirect import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

SO_GET_INFO, SO_GET_ENTRIES = 64, 65
SOL: Mapping[Family, tuple[int, int]] = {
    Family.V4: (socket.AF_INET, socket.SOL_IP),
    Family.V6: (socket.AF_INET6, socket.IPPROTO_IPV6),
}
NAMES: Mapping[Family, str] = {Family.V4: "ip_tables_names", Family.V6: "ip6_tables_names"}
NAME = 32  # bytes of a table's name
INFO = struct.Struct(f"{NAME}s4x40x2I")  # struct ipt_getinfo: name, hooks, entry and underflow of each, entries, size
ENTRIES = 40  # bytes of struct ipt_get_entries before the table's own
LARGEST = 4 << 20  # bytes of a table: about 12,000 chains


def has_chain(family: Family, table: str, prefix: str) -> bool:
    """Return whether a table has a chain, or a jump to one, with this name prefix. A missing table is not created.

    Raises:
        TooManyError: if the table exceeds the bound.
        OSError: if the kernel returns an error.
    """
    try:
        there = Path("/proc/thread-self/net", NAMES[family]).read_text(encoding="ascii").split()
    except FileNotFoundError:  # a kernel without iptables-legacy
        return False
    return table in there and prefix.encode() in _entries(family, table)


def _entries(family: Family, table: str) -> bytes:
    domain, level = SOL[family]
    with socket.socket(domain, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        asked = table.encode().ljust(INFO.size, b"\0")
        size = INFO.unpack(_getsockopt(raw, level, SO_GET_INFO, asked))[2]
        if size > LARGEST:
            raise TooManyError(f"its iptables-legacy table {table} has {size} bytes, expected at most {LARGEST}")
        asked = struct.pack(f"{NAME}sI4x", table.encode(), size).ljust(ENTRIES + size, b"\0")
        return _getsockopt(raw, level, SO_GET_ENTRIES, asked)[ENTRIES:]


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
