"""A file system of the node that does not answer: it is named, pods go on, and all is well again once it answers (F48)."""

from __future__ import annotations

import asyncio
import copy
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from installer.agent.shutdown import STOP_WITHIN
from installer.host import unanswered
from tests.agent.test_socket import on_disk
from tests.plugin.conftest import rules
from tests.support.hung import hung
from tests.support.netns import Netns
from tests.support.wait import eventually, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.agent import AgentProcess

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(900)]

NOT_ANSWERED = "its file system has not answered since "


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    """An agent that also looks at what the runtime keeps."""
    made = on_disk(tmp_path)
    (tmp_path / "cni" / "results").mkdir(parents=True)
    made.socket.parent.mkdir()
    made.set("cni-cache-dir", tmp_path / "cni")
    with made:
        made.ready()
        yield made


@pytest.fixture
def plugin(agent: AgentProcess, tmp_path: Path) -> Iterator[AgentProcess]:
    """The agent for a plugin that reaches all that it needs by other paths, as a mount hides them from the agent alone."""
    other = copy.copy(agent)
    other.bin_dir, other.conf_dir = tmp_path / "other-bin", tmp_path / "other-conf"
    shutil.copytree(agent.bin_dir, other.bin_dir)
    shutil.copytree(agent.conf_dir, other.conf_dir)
    there = tmp_path / "other-run"
    there.mkdir()
    conflist = other.conf_dir / "10-k8s.conflist"
    conflist.write_text(conflist.read_text().replace(str(agent.socket), str(there / agent.socket.name)))
    subprocess.run(["/bin/mount", "--bind", agent.socket.parent, there], check=True)
    yield other
    subprocess.run(["/bin/umount", there], check=True)


async def test_it_is_named_and_pods_go_on(agent: AgentProcess, plugin: AgentProcess, tmp_path: Path) -> None:
    for number, directory in enumerate(
        (agent.conf_dir, agent.bin_dir, tmp_path / "cni" / "results", agent.socket.parent), 1
    ):
        with hung(directory):
            await eventually(
                lambda: f"{directory}: {NOT_ANSWERED}" in agent.get("/readyz")[1],  # noqa: B023
                30,
                f"{directory}: the node is not ready",
            )
            assert agent.get("/readyz")[0] == 503
            assert agent.get("/healthz")[0] == 200
            with Netns(tmp_path / f"netns-{number}") as netns:
                answer = await plugin.add(netns, "shop", "web")
                assert answer.status == 0, answer.stdout
                assert "redirect to :15006" in rules(netns)
            await asyncio.to_thread(_logged, agent, number)
        await eventually(lambda: agent.get("/readyz")[0] == 200, 60, f"{directory}: the node is ready again")
    assert agent.process
    assert agent.process.poll() is None


def _logged(agent: AgentProcess, times: int) -> None:
    until(
        lambda: agent.log.read_text().count("a file system of the node does not answer") >= times, 10, "the log says so"
    )


def test_an_agent_ends_in_time_and_the_next_one_says_what_it_waits_for(agent: AgentProcess) -> None:
    with hung(agent.conf_dir):
        until(lambda: NOT_ANSWERED in agent.get("/readyz")[1], 30, "it is named")
        agent.stop(within=STOP_WITHIN + 15)
        assert not agent.socket.exists()
    agent.socket.parent.mkdir(exist_ok=True)
    with hung(agent.socket.parent):
        agent.log.unlink()
        agent.start()
        until(lambda: f"{agent.socket.parent}: {NOT_ANSWERED}" in agent.log.read_text(), 60, "the log names it")
    assert agent.ready()


def test_what_takes_long_is_described_once_for_each_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unanswered, "PATIENCE", 0.0)
    with (
        unanswered.waiting_for(tmp_path / "b"),
        unanswered.waiting_for(tmp_path / "a"),
        unanswered.waiting_for(tmp_path / "b"),
    ):
        said = unanswered.unanswered()
    assert [each.partition(": ")[0] for each in said.split("; ") if NOT_ANSWERED in each] == [
        str(tmp_path / "a"),
        str(tmp_path / "b"),
    ]
    assert unanswered.unanswered() == ""
    monkeypatch.setattr(unanswered, "PATIENCE", 60.0)
    with unanswered.waiting_for(tmp_path):
        assert unanswered.unanswered() == ""
