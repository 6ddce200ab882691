"""Waiting for conditions that send no event: the only place where tests poll."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BETWEEN_LOOKS = 0.02  # seconds


def until(predicate: Callable[[], object], within: float, what: str) -> None:
    """Poll until a condition holds.

    Args:
        predicate: whether it is so.
        within: seconds after which it never will be.
        what: it, in words, for the error.

    Raises:
        AssertionError: if it is not so in time.
    """
    end = time.monotonic() + within
    while not predicate():
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {what}")
        time.sleep(BETWEEN_LOOKS)


async def eventually(predicate: Callable[[], object], within: float, what: str) -> None:
    """Poll until a condition holds, without blocking the event loop; arguments and error as for `until`."""
    end = time.monotonic() + within
    while not predicate():
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {what}")
        await asyncio.sleep(BETWEEN_LOOKS)
