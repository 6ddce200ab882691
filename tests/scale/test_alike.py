"""A simulated agent is a real one to the API server: it asks the same, as often."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from installer.ratelimit.limiter import REPORTS
from tests.scale.agent import Habits
from tests.scale.fleet import Fleet
from tests.scale.kinds import counted
from tests.scale.site import DAEMONSET
from tests.support.agent import AgentProcess

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator
    from pathlib import Path

    from tests.scale.site import Place, Site

pytestmark = pytest.mark.apiserver

PODS = 30  # more than a page of the list holds
SOON = 120.0  # seconds: much longer than anything here takes
AFTER = 4.0  # seconds in which would come what comes after a report: another report, a list
STATUS = "patch /apis/cni.istio.io/v1alpha1/istiocninodes/NODE/status fieldManager=istio-cni-node force=true"
PRIMARY = '{"cniVersion": "1.0.0", "name": "k8s", "plugins": [{"type": "bridge"}]}'


async def test_a_simulated_agent_makes_the_requests_of_a_real_one(site: Site, tmp_path: Path) -> None:
    first = await site.settings("info")
    real, simulated = both = await site.places(["real", "simulated"], PODS)
    with _real_agent(site, real, tmp_path):
        async with Fleet(site, [simulated], Habits()):
            await _reported(site, both, first)
            started = [_asked(site, place) for place in both]
            second = await site.settings("debug")
            await _reported(site, both, second)
            changed = [_asked(site, place) - before for place, before in zip(both, started, strict=True)]
    for asked in started:
        assert 1 <= asked.pop(STATUS) <= REPORTS.burst, (
            "a report is written when the agent is well, and at each state before: how many it sees, the machine decides"
        )
    assert started[0] == started[1]
    assert changed[0] == changed[1]
    assert [*changed[0].values()] == [1]


@contextmanager
def _real_agent(site: Site, place: Place, folder: Path) -> Iterator[AgentProcess]:
    conf_dir, bin_dir = folder / "conf", folder / "bin"
    for each in (conf_dir, bin_dir):
        each.mkdir()
    (conf_dir / "10-k8s.conflist").write_text(PRIMARY)
    options: dict[str, str | Path] = {
        "node-name": place.node,
        "kubeconfig": site.cluster.kubeconfig(place.node, token=place.token),
        "daemonset": DAEMONSET,
    }
    with AgentProcess(folder, conf_dir=conf_dir, bin_dir=bin_dir, options=options) as agent:
        yield agent


async def _reported(site: Site, places: list[Place], generation: int) -> None:
    """Wait until all have reported, and as long again as would take what else they have to say."""
    async with asyncio.timeout(SOON):
        for place in places:
            while await site.reported(place.node) != generation:  # noqa: ASYNC110 - the API server's object
                await asyncio.sleep(0.1)
    await asyncio.sleep(AFTER)


def _asked(site: Site, place: Place) -> Counter[str]:
    return counted(site.requests()[place.node], place.node)
