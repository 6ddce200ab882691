"""The wall clock of a node jumps by years, so that the API server's certificate is not valid there, and back."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kubernetes.conftest import PRIMARY, SOON, entry
from tests.plugin.conftest import rules
from tests.support.agent import AgentProcess
from tests.support.netns import Netns
from tests.support.wait import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kubernetes.conftest import Node
    from tests.support.cluster import Cluster

pytestmark = pytest.mark.apiserver

TEN_YEARS = 10 * 365 * 24 * 3600  # seconds
SOURCE = Path(__file__).parents[1] / "support" / "programs" / "clock.c"


@pytest.fixture
def ahead(tmp_path: Path) -> Path:
    """By how many seconds the agent's clock is ahead."""
    path = tmp_path / "ahead"
    path.write_bytes(struct.pack("q", 0))
    return path


@pytest.fixture
def running(tmp_path: Path, node: Node, kubeconfig: Path, ahead: Path) -> Iterator[AgentProcess]:
    """An agent with a clock of its own."""
    library = tmp_path / "clock.so"
    subprocess.run(["/usr/bin/gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", library, SOURCE], check=True)
    conf_dir, bin_dir = tmp_path / "conf", tmp_path / "bin"
    for folder in (conf_dir, bin_dir):
        folder.mkdir()
    (conf_dir / "10-k8s.conflist").write_text(PRIMARY)
    options: dict[str, str | Path] = {"node-name": node.name, "kubeconfig": kubeconfig}
    prefix = ["/usr/bin/env", f"LD_PRELOAD={library}", f"CLOCK_AHEAD={ahead}"]
    with AgentProcess(tmp_path, conf_dir=conf_dir, bin_dir=bin_dir, options=options, prefix=prefix) as agent:
        agent.ready()
        yield agent


@pytest.mark.parametrize("jump", [TEN_YEARS, -TEN_YEARS], ids=["forward", "back"])
async def test_a_clock_that_jumps_loses_no_pod_and_no_entry(
    running: AgentProcess, node: Node, cluster: Cluster, ahead: Path, tmp_path: Path, *, jump: int
) -> None:
    known = node.start_pod("known")
    await eventually(lambda: "istio_cni_pods 1.0" in running.get("/metrics")[1], SOON, "the agent has heard of the pod")
    with ahead.open("r+b") as clock:
        clock.write(struct.pack("q", jump))
    cluster.kill_apiserver()
    cluster.start_apiserver()  # the agent has to connect anew
    later = node.start_pod("later")
    (running.conf_dir / "10-k8s.conflist").write_text(PRIMARY)
    await eventually(lambda: entry(running), SOON, "the conflist is repaired")
    with Netns(tmp_path / "one") as one, Netns(tmp_path / "other") as other:
        answer = await running.add(one, "default", "known", known)
        assert answer.status == 0, answer.stdout
        assert "redirect to :15001" in rules(one)
        refused = await running.add(other, "default", "later", later)
        assert (refused.status, refused.json["code"]) == (1, 11)
        assert "certificate" in refused.json["msg"]
        with ahead.open("r+b") as clock:
            clock.write(struct.pack("q", 0))
        await eventually(
            lambda: "istio_cni_pods 2.0" in running.get("/metrics")[1], 2 * SOON, "it hears of the other pod"
        )
        answer = await running.add(other, "default", "later", later)
        assert answer.status == 0, answer.stdout
        assert "redirect to :15001" in rules(other)
