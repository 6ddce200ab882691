"""Waiting for events with a timeout."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any


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


async def first_ended(stop: asyncio.Event, *work: asyncio.Future[Any]) -> None:
    """Wait until one of several tasks ends, or an event is set; the tasks go on."""
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((*work, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
