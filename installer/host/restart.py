"""Exiting so that the kubelet restarts the container, which then sees what the node has mounted since (F41).

Without mount propagation the container keeps the node's mounts as of its start. The agent records such a restart beside its
socket: a restart may not help, and the kubelet waits longer before each one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from installer.host.directory import Directory
from installer.host.files import PRIVATE, explain

if TYPE_CHECKING:
    from pathlib import Path

EVERY = 600.0  # seconds at least between two exits; after that long the kubelet restarts without back-off
MARGIN = 5.0  # seconds between the setup of the container's mounts and the agent's start

_log = logging.getLogger(__name__)


def restart_record(agent_socket: Path) -> Path:
    """Name the file whose mtime is the time of the last such restart."""
    return agent_socket.with_name("started-anew")


def would_help(agent_socket: Path, hidden_since: float, started: float, now: float) -> bool:
    """Return whether a restarted agent would see a netns, and this one may exit for it.

    All times are in seconds since 1970: when the hidden netns was mounted, when this agent started, and the current time.
    """
    if hidden_since < started - MARGIN:
        return False  # mounted before the start, and yet hidden: the runtime uses other mounts than the kubelet
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
