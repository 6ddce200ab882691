"""The lock of the agent that serves on a socket: one agent a node, also during an upgrade."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class AlreadyRunningError(Exception):
    """Another agent serves on the same socket of this node; the message says which."""


def lock(socket_path: Path) -> int:
    """Take the lock of the agent that serves on a socket, beside it.

    It is held until the descriptor is closed or the process ends, however it ends.

    Returns:
        The descriptor of the lock file.

    Raises:
        AlreadyRunningError: if another process holds it.
        OSError: if the file or its directory cannot be made.
    """
    path = lock_file(socket_path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with contextlib.ExitStack() as opened:  # one that stayed open would hold the lock against our next try
            opened.callback(os.close, fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
                raise AlreadyRunningError(
                    f"{path}: saw an agent running on this node (process {holder}), expected none: stop it first"
                ) from None
            if _is_still(fd, path):  # else an uninstall took the file away between our open and our lock
                with contextlib.suppress(OSError):  # the number is for people: a full file system keeps no pod waiting
                    os.truncate(fd, 0)
                    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
                opened.pop_all()
                return fd


def is_locked(fd: int, socket_path: Path) -> bool:
    """Tell whether a lock that was taken is still the one of its socket: its file may have been deleted."""
    return _is_still(fd, lock_file(socket_path))


def lock_file(socket_path: Path) -> Path:
    """Name the lock file of a socket."""
    return socket_path.with_name(socket_path.name + ".lock")


def _is_still(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False
