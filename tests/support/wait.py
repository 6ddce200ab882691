"""Waiting for what announces itself by nothing that could be awaited: the only place where tests look again and again."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BETWEEN_LOOKS = 0.02  # seconds


def until(predicate: Callable[[], object], within: float, what: str) -> None:
    """Look until something is so.

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
    """Look until something is so, and let the event loop go on meanwhile; arguments and error are those of `until`."""
    end = time.monotonic() + within
    while not predicate():
        if time.monotonic() > end:
            raise AssertionError(f"not within {within} s: {what}")
        await asyncio.sleep(BETWEEN_LOOKS)
