"""The backend of this node: each that may be is tried once, when that is said, and one is chosen (F15, F16)."""

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

    def __init__(self) -> None:
        self.tried: Sequence[Capability] = ()
        self.chosen = Capability(Backend.NFT, {Feature.NAT: "it is not tried yet"})

    async def try_all(self, workers: Executor, wanted: Backend | None) -> None:
        """Try them, all at once; takes about a tenth of a second, in which the one that was chosen before is used.

        Args:
            workers: threads that may enter a netns.
            wanted: the one to use, whatever it lacks; None: the one that lacks least.
        """
        loop = asyncio.get_running_loop()
        candidates = (wanted,) if wanted else tuple(Backend)
        self.tried = await asyncio.gather(*(loop.run_in_executor(workers, try_backend, each) for each in candidates))
        self.chosen = choose(self.tried)
        for each in self.tried:
            level = logging.INFO if not each.missing or each is not self.chosen else logging.WARNING
            _log.log(
                level, "backend", extra={"backend": each.backend.value, "found": str(each), "used": each is self.chosen}
            )
        if self.chosen.unusable:
            _log.error("this node cannot redirect pods", extra={"reason": self.chosen.unusable})
