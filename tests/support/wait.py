"""Waiting for conditions that send no event: the only place where tests poll."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHORTEST_PAUSE, LONGEST_PAUSE = 0.02, 1.0  # seconds
PATIENCE = 10  # what was waited for so long may as well be seen a tenth of that later
BUSY = 4.0  # times as long as on an idle machine: other tests need the processors, too


def until(predicate: Callable[[], object], within: float, what: str) -> None:
    """Poll until a condition holds.

    Args:
        predicate: whether it is so.
        within: seconds after which it never will be, on an idle machine.
        what: it, in words, for the error.

    Raises:
        AssertionError: if it is not so in time.
    """
    for pause in _pauses(predicate, within, what):
        time.sleep(pause)


async def eventually(predicate: Callable[[], object], within: float, what: str) -> None:
    """Poll until a condition holds, without blocking the event loop; arguments and error as for `until`."""
    for pause in _pauses(predicate, within, what):
        await asyncio.sleep(pause)


def _pauses(predicate: Callable[[], object], within: float, what: str) -> Iterator[float]:
    """Look until it is so, and yield the pauses between.

    A pause is four times as long as a look takes, which may be a run of kubectl, and longer the longer it was waited: what is
    waited for needs the processor, too.
    """
    start = time.monotonic()
    end = start + BUSY * within
    while True:
        begun = time.monotonic()
        if predicate():
            return
        now = time.monotonic()
        if now > end:
            raise AssertionError(f"not within {BUSY * within} s: {what}")
        yield min(max(4 * (now - begun), (now - start) / PATIENCE, SHORTEST_PAUSE), LONGEST_PAUSE)
