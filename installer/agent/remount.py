"""Exiting when a running pod's netns is hidden from this container but visible to the next one (F41)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from installer.aio import wait
from installer.host.restart import record_restart, would_help

if TYPE_CHECKING:
    import asyncio

    from installer.host.in_force import InForce
    from installer.repair.pod_repair import PodRepair

CHECK_EVERY = 5.0  # seconds

_log = logging.getLogger(__name__)


async def exit_to_see_mounts(in_force: InForce, pod_repair: PodRepair, started: float, stopping: asyncio.Event) -> None:
    """Set `stopping` when a restart of the container would help.

    Without the setting `mounts` this process sees the node's mounts directly. While the plugin is not installed the agent
    stays: otherwise more pods would start without their redirect. `started` is when this agent started, in seconds since
    1970.
    """
    socket, mounts = in_force.settings.agent_socket, in_force.settings.mounts
    while mounts and not stopping.is_set():
        since = pod_repair.hidden_since
        if (
            since is not None
            and in_force.state.installed
            and would_help(socket, since, started, time.time())
            and record_restart(socket)
        ):
            _log.warning("exiting: a running pod needs its redirect, and only a restarted container can see its netns")
            stopping.set()
        await wait(stopping, CHECK_EVERY)
