"""Having glibc keep no memory that the agent does not use: it comes in bursts, a list of pods, many pods at once."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
from pathlib import Path

from installer.aio import wait

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # mallopt(3)
ARENAS = 2  # by default eight a processor, one for each of our threads, and each keeps what its largest burst took
THRESHOLD = (
    1 << 20
)  # bytes; by default they grow with what is freed, up to 32 MiB; at 64 KiB each ADD takes 2 ms longer

LOOK_EVERY = 10.0  # seconds
STILL = 1 << 20  # bytes that it differs by from one look to the next where nothing happens
GROWTH = 8 << 20  # bytes of resident memory since memory was last given back, upon which it is given back again

_log = logging.getLogger(__name__)


def keep_little() -> None:
    """Set it, before anything large is imported: after 110 pods at once 5 of 63 MiB. Does nothing on other C libraries."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        _log.debug("this C library has no mallopt")
        return
    for name, value in ((M_ARENA_MAX, ARENAS), (M_TRIM_THRESHOLD, THRESHOLD), (M_MMAP_THRESHOLD, THRESHOLD)):
        mallopt(name, value)


async def keep_giving_back(stop: asyncio.Event) -> None:
    """Give memory back after each burst, until told to stop.

    A pod may be 1.5 MB, and as many objects while it is parsed. Those of them that refer to one another stay until Python's
    collector next looks at all it has, which takes it hours here, and what is free between others' pieces glibc keeps.
    """
    gc.freeze()  # what is there from the start is not looked at again: a collection then takes a millisecond or two
    least = before = _resident()
    goes_on = False  # memory was given back in a burst, which holds more of it until its end
    while not stop.is_set():
        now = _resident()
        least = min(least, now)
        grew, is_over = now > least + GROWTH, goes_on and abs(now - before) < STILL
        if grew or is_over:
            await asyncio.to_thread(_give_back)
            least, goes_on = _resident(), grew
        before = now
        await wait(stop, LOOK_EVERY)


def _give_back() -> None:
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        _log.debug("this C library has no malloc_trim")


def _resident() -> int:
    """Return this process's resident memory in bytes (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
