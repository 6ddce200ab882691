"""Ending an agent whose event loop stands still, so that the kubelet starts it anew, or that does not come to its end.

No livenessProbe does that: whoever listens on the health address before the agent would be asked in its place, and an agent
that serves pods be killed (F37).

An agent that was stopped for as long (SIGSTOP, a frozen cgroup) may end too when it goes on: what it knows is stale by then,
and the one that starts anew loses nothing. A suspended machine does not count, as its monotonic clock stands still.
"""

from __future__ import annotations

import faulthandler
from typing import TYPE_CHECKING

from installer.aio import wait

if TYPE_CHECKING:
    import asyncio

STUCK = 60.0  # seconds in which the loop does not turn once; a busy node is no reason to start again


async def end_if_stuck(told: asyncio.Event, seconds: float = STUCK, stop_within: float = 0.0) -> None:
    """Until told to stop, have a thread outside Python write all tracebacks to stderr and end the process if it is stuck.

    Args:
        told: set when it is told to stop.
        seconds: in which the loop has to turn.
        stop_within: seconds after that in which it has to end, whatever hangs: a thread, a disk, an API server; 0: as it likes.
    """
    try:
        while not told.is_set():
            faulthandler.dump_traceback_later(seconds, exit=True)
            await wait(told, seconds / 10)
    finally:
        faulthandler.cancel_dump_traceback_later()
    if stop_within:
        faulthandler.dump_traceback_later(stop_within, exit=True)
