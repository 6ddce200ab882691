"""A controller that is started again when it has ended, as the kubelet would."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from tests.scale.usage import Usage, usage

if TYPE_CHECKING:
    from tests.controller.stage import Controller

PAUSES = (0.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)  # seconds before it is started again, as the kubelet has them
LOOK_EVERY = 0.5  # seconds
LAST_LINES = 40  # of its log


class Kept:
    """A controller that has been started, for the time of a block, and what all its processes have used."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._before = Usage(0.0)  # those that have ended
        self.restarts = 0

    async def __aenter__(self) -> Self:
        self._keeping = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._keeping.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeping

    @property
    def used(self) -> Usage:
        """What has been used until now; nothing resident while it does not run."""
        process = self._controller.process
        now = usage(process.pid) if process else Usage(0.0)
        return Usage(self._before.cpu + now.cpu, now.resident, max(self._before.peak, now.peak))

    @property
    def last_words(self) -> str:
        """The end of its log."""
        return "\n".join(self._controller.log.read_text(errors="replace").splitlines()[-LAST_LINES:])

    async def _keep(self) -> None:
        peak = 0
        while True:
            process = self._controller.process
            if process and _has_ended(process.pid):
                self._before = self.used._replace(resident=0, peak=peak)
                status, self._controller.process = process.wait(), None
                pause = PAUSES[min(self.restarts, len(PAUSES) - 1)]
                print(f"  the controller ended with {status}; it is started again after {pause:g} s", flush=True)
                await asyncio.sleep(pause)
                self._controller.start()
                self.restarts += 1
            peak = max(peak, self.used.peak)
            await asyncio.sleep(LOOK_EVERY)


def _has_ended(pid: int) -> bool:
    """Whether a process of ours has ended, which still tells what it has used until it is waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
