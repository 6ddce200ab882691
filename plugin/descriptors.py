"""File descriptors: raise their limit, and reserve those below 1,024 for the work (F37).

libnftables waits with select(2), whose sets end there: for a larger number glibc aborts the whole process. So
connections, of which anybody can open many, are moved to higher numbers, which leaves low ones for the work.
"""

from __future__ import annotations

import fcntl
import os
import resource

SELECTABLE = 1024  # FD_SETSIZE of select(2)
ENOUGH = 8192  # the requested limit
FOR_THE_WORK = 256  # reserved if the limit is too small to move connections up


def raise_limit() -> None:
    """Raise this process's limit to `ENOUGH`, or to its hard limit; leave a larger one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def room() -> int:
    """Return how many descriptors all connections together may hold."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = ENOUGH if soft == resource.RLIM_INFINITY else soft
    return max(limit - SELECTABLE, min(limit, SELECTABLE) - FOR_THE_WORK, FOR_THE_WORK // 8)


def moved_up(fd: int) -> int:
    """Move a connection's descriptor to a number that the work does not need; leave it if there is none."""
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, SELECTABLE)
    except OSError:  # the limit is lower: `room` reserves enough
        return fd
    os.close(fd)
    return high


def low_ones_are_left() -> bool:
    """Whether select(2) can wait for the next opened descriptor."""
    lowest = os.dup(2)
    os.close(lowest)
    return lowest < SELECTABLE - FOR_THE_WORK // 8  # other threads open some concurrently
