"""A primary CNI writes its conflist twice within milliseconds: its last content survives, whatever we do (F33)."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

from installer.agent import repairs
from installer.cniconfig import conflist
from installer.config.settings import build_entry
from installer.ratelimit.limiter import Limits
from tests.support.ondisk import NodeOnDisk, running
from tests.support.primary import WAYS, Primary, content

if TYPE_CHECKING:
    from installer.fleet.state import NodeState

pytestmark = pytest.mark.kernel

ROUNDS = 200
UNPACED = Limits(sustained=1e6, burst=1e6, first_pause=0.0, longest_pause=0.0, cooldown=1.0)


def installed(state: NodeState) -> bool:
    return state.installed


async def lost(node: NodeOnDisk, rounds: int) -> list[str]:
    """Let a primary write twice, repeatedly, and return the rounds whose second content is finally missing."""
    path, wanted = node.conf / "10-primary.conflist", build_entry(node.settings)
    pairs = itertools.cycle(itertools.product(WAYS, WAYS))
    missing = []
    with Primary(path) as primary:
        async with running(node.settings) as run:
            await run.until(installed)
            for number, (first, second) in zip(range(rounds), pairs, strict=False):
                pause = number % 13 / 1000
                await asyncio.to_thread(primary.write_twice, first, pause, second, number)
                right = conflist.splice(content(number, "second"), wanted)
                for _ in range(500):
                    if path.exists() and path.read_bytes() == right:
                        break
                    await asyncio.sleep(0.002)
                else:
                    missing.append(f"round {number}: {first}, {pause} s, {second}: {path.read_bytes()[:90]!r}")
    return missing


async def test_the_last_of_two_quick_writes_survives(node: NodeOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repairs, "REPAIRS", UNPACED)
    assert await lost(node, ROUNDS) == []
