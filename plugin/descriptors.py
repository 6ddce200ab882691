"""File descriptors: enough of them, and those below 1,024 for the work (F37).

libnftables waits with select(2), whose sets end there: for a socket with a larger number glibc ends the whole process. So
connections, of which anybody can make many, are moved up, and what the work opens finds a low number.
"""

from __future__ import annotations

import fcntl
import os
import resource

SELECTABLE = 1024  # FD_SETSIZE of select(2)
ENOUGH = 8192  # what we ask for
FOR_THE_WORK = 256  # kept free where the limit is too small for connections to be moved up


def raise_limit() -> None:
    """Allow this process as many as it may need, as far as its hard limit goes; a limit that is larger stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def room() -> int:
    """Say how many descriptors all connections together may hold."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = ENOUGH if soft == resource.RLIM_INFINITY else soft
    return max(limit - SELECTABLE, min(limit, SELECTABLE) - FOR_THE_WORK, FOR_THE_WORK // 8)


def moved_up(fd: int) -> int:
    """Give a connection's descriptor a number that the work does not need; where there is none, it stays as it is."""
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, SELECTABLE)
    except OSError:  # the limit is lower: `room` keeps enough free
        return fd
    os.close(fd)
    return high


def low_ones_are_left() -> bool:
    """Whether what is opened next can be waited for with select(2)."""
    lowest = os.dup(2)
    os.close(lowest)
    return lowest < SELECTABLE - FOR_THE_WORK // 8  # other threads open some at the same time
