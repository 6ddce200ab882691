"""Direct kernel calls: let a thread own sockets as another process would, and flush connection tracking."""

from __future__ import annotations

import ctypes
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.redirect.probes import Sender

NETLINK_NETFILTER = 12  # linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 0x1, 0x4, 2
DELETE_CONNECTIONS = 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE; without a tuple: all

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def acting_as(sender: Sender) -> Iterator[None]:
    """Have this thread, and no other, own what it opens as a process with these ids does: owner matches look at just that."""
    _libc.setfsgid(sender.gid)
    _libc.setfsuid(sender.uid)
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)


def forget_connections() -> None:
    """Empty the connection tracking of this thread's netns: an entry keeps the translation of rules that are gone.

    Raises:
        OSError: if the kernel refuses.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as asked:
        asked.send(struct.pack("=IHHIIBBH", 20, DELETE_CONNECTIONS, NLM_F_REQUEST | NLM_F_ACK, 1, 0, 0, 0, 0))
        kind, number = struct.unpack_from("=4xH10xi", asked.recv(4096))
        if kind != NLMSG_ERROR or number:
            raise OSError(-number, "the kernel did not forget its connections")
