"""Exiting so that the kubelet restarts the container, which then sees what the node has mounted since (F41).

Without mount propagation the container keeps the node's mounts as of its start. The agent records such a restart beside its
socket: a restart may not help, and the kubelet waits longer before each one.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from installer.host.directory import Directory
from installer.host.files import PRIVATE, explain

EVERY = 600.0  # seconds at least between two exits; after that long the kubelet restarts without back-off
MARGIN = 5.0  # seconds by which a clock may have been set, or mounts prepared before the process was created

_log = logging.getLogger(__name__)


def process_created() -> float:
    """Return when this process was created, in seconds since 1970 (proc_pid_stat(5), `starttime`).

    The runtime creates it before it sets up the container's mounts; on a busy node seconds pass before the agent runs in it.
    """
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def restart_record(agent_socket: Path) -> Path:
    """Name the file whose mtime is the time of the last such restart."""
    return agent_socket.with_name("started-anew")


def would_help(agent_socket: Path, hidden_since: float, created: float, now: float) -> bool:
    """Return whether a restarted agent would see a netns, and this one may exit for it.

    All times are in seconds since 1970: when the hidden netns was mounted, when this process was created, and the
    current time.
    """
    if hidden_since < created - MARGIN:
        return False  # mounted before that, and yet hidden: the runtime uses other mounts than the kubelet
    try:
        before = restart_record(agent_socket).stat().st_mtime
    except OSError:
        return True
    return not now - EVERY < before <= now


def record_restart(agent_socket: Path) -> bool:
    """Record that this agent exits now; return False if that fails, in which case the agent must not exit."""
    path = restart_record(agent_socket)
    try:
        with Directory(path.parent, path.parent) as folder:
            folder.write(path.name, (b"",), PRIVATE)
    except OSError as error:
        extra = {"file": str(path), "reason": explain(error)}
        _log.warning("not exiting to see the node's new mounts: the restart cannot be recorded", extra=extra)
        return False
    return True
