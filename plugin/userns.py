"""The user namespace that owns a network namespace: with `hostUsers: false` it is not the node's (F43).

iptables' owner match is accepted only from a process in that user namespace (xt_owner.c: `current_user_ns() != net->user_ns`),
and its ids are the pod's. In nftables they are too, but any process may write them. A process can enter a user namespace
only while it has one thread (setns(2)): never the agent, only its children. This requires only CAP_SYS_ADMIN in an
ancestor; afterwards the process has no rights outside the pod's user namespace.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from functools import cache
from pathlib import Path

CLONE_NEWUSER = 0x10000000
NS_GET_USERNS = 0xB701  # ioctl_ns(2)
ROOT = 0
_THREADS_NETNS, _OWN = "/proc/thread-self/ns/net", Path("/proc/self/ns/user")


def foreign_owner() -> int | None:
    """Open the user namespace that owns this thread's netns; None if it is this process's own.

    Raises:
        OSError: if the kernel refuses, such as when it is neither ours nor a descendant of ours.
    """
    netns = os.open(_THREADS_NETNS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        owner: int = fcntl.ioctl(netns, NS_GET_USERNS)
    except OSError as error:
        raise OSError(error.errno, f"cannot open the pod's user namespace: {error.strerror}") from error
    finally:
        os.close(netns)
    if os.fstat(owner).st_ino == _OWN.stat().st_ino:
        os.close(owner)
        return None
    os.set_inheritable(owner, False)
    return owner


def enter(owner: int) -> None:
    """Make this single-threaded process root of a user namespace: any other user would lose its rights at exec.

    For the child between fork and exec: it only makes system calls and touches nothing that another thread may have locked.

    Raises:
        OSError: if the kernel refuses, or the user namespace has no root.
    """
    if libc().setns(owner, CLONE_NEWUSER):
        number = ctypes.get_errno()
        raise OSError(number, f"entering the pod's user namespace: {os.strerror(number)}")
    try:
        os.setgroups([])
        os.setresgid(ROOT, ROOT, ROOT)
        os.setresuid(ROOT, ROOT, ROOT)
    except OSError as error:
        raise OSError(error.errno, f"becoming root in the pod's user namespace: {error.strerror}") from error


@cache
def libc() -> ctypes.CDLL:
    """Load it before a child needs it."""
    return ctypes.CDLL(None, use_errno=True)
