"""Ending an agent whose event loop hangs, so that the kubelet restarts it, or whose shutdown hangs.

A livenessProbe cannot do that: if another program takes the health address first, the kubelet would probe that program and
kill an agent that serves pods (F37).

An agent that was stopped for as long (SIGSTOP, a frozen cgroup) may also exit when it resumes: its state is stale by then,
and a restart loses nothing. A suspended machine does not count, as its monotonic clock stops.
"""

from __future__ import annotations

import faulthandler
from typing import TYPE_CHECKING

from installer.aio import until_next, wait

if TYPE_CHECKING:
    import asyncio

STUCK = 60.0  # seconds without one turn of the loop; long enough that a busy node causes no restart


async def end_if_stuck(stopping: asyncio.Event, seconds: float = STUCK, stop_within: float = 0.0) -> None:
    """Until `stopping` is set, have a thread outside Python write all tracebacks to stderr and end the process if it hangs.

    Args:
        stopping: set when the agent has to stop.
        seconds: within which the loop has to turn.
        stop_within: seconds from then to the end of the process, whatever hangs (a thread, a disk, an API server); 0: no limit.
    """
    try:
        while not stopping.is_set():
            faulthandler.dump_traceback_later(seconds, exit=True)
            await wait(stopping, until_next(seconds / 6))
    finally:
        faulthandler.cancel_dump_traceback_later()
    if stop_within:
        faulthandler.dump_traceback_later(stop_within, exit=True)
