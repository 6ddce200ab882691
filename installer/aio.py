"""Waiting for events with a timeout, for changes anywhere in the agent, and for calls that may hang."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class Changes:
    """Wakes all parts that check something again after a change; bound to the event loop that creates it.

    A change says "check again" and nothing else: each part decides how often it does.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._listeners: list[asyncio.Event] = []

    def listen(self) -> asyncio.Event:
        """Return an event that each change sets; clear it before each check."""
        event = asyncio.Event()
        self._listeners.append(event)
        return event

    def notify(self) -> None:
        """Wake them; callable from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for each in self._listeners:
            each.set()


def until_next(period: float) -> float:
    """Return the seconds to the next multiple of a period: all who wait so wake together, and the process once."""
    return period - asyncio.get_running_loop().time() % period


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


async def in_thread(stop: asyncio.Event, call: Callable[[], _T]) -> _T | None:
    """Run a call that may hang in a thread; return None if an event is set before it returns."""
    work = asyncio.get_running_loop().run_in_executor(None, call)
    await first_ended(stop, work)
    if work.done():
        return work.result()
    work.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody asks for it any more
    return None


class HangingCalls:
    """Calls that may hang, in a thread: one at a time, and each is waited for only so long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pending: asyncio.Future[Any] | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a call has not returned yet."""
        return self._pending is not None

    async def __call__(self, call: Callable[[], _T]) -> _T:
        """Make a call and return its result, or that of the call before, which has returned only now.

        Raises:
            TimeoutError: if it has not returned in time; the next call waits for it, too.
        """
        self._pending = self._pending or asyncio.get_running_loop().run_in_executor(None, call)
        await asyncio.wait([self._pending], timeout=self._seconds)
        if not self._pending.done():
            raise TimeoutError(f"no answer within {self._seconds:.0f} s")
        done, self._pending = self._pending, None
        result: _T = done.result()
        return result
