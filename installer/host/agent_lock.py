"""The lock of the agent that serves on a socket: one agent per node, also during an upgrade."""

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
    """Take the lock of the agent that serves on a socket, beside it, and return the descriptor of the lock file.

    It is held until the descriptor is closed or the process ends for any reason.

    Raises:
        AlreadyRunningError: if another process holds it.
        OSError: if the file or its directory cannot be created.
    """
    path = lock_file(socket_path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with contextlib.ExitStack() as opened:  # a leaked descriptor would block our next attempt
            opened.callback(os.close, fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
                raise AlreadyRunningError(
                    f"{path}: saw an agent running on this node (process {holder}), expected none: stop it first"
                ) from None
            if _is_still(fd, path):  # otherwise an uninstall deleted the file between our open and our lock
                with contextlib.suppress(OSError):  # the number is informational: a full file system must delay no pod
                    os.truncate(fd, 0)
                    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
                opened.pop_all()
                return fd


def is_locked(fd: int, socket_path: Path) -> bool:
    """Whether a held lock is still that of its socket: its file may have been deleted."""
    return _is_still(fd, lock_file(socket_path))


def lock_file(socket_path: Path) -> Path:
    """Name the lock file of a socket."""
    return socket_path.with_name(socket_path.name + ".lock")


def _is_still(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except OSError:  # it is gone, or something else stands in place of its directory
        return False
