"""The directory of the agent's socket: the agent's alone, so that no foreign one is changed or deleted."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from installer.host.agent_lock import AlreadyRunningError, lock, lock_file
from installer.host.checkpoint import checkpoint_file, earlier_checkpoint_file
from installer.host.files import is_temporary
from installer.host.restart import restart_record

if TYPE_CHECKING:
    from pathlib import Path

OWN = "istio-cni"  # a directory of this name is ours whatever it holds: of an earlier release, or of Istio's own agent
MADE = 0o700  # the mode of one that we create; the kubelet creates them with 0755


class ForeignDirectoryError(Exception):
    """The directory of agentSocket belongs to another program, or others may write to it; the message says why."""


def require_own(socket: Path) -> None:
    """Check that a socket's directory is ours or does not exist yet. Restrict one of our name to root.

    Raises:
        ForeignDirectoryError: if it is not.
        OSError: if it cannot be examined.
    """
    directory = socket.parent
    try:
        info = directory.stat()
    except FileNotFoundError:
        return
    if info.st_uid != os.geteuid():
        raise ForeignDirectoryError(f"{_saw(directory)} of uid {info.st_uid}, expected root's own; {_REMEDY}")
    if directory.resolve().name == OWN:
        if stat.S_ISDIR(info.st_mode) and stat.S_IMODE(info.st_mode) != MADE:
            directory.chmod(MADE)
        return
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ForeignDirectoryError(
            f"{_saw(directory)} that others than root may write to ({stat.filemode(info.st_mode)}); {_REMEDY}"
        )
    expected = {socket.name, f".{socket.name}.new", *(each.name for each in files_beside(socket))}
    if foreign := sorted(name for name in os.listdir(directory) if name not in expected and not is_temporary(name)):  # noqa: PTH208
        raise ForeignDirectoryError(
            f"{_saw(directory)} that istio-cni did not make: it holds {foreign[0]!r}; {_REMEDY}"
        )


def files_beside(socket: Path) -> tuple[Path, ...]:
    """Name the files that an agent keeps beside its socket."""
    return lock_file(socket), checkpoint_file(socket), earlier_checkpoint_file(socket), restart_record(socket)


def clear(socket: Path) -> None:
    """Delete what only a running agent needs, unless the next one runs already; the checkpoint stays for it.

    The next one may be Istio's own, as after a rollback, which knows none of these files.
    """
    with suppress(OSError, AlreadyRunningError):  # the next agent takes over what stays
        held = lock(socket)
        try:
            for path in (socket, restart_record(socket), lock_file(socket)):
                path.unlink(missing_ok=True)
            socket.parent.rmdir()  # not while it is a mount, as in a container
        finally:
            os.close(held)


def is_deleted(socket: Path) -> bool:
    """Whether a socket's directory was deleted underneath this process's mount of it."""
    try:
        return socket.parent.stat().st_nlink == 0
    except OSError:
        return False


_REMEDY = "expected a directory of its own, such as /var/run/istio-cni: correct agentSocket"


def _saw(directory: Path) -> str:
    return f"agentSocket: saw the directory {directory}"
