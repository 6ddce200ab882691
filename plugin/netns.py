"""Entering a pod's network namespace, as an open file descriptor, on one thread (D3)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys
import threading
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from collections.abc import Iterator

NetnsFd = NewType("NetnsFd", int)

CLONE_NEWNET = 0x40000000
NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_THREADS_OWN = "/proc/thread-self/ns/net"
_thread = threading.local()


def is_network_namespace(fd: int) -> bool:
    """Whether a descriptor refers to a network namespace rather than any other file."""
    try:
        return fcntl.ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False


def is_own(fd: NetnsFd) -> bool:
    """Whether it is this process's network namespace: on a node, the host's (F25)."""
    return os.path.sameopenfile(fd, _home())


@contextmanager
def entered(fd: NetnsFd) -> Iterator[None]:
    """Run a block in a network namespace, on this thread only, which must not be the main one.

    Raises:
        OSError: if it cannot be entered.
    """
    if threading.current_thread() is threading.main_thread():
        raise RuntimeError("the main thread must stay in the node's network namespace: use a worker's")
    before = _here()
    _setns(fd)
    _thread.netns = fd
    try:
        yield
    finally:
        _go_back(before)


@contextmanager
def scratch() -> Iterator[NetnsFd]:
    """Create an empty network namespace for the duration of a block; the thread stays in its own.

    Raises:
        OSError: if the kernel cannot create one.
    """
    before = _here()
    if _libc().unshare(CLONE_NEWNET):
        raise _error("unshare")
    try:
        fd = os.open(_THREADS_OWN, os.O_RDONLY | os.O_CLOEXEC)
    finally:
        _go_back(before)
    try:
        yield NetnsFd(fd)
    finally:
        os.close(fd)


@cache
def _home() -> NetnsFd:
    """The network namespace of the process, which its main thread never leaves."""
    return NetnsFd(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _setns(fd: NetnsFd) -> None:
    """Call setns(2), which Python wraps since 3.12."""
    if _libc().setns(fd, CLONE_NEWNET):
        raise _error("setns")


def _here() -> NetnsFd:
    """This thread's network namespace: that of an `entered` block, otherwise the process's."""
    here: NetnsFd = getattr(_thread, "netns", None) or _home()
    return here


def _go_back(before: NetnsFd) -> None:
    try:
        _setns(before)
        _thread.netns = before
    except OSError as error:  # this thread's next action would happen in a pod: restarting the agent is safe
        sys.stderr.write(f"a thread cannot leave a pod's network namespace, the agent ends: {error}\n")
        os._exit(70)


def _error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
