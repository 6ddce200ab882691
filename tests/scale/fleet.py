"""Many simulated agents in one process, and what a stretch of time with them costs."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

from tests.scale.agent import PODS, RESOURCES, Habits, SimulatedAgent
from tests.scale.connect import Client, Tally
from tests.scale.usage import all_cpu

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.scale.site import Place, Site
    from tests.scale.usage import Usage

FAREWELL = 0.5  # seconds for TLS connections to be closed in the background
LOOK_EVERY = 0.1  # seconds
SAY_EVERY = 30.0  # seconds


class Fleet:
    """The agents of all places, which run for the time of a block."""

    def __init__(self, site: Site, places: Sequence[Place], habits: Habits) -> None:
        self.tally = Tally()
        self.agents = [
            SimulatedAgent(place.node, Client(site.url, site.tls, place.token, self.tally), habits) for place in places
        ]

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.wait((self._running,))
        await asyncio.sleep(FAREWELL)

    async def _run(self) -> None:
        """Have all run until cancelled."""
        async with asyncio.TaskGroup() as group:
            for agent in self.agents:
                group.create_task(agent.run())

    @property
    def watched(self) -> bool:
        """Whether each agent has both its watches."""
        return all(self.tally.watches[path] == len(self.agents) for path in (PODS, RESOURCES))

    async def until(self, so: Callable[[], object], within: float, what: str) -> None:
        """Wait until it is so.

        Raises:
            AssertionError: with what it is, if it is not in time.
            Exception: whatever an agent ended with.
        """
        end = time.monotonic() + within
        while not so():
            if self._running.done():
                await self._running
            assert time.monotonic() < end, f"not within {within:g} s: {what}"
            await asyncio.sleep(LOOK_EVERY)

    async def until_each(self, so: Callable[[SimulatedAgent], object], within: float, what: str) -> None:
        """Wait until it is so of each agent, and tell now and then of how many it is; errors are those of `until`."""
        waiting, began = [*self.agents], time.monotonic()
        said = 0.0

        def none_waits() -> bool:
            nonlocal said
            waiting[:] = [agent for agent in waiting if not so(agent)]
            if (now := time.monotonic() - began) >= said + SAY_EVERY:
                said = now
                print(f"  {now:4.0f} s: {what}: {len(self.agents) - len(waiting)} of {len(self.agents)}", flush=True)
            return not waiting

        try:
            await self.until(none_waits, within, what)
        except AssertionError as error:
            error.add_note(f"{len(waiting)} of {len(self.agents)} are missing, the first is {waiting[0].name}")
            raise


class Stretch:
    """A stretch of time, from the beginning of the block to `end` or its end."""

    NAMES = (
        *("s", "requests", "in 1 s", "again", "kB sent", "kB got"),
        *("API CPU s", "API MB", "etcd CPU s", "own CPU s", "ctrl CPU s", "ctrl MB", "its peak", "all CPU s"),
    )

    def __init__(self, tally: Tally, used: Mapping[str, Callable[[], Usage]]) -> None:
        """Prepare.

        Args:
            tally: what the agents have seen.
            used: what `kube-apiserver`, `etcd`, the `clients` (this process with all agents) and the `controller` have used.
        """
        self._tally = tally
        self._used = used
        self.began = self._seconds = 0.0

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        self._before = self._seen()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End it now, if it has not ended."""
        if not self._seconds:
            self._seconds = time.monotonic() - self.began
            self._after = self._seen()

    def figures(self) -> dict[str, float | int]:
        """Return what it has cost, by NAMES.

        Kilobytes are those of TCP, TLS and all; MB are resident at the end; `all CPU` is the whole machine's.
        """
        before, after = self._before, self._after
        cpu = {name: round(after[name] - before[name], 1) for name in self._used}
        asked = self._tally.times[int(before["asked"]) : int(after["asked"])]
        controller = self._used["controller"]()
        values = (
            round(self._seconds, 1),
            len(asked),
            busiest(asked),
            int(after["again"] - before["again"]),
            round((after["sent"] - before["sent"]) / 1e3),
            round((after["received"] - before["received"]) / 1e3),
            cpu["kube-apiserver"],
            round(self._used["kube-apiserver"]().resident / 1e6),
            cpu["etcd"],
            cpu["clients"],
            cpu["controller"],
            round(controller.resident / 1e6),
            round(controller.peak / 1e6),
            round(after["all"] - before["all"], 1),
        )
        return dict(zip(self.NAMES, values, strict=True))

    def _seen(self) -> dict[str, float]:
        sent, received = self._tally.carried()
        counted = {
            "asked": len(self._tally.times),
            "again": self._tally.again.total(),
            "sent": sent,
            "received": received,
            "all": all_cpu(),
        }
        return counted | {name: used().cpu for name, used in self._used.items()}


def busiest(times: Sequence[float], width: float = 1.0) -> int:
    """Return how many of the moments, which are in order, lie in the densest stretch of so many seconds."""
    first = most = 0
    for last, moment in enumerate(times):
        while moment - times[first] > width:
            first += 1
        most = max(most, last - first + 1)
    return most
