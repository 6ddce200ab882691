"""Choosing this node's backend: the agent tries each one at its start and when the setting changes (F15, F16)."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from plugin.backend import Backend, choose
from plugin.preflight import try_backend

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from installer.host.in_force import InForce

_log = logging.getLogger(__name__)


async def choose_backend(in_force: InForce, workers: Executor) -> None:
    """Try all backends in parallel; the previous choice stays in force meanwhile, about a tenth of a second.

    Args:
        in_force: may name the only backend to try; otherwise the one that lacks the fewest features is chosen.
        workers: threads that may enter a netns.
    """
    loop, requested = asyncio.get_running_loop(), in_force.settings.redirect_backend
    candidates = (requested,) if requested else tuple(Backend)
    tried = await asyncio.gather(*(loop.run_in_executor(workers, try_backend, each) for each in candidates))
    chosen = choose(tried)
    in_force.tried, in_force.capability = tried, chosen
    for each in tried:
        level = logging.WARNING if each.missing and each is chosen else logging.INFO
        extra = {"backend": each.backend.value, "found": str(each), "used": each is chosen}
        _log.log(level, "backend", extra=extra)
    if chosen.unusable:
        _log.error("this node cannot redirect pods", extra={"reason": chosen.unusable})
