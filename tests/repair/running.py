"""A pod repair that runs as the agent runs it, on pods that a test names."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from installer.aio import Changes
from installer.host.cni_cache import Sandboxes
from installer.pods.verdicts import Verdicts
from installer.repair.netns_proof import NetnsFiles
from installer.repair.pod_repair import PodRepair
from plugin.pod import Pod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import Executor
    from pathlib import Path

    from installer.host.in_force import InForce


class Pods(list[Pod]):
    """A node's pods, all of which are known."""

    known = True


@asynccontextmanager
async def running(
    pods: Pods,
    in_force: InForce,
    workers: Executor,
    folder: Path,
    cluster: object = None,
    *,
    changes: Changes | None = None,
) -> AsyncIterator[PodRepair]:
    """Run it until the block ends; the folder has the netns, and what the runtime keeps of its sandboxes.

    `changes` is what a test tells of its own changes by, if it makes some.
    """
    repair = PodRepair(
        pods,
        Verdicts(pods, lambda: in_force.policy),
        in_force,
        workers,
        sandboxes=Sandboxes(folder),
        files=NetnsFiles(folder, folder),
        cluster=cluster,  # type: ignore[arg-type]
        changes=changes or Changes(),
    )
    stop = asyncio.Event()
    task = asyncio.create_task(repair.run(stop))
    try:
        yield repair
    finally:
        stop.set()
        await asyncio.wait([task], timeout=60)
    assert task.done()
