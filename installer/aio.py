"""Waiting for events with a timeout."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Wait until an event is set, or for some seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def either(first: asyncio.Event, second: asyncio.Event, seconds: float | None = None) -> None:
    """Wait until one of two events is set, or for some seconds."""
    waiting = [asyncio.create_task(event.wait()) for event in (first, second)]
    await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
