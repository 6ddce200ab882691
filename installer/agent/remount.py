"""Exiting when a running pod's netns is hidden from this container but visible to the next one (F41)."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from installer.aio import either, in_thread, wait
from installer.host.restart import record_restart, would_help
from installer.host.unanswered import waiting_for

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from installer.aio import Changes
    from installer.host.in_force import InForce
    from installer.repair.pod_repair import PodRepair

CHECK_EVERY = 5.0  # seconds, while a netns is hidden

_log = logging.getLogger(__name__)


async def exit_to_see_mounts(
    in_force: InForce, pod_repair: PodRepair, created: float, changes: Changes, stopping: asyncio.Event
) -> None:
    """Set `stopping` when a restart of the container would help.

    Without the setting `mounts` this process sees the node's mounts directly. While the plugin is not installed the agent
    stays: otherwise more pods would start without their redirect. `created` is when this process was created, in seconds
    since 1970.
    """
    socket, mounts = in_force.settings.agent_socket, in_force.settings.mounts
    changed = changes.listen()
    while mounts and not stopping.is_set():
        changed.clear()
        since = pod_repair.hidden_since if in_force.state.installed else None
        if since is not None and await in_thread(stopping, partial(_may_exit, socket, since, created)):
            _log.warning("exiting: a running pod needs its redirect, and only a restarted container can see its netns")
            stopping.set()
        await wait(stopping, CHECK_EVERY)
        if since is None:
            await either(stopping, changed)


def _may_exit(socket: Path, since: float, created: float) -> bool:
    with waiting_for(socket.parent):
        return would_help(socket, since, created, time.time()) and record_restart(socket)
