"""`make soak`: runs for so many minutes, prints how it goes and what was counted, and writes build/soak.json.

In the first half the agent is also ended and started again; in the second it lives on, so that growth would show.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tests.soak import adversary
from tests.soak.ledger import Ledger
from tests.soak.node import SoakNode
from tests.soak.pods import one_pod
from tests.support.call import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any

SLOTS = 6  # pods at once
TELL_EVERY = 10.0  # seconds
SETTLING = 20.0  # seconds of a life that do not count as growth


def main() -> int:
    """Run it; the exit status is 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--seed", type=int, default=1, help="of the order in which things happen (default: 1)")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("soak: saw a user who is not root, expected root: network namespaces are made", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        ledger = asyncio.run(soak(folder, options.minutes * 60, options.seed, print))
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join([*ledger.rows(), growth(ledger)]))
    report = {
        "seconds": options.minutes * 60,
        "seed": options.seed,
        "done": ledger.done,
        "lost": ledger.lost,
        "examples": ledger.examples,
        "samples": [asdict(each) for each in ledger.samples],
    }
    (ROOT / "build" / "soak.json").write_text(json.dumps(report, indent=2) + "\n")
    print("written: build/soak.json")
    return 1 if ledger.lost else 0


async def soak(folder: Path, seconds: float, seed: int, tell: Callable[[str], object]) -> Ledger:
    """Run for so many seconds, and clean up.

    Args:
        folder: for the node; empty.
        seconds: how long.
        seed: of the order in which things happen.
        tell: is given a line of progress now and then.

    Returns:
        What was counted.
    """
    chance, ledger = random.Random(seed), Ledger()  # noqa: S311 - to repeat a run
    node = SoakNode(folder, ledger)
    try:
        await asyncio.to_thread(node.start)
        lasting = [
            node.sample,
            lambda: _tell(ledger, tell),
            lambda: adversary.rewrite(node, ledger, chance),
            lambda: adversary.occupy_health(node, ledger),
            lambda: adversary.occupy_socket(node, ledger, chance),
            lambda: adversary.take_away_the_socket(node, ledger),
            *[lambda: one_pod(node, ledger, chance)] * SLOTS,
        ]
        async with _repeating(*lasting):
            async with _repeating(lambda: adversary.restart(node, ledger, chance)):
                await asyncio.sleep(seconds / 2)
            await asyncio.sleep(seconds / 2)
        if node.agent.process is None or node.agent.process.poll() is not None:
            ledger.lose("the agent has ended by itself", node.agent.log.read_text()[-300:])
        elif node.agent.get("/healthz")[0] != 200:
            ledger.lose("/healthz does not answer", str(node.agent.get("/healthz")))
    finally:
        node.stop(signal.SIGTERM)
    return ledger


def growth(ledger: Ledger) -> str:
    """Compare the first and the last sample of the agent's last life, once it has settled."""
    last = [each for each in ledger.samples if each.life == ledger.samples[-1].life and each.age > SETTLING]
    if len(last) < 2:
        return "growth of the agent: the run was too short to tell"
    first, end = last[0], last[-1]
    largest = max(each.rss for each in ledger.samples) / 2**20
    return (
        f"the agent after {first.age:.0f} s: {first}; after {end.age:.0f} s: {end}; "
        f"at most {largest:.1f} MiB and {max(each.descriptors for each in ledger.samples)} descriptors"
    )


async def _tell(ledger: Ledger, tell: Callable[[str], object]) -> None:
    await asyncio.sleep(TELL_EVERY)
    tell(ledger.line())


@contextlib.asynccontextmanager
async def _repeating(*parts: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Have each part run again and again; at the end of the block each comes to the end of its turn, and cleans up."""
    over = asyncio.Event()

    async def repeat(part: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while not over.is_set():
            await part()

    async with asyncio.TaskGroup() as tasks:
        for part in parts:
            tasks.create_task(repeat(part))
        yield
        over.set()


if __name__ == "__main__":
    sys.exit(main())
