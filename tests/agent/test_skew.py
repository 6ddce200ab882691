"""A plugin file and an agent of two releases that follow each other, whose protocol has changed between them (F31)."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from tests.agent.test_agent import agent as agent  # noqa: PLC0414 - a fixture
from tests.image.next_release import source
from tests.plugin.conftest import rules
from tests.support.agent import AgentProcess
from tests.support.call import FROZEN
from tests.support.netns import Netns
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel


@pytest.fixture
def next_release(tmp_path: Path) -> Path:
    """The code as it may be in the next release: the version is another, and the one before is still answered."""
    return source(tmp_path / "next")


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Netns]:
    with Netns(tmp_path / "netns") as made:
        yield made


def of(release: Path, before: AgentProcess, tmp_path: Path) -> AgentProcess:
    """Prepare an agent of a release for the node of another one."""
    folder = tmp_path / "second"
    folder.mkdir()
    options: dict[str, str | Path] = {"pods-from": tmp_path / "pods", "agent-socket": before.socket}
    prefix = ["/usr/bin/env", f"--chdir={release}"]
    return AgentProcess(folder, conf_dir=before.conf_dir, bin_dir=before.bin_dir, options=options, prefix=prefix)


async def test_a_newer_agent_answers_the_plugin_of_the_release_before(
    agent: AgentProcess, next_release: Path, netns: Netns, tmp_path: Path
) -> None:
    agent.ready()
    agent.stop()
    with of(next_release, agent, tmp_path) as newer:
        newer.ready()
        assert (agent.bin_dir / "istio-cni").read_bytes() == FROZEN.read_bytes(), "the plugin is that of this release"
        answer = await agent.add(netns, "shop", "web")
    assert answer.status == 0, answer.stdout
    assert "redirect to :15006" in rules(netns)


async def test_a_newer_plugin_waits_until_its_agent_takes_over(
    agent: AgentProcess, next_release: Path, netns: Netns, tmp_path: Path
) -> None:
    agent.ready()
    newer = of(next_release, agent, tmp_path)
    agent.bin_dir = (
        tmp_path / "next-bin"
    )  # from where the call takes the plugin: this agent would undo another file in its own
    agent.bin_dir.mkdir()
    plugin = agent.bin_dir / "istio-cni"
    plugin.write_text(f"#!/bin/sh\ncd {next_release} && exec {sys.executable} -m plugin\n")
    plugin.chmod(0o755)
    call = asyncio.create_task(agent.add(netns, "shop", "web"))
    with newer:
        await asyncio.to_thread(
            until, lambda: "saw an agent running on this node" in newer.log.read_text(), 20, "it waits for its turn"
        )
        assert not call.done(), (await call).stdout
        agent.stop()
        newer.ready()
        answer = await call
    assert answer.status == 0, answer.stdout
    assert "redirect to :15006" in rules(netns)
