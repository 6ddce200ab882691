"""The backend of this node: each that may be is tried once, at start, and one is chosen (F15, F16)."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from plugin.backend import Backend, Capability, choose
from plugin.preflight import try_backend
from plugin.redirect import Feature

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

_log = logging.getLogger(__name__)


class Backends:
    """What was tried, and what is used."""

    def __init__(self, wanted: Backend | None) -> None:
        """Wire it.

        Args:
            wanted: the one to use, whatever it lacks; None: the one that lacks least.
        """
        self._candidates = (wanted,) if wanted else tuple(Backend)
        self.tried: Sequence[Capability] = ()
        self.chosen = Capability(self._candidates[0], {Feature.NAT: "it is not tried yet"})

    async def try_all(self, workers: Executor) -> None:
        """Try them, all at once, on threads that may enter a netns; takes about a tenth of a second."""
        loop = asyncio.get_running_loop()
        self.tried = await asyncio.gather(
            *(loop.run_in_executor(workers, try_backend, each) for each in self._candidates)
        )
        self.chosen = choose(self.tried)
        for each in self.tried:
            level = logging.INFO if not each.missing or each is not self.chosen else logging.WARNING
            _log.log(
                level, "backend", extra={"backend": each.backend.value, "found": str(each), "used": each is self.chosen}
            )
        if self.chosen.unusable:
            _log.error("this node cannot redirect pods", extra={"reason": self.chosen.unusable})
