"""The threads that redirect pods: the usual ones, one for large work, and one that frees resources afterwards (D4)."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from plugin.apply import LoDownError, is_lo_up
from plugin.program import Programmed, check, program
from plugin.rulecount import LARGE, rule_count

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from plugin.backend import Capability
    from plugin.netns import NetnsFd
    from plugin.program import Plan
    from plugin.redirect import Redirect

_T = TypeVar("_T")

# containerd runs its plugin `loopback` beside the chain. That sets `lo` up, then refuses it for any address but its own, such
# as the ::6 of a redirect.
LO_WITHIN = 5.0  # seconds for `lo` to come up: a runtime that leaves it down gets its pods after that
LO_EVERY = 0.02  # seconds between two looks at it
LO_LOOKED_AT = 0.1  # seconds for `loopback` to look at the addresses of `lo`, once that is up

MOST_TO_FREE = 32  # sockets or libnftables contexts, of a megabyte each, queued to be freed


class AbandonedError(Exception):
    """The client gave up before the pod's turn: its netns is left unchanged."""


class Workers:
    """Runs the work on pods' network namespaces."""

    def __init__(self, usual: Executor, large: Executor, freeing: Executor) -> None:
        """Use these threads.

        Args:
            usual: threads that enter a pod's netns; nothing else may run on them.
            large: the same, for work that takes many times as long as usual: other pods never wait for it.
            freeing: a thread that frees their resources, which takes 15 ms in the kernel: no pod waits for that.
        """
        self._usual = usual
        self._large = large
        self._freeing = freeing
        self._room_to_free = threading.BoundedSemaphore(MOST_TO_FREE)

    async def program(
        self,
        fd: NetnsFd,
        plan: Plan,
        capability: Capability,
        is_wanted: Callable[[], bool],
        done: Callable[[], None] = lambda: None,
    ) -> Programmed:
        """Redirect a pod, once the runtime has set up its `lo`.

        Args:
            fd: its netns.
            plan: the plan.
            capability: that of the backend.
            is_wanted: returns whether a client still waits for the answer; called on a worker, at the pod's turn.
            done: called on the worker as soon as the pod is redirected, as the event loop may have other work.

        Raises:
            AbandonedError: if no client waits any more.
        """
        work = partial(program, fd, plan, capability)
        lane = self._lane(plan.redirect)
        try:
            return await self._program_on(lane, partial(_if_wanted, is_wanted, partial(work, needs_lo=True)), done)
        except LoDownError:
            await self._wait_for_lo(fd)
            return await self._program_on(lane, partial(_if_wanted, is_wanted, work), done)

    async def check(self, fd: NetnsFd, plan: Plan, capability: Capability, is_wanted: Callable[[], bool]) -> str | None:
        """Compare a pod's redirect with its plan, and return the difference; otherwise as `program`."""
        turn = partial(_if_wanted, is_wanted, partial(check, fd, plan, capability))
        return await asyncio.get_running_loop().run_in_executor(self._lane(plan.redirect), turn)

    async def _program_on(self, lane: Executor, turn: Callable[[], Programmed], done: Callable[[], None]) -> Programmed:
        loop = asyncio.get_running_loop()
        programmed: asyncio.Future[Programmed] = loop.create_future()
        lane.submit(self._program_and_free, turn, done, loop, programmed)
        return await programmed

    async def _wait_for_lo(self, fd: NetnsFd) -> None:
        """Wait until `lo` is set up; no thread waits, so other pods do not."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LO_WITHIN
        while not await loop.run_in_executor(self._usual, is_lo_up, fd) and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(LO_EVERY)
        await asyncio.sleep(LO_LOOKED_AT)

    def _program_and_free(
        self,
        turn: Callable[[], Programmed],
        done: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
        programmed: asyncio.Future[Programmed],
    ) -> None:
        """Redirect a pod on a worker, answer, and free its resources after notifying the loop, as that is slow (D4)."""
        try:
            result = turn()
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the waiting request
            loop.call_soon_threadsafe(programmed.set_exception, error)
        else:
            try:
                done()
            finally:
                loop.call_soon_threadsafe(programmed.set_result, result)
                self._free(result.free)

    def _free(self, free: Callable[[], None]) -> None:
        """Free a pod's resources on the freeing thread; if many are queued, on this one, as each holds memory."""
        if self._room_to_free.acquire(blocking=False):
            self._freeing.submit(free).add_done_callback(lambda _: self._room_to_free.release())
        else:
            free()

    def _lane(self, redirect: Redirect) -> Executor:
        return self._large if rule_count(redirect) > LARGE else self._usual


def _if_wanted(is_wanted: Callable[[], bool], work: Callable[[], _T]) -> _T:
    """Do the work of a pod at its turn, unless its client has given up: it has retried, or its pod is gone."""
    if not is_wanted():
        raise AbandonedError
    return work()
