"""The address that the proxy's inbound pass-through is sent from in IPv6, on `lo` (127.0.0.6 needs none)."""

from __future__ import annotations

import errno
import os
import socket
import struct

RTM_NEWADDR, NLMSG_ERROR = 20, 2  # rtnetlink(7), netlink(7)
NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL = 0x1, 0x4, 0x400, 0x200
IFA_LOCAL, IFA_F_NODAD = 2, 0x02
RT_SCOPE_HOST = 254
LO = 1  # the index of `lo` in every network namespace
PASS_THROUGH = socket.inet_pton(socket.AF_INET6, "::6")


def add_pass_through_address() -> bool:
    """Add ::6/128 to `lo` of the netns that this thread is in; once it is there, this does nothing.

    Returns:
        False where IPv6 is off.

    Raises:
        OSError: if the kernel refuses it for another reason.
    """
    address = struct.pack("BBBBi", socket.AF_INET6, 128, IFA_F_NODAD, RT_SCOPE_HOST, LO)
    attribute = struct.pack("HH16s", 20, IFA_LOCAL, PASS_THROUGH)
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    body = address + attribute
    message = struct.pack("IHHII", 16 + len(body), RTM_NEWADDR, flags, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.send(message)
        answer = kernel.recv(4096)
    kind, code = struct.unpack_from("H", answer, 4)[0], -struct.unpack_from("i", answer, 16)[0]
    if kind != NLMSG_ERROR:
        raise OSError(errno.EPROTO, f"saw netlink message {kind}, expected an acknowledgement")
    if code in (errno.EACCES, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        return False
    if code not in (0, errno.EEXIST):
        raise OSError(code, f"adding ::6/128 to lo: {os.strerror(code)}")
    return True
