"""The runtime's plugin `loopback`, which may run beside the chain, does not fail because of the redirect (F50)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from plugin import workers
from tests.plugin.conftest import Agent, calls, config, rules
from tests.support.netns import Netns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.call import Plugin

pytestmark = pytest.mark.kernel


@pytest.fixture
def new(tmp_path: Path) -> Iterator[Netns]:
    """A netns in which the runtime has not set `lo` up yet."""
    with Netns(tmp_path / "netns", has_lo=False) as netns:
        yield netns


def set_up_lo(netns: Netns) -> subprocess.CompletedProcess[str]:
    """Run the CNI plugin `loopback`, as containerd does for each pod."""
    environment = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "1", "CNI_IFNAME": "lo", "CNI_PATH": "/usr/lib/cni"}
    environment |= {"CNI_NETNS": os.fspath(netns.path)}
    network = json.dumps({"cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback"})
    command = ["/usr/lib/cni/loopback"]
    return subprocess.run(command, input=network, env=environment, capture_output=True, text=True, check=False)


def addresses(netns: Netns) -> str:
    command = [*netns.entered, "/usr/sbin/ip", "-6", "address", "show", "dev", "lo"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def test_a_pod_is_redirected_after_its_lo_is_set_up_and_others_do_not_wait(
    plugin: Plugin, agent: Agent, new: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LO_WITHIN", 60.0)
    monkeypatch.setattr(workers, "LO_LOOKED_AT", 1.0)
    async with agent.serving():
        adding = asyncio.create_task(plugin(calls(plugin, agent, new.path), config(plugin, agent)))
        await asyncio.sleep(0.5)
        with Netns(tmp_path / "other") as other:
            beside = await plugin(calls(plugin, agent, other.path), config(plugin, agent))
            assert beside.status == 0, beside.stdout
            assert not adding.done()
            assert rules(new) == ""
        set_up = await asyncio.to_thread(set_up_lo, new)
        answer = await adding
    assert set_up.returncode == 0, set_up.stdout
    assert answer.status == 0, answer.stdout
    assert "::6/128" in addresses(new)
    assert "15006" in rules(new)


async def test_a_runtime_that_leaves_lo_down_gets_its_pods(
    plugin: Plugin, agent: Agent, new: Netns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LO_WITHIN", 1.0)
    async with agent.serving():
        answer = await plugin(calls(plugin, agent, new.path), config(plugin, agent))
    assert answer.status == 0, answer.stdout
    assert "15006" in rules(new)
