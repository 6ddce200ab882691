"""Events that wait until the API server takes them, bounded in number and age: none is lost to a short outage."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from installer.aio import wait
from installer.kube.api_error import ApiError
from installer.kube.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Mapping

    from installer.kube.event_recorder import EventRecorder

MOST = 256  # waiting Events; the oldest is dropped first
LONGEST = 3600.0  # seconds that one waits: the API server keeps Events for as long, by default
LAST = 1.5  # seconds that a stopping agent waits for the API server, of the 2.5 that its parts have to end
REFUSED = 4  # refused Events after which a delivery ends: it is the API server's, rather than each Event's, doing

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Event:
    regarding: Mapping[str, str]
    reason: str
    note: str
    warning: bool
    at: datetime
    until: float  # of the monotonic clock
    refusals: int = 0  # as in a namespace that is being deleted: it waits behind the others


class EventQueue:
    """Delivers the Events of one agent; bound to one event loop."""

    def __init__(self, recorder: EventRecorder) -> None:
        self._recorder = recorder
        self._waiting: dict[tuple[str, str, str], _Event] = {}  # oldest first
        self._added = asyncio.Event()
        self._turn = asyncio.Lock()
        self._failure = ""

    def add(self, regarding: Mapping[str, str], reason: str, note: str, *, warning: bool) -> None:
        """Have an Event delivered, with the current time; arguments as for `EventRecorder.record`."""
        event = _Event(regarding, reason, note, warning, datetime.now(UTC), time.monotonic() + LONGEST)
        self._waiting.setdefault((regarding["uid"], reason, note), event)
        if len(self._waiting) > MOST:
            self._drop(next(iter(self._waiting)), f"more than {MOST} Events wait")
        self._added.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until told to stop; then what is under way and what waits, unless that takes longer than `LAST`."""
        async with asyncio.TaskGroup() as tasks:
            delivering = tasks.create_task(self._keep_delivering())
            await stop.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST):
                    await self.deliver()
            delivering.cancel()

    async def _keep_delivering(self) -> None:
        backoff = Backoff()
        while True:
            self._added.clear()
            error = await self.deliver()
            if error is None:
                backoff.reset()
                await self._added.wait()
            elif error.is_transient:
                await asyncio.sleep(backoff.next(error.retry_after))
            else:  # it may be about these Events alone
                await wait(self._added, backoff.next(error.retry_after))

    async def deliver(self) -> ApiError | None:
        """Try to deliver those that wait, each once; return the last error, None if none waits any more."""
        async with self._turn:
            failure, refused = None, 0
            for key, event in sorted(self._waiting.items(), key=lambda item: item[1].refusals):
                if key not in self._waiting:
                    continue
                if time.monotonic() > event.until:
                    self._drop(key, f"it has waited for {LONGEST:.0f} s; {self._failure}")
                    continue
                try:
                    await self._recorder.record(
                        event.regarding, event.reason, event.note, warning=event.warning, at=event.at
                    )
                except ApiError as error:
                    failure = error
                    event.refusals += not error.is_transient
                    refused += 1
                    self._log_failure(str(error))
                    if error.is_transient or refused == REFUSED:
                        break
                else:
                    self._waiting.pop(key, None)
            if failure is None:
                self._failure = ""
            return failure

    def _drop(self, key: tuple[str, str, str], why: str) -> None:
        event = self._waiting.pop(key)
        extra = {"event": event.reason, "object": event.regarding["name"], "note": event.note, "reason": why}
        _log.warning("an Event is dropped", extra=extra)

    def _log_failure(self, failure: str) -> None:
        if failure != self._failure:
            self._failure = failure
            _log.warning("cannot write an Event; trying again", extra={"reason": failure})
