"""Making glibc return unused memory: the agent allocates in bursts, for a list of pods or many pods at once."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
from pathlib import Path

from installer.aio import until_next, wait

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # mallopt(3)
# The default is eight a processor, one for each of our threads; each retains its largest burst, and Python's lock lets one
# thread at a time allocate anyway.
ARENAS = 1
# Bytes. By default both thresholds grow with freed blocks, up to 32 MiB; with 64 KiB each ADD takes 2 ms longer.
THRESHOLD = 1 << 20

LOOK_EVERY = 10.0  # seconds
STILL = 1 << 20  # bytes by which an idle agent's memory differs between two checks
GROWTH = 1 << 20  # bytes of growth since the last release that trigger the next one

_log = logging.getLogger(__name__)


def keep_little() -> None:
    """Configure malloc before any large import: saves 5 of 63 MiB after 110 concurrent pods. Does nothing without glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        _log.debug("this C library has no mallopt")
        return
    for name, value in ((M_ARENA_MAX, ARENAS), (M_TRIM_THRESHOLD, THRESHOLD), (M_MMAP_THRESHOLD, THRESHOLD)):
        mallopt(name, value)


async def keep_giving_back(stop: asyncio.Event) -> None:
    """Return memory after each burst, until told to stop.

    A pod may have 1.5 MB, and as much in objects while it is parsed. Objects in reference cycles stay until Python's
    next full collection, which is hours away here, and glibc retains free memory between blocks in use.
    """
    gc.freeze()  # exclude the objects of the start: a collection then takes a millisecond or two
    least = before = _resident()
    in_burst = False  # memory was returned during a burst, which holds more of it until its end
    while not stop.is_set():
        now = _resident()
        least = min(least, now)
        grew, is_over = now > least + GROWTH, in_burst and abs(now - before) < STILL
        if grew or is_over:
            await asyncio.to_thread(_give_back)
            least, in_burst = _resident(), grew
        before = now
        await wait(stop, until_next(LOOK_EVERY))


def _give_back() -> None:
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
        _log.debug("this C library has no malloc_trim")


def _resident() -> int:
    """Return this process's resident memory in bytes (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
