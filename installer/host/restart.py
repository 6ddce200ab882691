"""An agent that ends so that its container is started anew, and sees what the node has mounted since (F41).

Where the node's mounts are not propagated into the container, it has those of the moment at which it started. That it ends for
others is kept beside the agent's socket, as its container may start in vain, and each time the kubelet waits longer.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from installer.host.files import PRIVATE, Directory, explain

if TYPE_CHECKING:
    from pathlib import Path

EVERY = 600.0  # seconds at least between two ends: after as many the kubelet starts it at once again
MARGIN = 5.0  # seconds from when the container has its mounts to when the agent runs

_log = logging.getLogger(__name__)


def started_anew_file(agent_socket: Path) -> Path:
    """Say where it is kept when an agent has ended so."""
    return agent_socket.with_name("started-anew")


def would_help(agent_socket: Path, hidden_since: float, started: float, now: float) -> bool:
    """Tell whether an agent that starts anew would see a netns, and may end for it.

    Args:
        agent_socket: the agent's.
        hidden_since: when the netns was mounted where this agent does not see it, in seconds since 1970.
        started: when this agent has.
        now: the time.
    """
    if hidden_since < started - MARGIN:
        return False  # mounted before, and yet not seen: it is not the kubelet's mounts that the runtime has
    try:
        before = started_anew_file(agent_socket).stat().st_mtime
    except OSError:
        return True
    return not now - EVERY < before <= now


def keep_that_it_ends(agent_socket: Path) -> bool:
    """Keep that this agent ends now; where that cannot be kept, it may not end."""
    path = started_anew_file(agent_socket)
    try:
        with Directory(path.parent, path.parent) as folder:
            folder.write(path.name, (b"",), PRIVATE)
    except OSError as error:
        extra = {"file": str(path), "reason": explain(error)}
        _log.warning("not exiting to see the node's new mounts: the restart cannot be recorded", extra=extra)
        return False
    return True
