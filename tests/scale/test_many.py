"""A hundred agents: each asks what one alone asks, and none asks in vain again and again."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.scale.agent import PODS, RESOURCES, Habits
from tests.scale.fleet import Fleet
from tests.scale.kinds import counted

if TYPE_CHECKING:
    from tests.scale.site import Site

pytestmark = pytest.mark.apiserver

AGENTS = 100
START_WITHIN = 15.0  # seconds
SOON = 120.0  # seconds: many times what it takes
QUIET = 5.0
START = 24  # requests of one agent from its start until all is quiet, if none is refused; the README names them
MOST_TRIES = 8  # of one request: with the agent's pauses that takes half a minute


@pytest.mark.timeout(900)
async def test_many_agents_ask_what_each_alone_asks(site: Site) -> None:
    first = await site.settings("info")
    places = await site.places([f"many-{number}" for number in range(AGENTS)], 1)
    async with Fleet(site, places, Habits(start_within=START_WITHIN)) as fleet:
        tally = fleet.tally
        await fleet.until_each(lambda agent: agent.has_started(first), SOON, "all have started")
        await fleet.until(lambda: fleet.watched, SOON, "all watch")
        await asyncio.sleep(QUIET)
        started, refused = len(tally.times), tally.again.total()
        await asyncio.sleep(QUIET)
        assert len(tally.times) == started, "a quiet agent asks nothing"
        second = await site.settings("debug")
        await fleet.until_each(lambda agent: second in agent.reported, SOON, "all have reported the change")
        change = len(tally.times) - started - (tally.again.total() - refused)
        watches = Counter(tally.watches)
    assert watches == Counter({PODS: AGENTS, RESOURCES: AGENTS})
    assert {agent.pods for agent in fleet.agents} == {2}
    assert change == AGENTS, "each reports it once"
    asked = {node: counted(entries, node) for node, entries in site.requests().items() if node.startswith("many-")}
    assert len(asked) == AGENTS
    assert sum(each.total() for each in asked.values()) - AGENTS <= (START + 2) * AGENTS + tally.again.total()
    assert max(max(each.values()) for each in asked.values()) <= MOST_TRIES
