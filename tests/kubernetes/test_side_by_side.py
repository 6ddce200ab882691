"""This agent beside Istio's own, its real program as its own chart starts it, on one node: nothing breaks."""

from __future__ import annotations

import json
import shutil
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.chart.contained import NAMESPACE as ISTIOS
from tests.chart.contained import apply as apply_chart
from tests.chart.contained import contained, forwarded_api
from tests.chart.istio_chart import IstiosChart
from tests.kubernetes.conftest import NAMESPACE, PRIMARY, apply, node_agent
from tests.programs.build import is_built
from tests.programs.lots import ISTIO
from tests.support.call import FROZEN
from tests.support.contained import ACCOUNT
from tests.support.netns import Netns
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kubernetes.conftest import Node
    from tests.support.agent import AgentProcess
    from tests.support.cluster import Cluster
    from tests.support.contained import ContainedAgent

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(900)]

PATIENCE = 120.0  # seconds
QUIET = 3.0  # seconds: Istio's agent waits for up to one between two rounds
PROGRAM = [str(ISTIO.folder / "install-cni"), "--log_target=stderr"]


@pytest.fixture
def both(tmp_path: Path, cluster: Cluster, node: Node, served: Path) -> Iterator[tuple[AgentProcess, ContainedAgent]]:
    """Both agents, prepared for the same directories, also that of the sockets; the second is Istio's."""
    assert is_built(ISTIO), f"no {ISTIO.title} in {ISTIO.folder}; `make istio` builds it"
    ours = node_agent(tmp_path, cluster, node.name, served)
    ours.socket = tmp_path / "run" / "istio-cni" / "agent.sock"
    ours.set("agent-socket", ours.socket)
    plugin = tmp_path / "image"
    plugin.mkdir()
    shutil.copy2(ISTIO.folder / "istio-cni", plugin)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ISTIOS}}
    apply(cluster, namespace)  # it stays for others, as no controller would ever finish its deletion
    with Netns(tmp_path / "pod") as network, forwarded_api(network, cluster):
        chart = IstiosChart(tmp_path, {"repair": {"enabled": False}})
        apply_chart(cluster, chart)
        image = [("/opt/cni/bin", plugin)]
        istios = contained(tmp_path, network, cluster, node.name, chart, program=PROGRAM, image=image)
        istios.log = tmp_path / "istios.log"
        try:
            yield ours, istios
        finally:
            ours.stop()
            istios.stop(within=PATIENCE)
    cluster.kubectl("delete", "configmap", "istio-cni-config", f"--namespace={ISTIOS}")


def owner(agent: AgentProcess) -> str:
    """Say whose entry and plugin file the node has: `ours` or `istios`; empty: of neither, or of both."""
    try:
        plugins = json.loads((agent.conf_dir / "10-k8s.conflist").read_bytes())["plugins"]
        file = (agent.bin_dir / "istio-cni").read_bytes()
    except (FileNotFoundError, ValueError):
        return ""
    entries = [each for each in plugins if each["type"] == "istio-cni"]
    is_our_file = file == FROZEN.read_bytes()
    if len(entries) != 1 or is_our_file != ("agentSocket" in entries[0]):
        return ""
    return "ours" if is_our_file else "istios"


def settled(agent: AgentProcess, who: str) -> None:
    """Wait until all of the node is of one agent, and neither writes any more."""

    def is_quiet() -> bool:
        before = written(agent)
        time.sleep(QUIET)
        return owner(agent) == who and written(agent) == before

    until(is_quiet, PATIENCE, f"all is {who}, and nobody writes")


def written(agent: AgentProcess) -> list[tuple[str, int]]:
    """Identify what is in both directories: a file that is written anew is another one."""
    return sorted(
        (each.name, each.stat().st_ino) for folder in (agent.conf_dir, agent.bin_dir) for each in folder.iterdir()
    )


def test_ours_prevails_and_neither_keeps_writing(both: tuple[AgentProcess, ContainedAgent]) -> None:
    ours, istios = both
    istios.start()
    settled(ours, "istios")
    ours.start().ready(PATIENCE)
    settled(ours, "ours")

    token = istios.root / ACCOUNT / "token"
    token.write_text(token.read_text())  # renewed: Istio's agent writes all again
    settled(ours, "ours")
    (ours.conf_dir / "10-k8s.conflist").write_text(PRIMARY)
    settled(ours, "ours")
    istios.stop(within=PATIENCE)  # takes an entry and the plugin file away
    settled(ours, "ours")
    istios.start()
    settled(ours, "ours")
    istios.stop(signal.SIGKILL)
    istios.start()
    settled(ours, "ours")
    ours.stop(signal.SIGKILL)
    settled(ours, "ours")
    ours.start().ready(PATIENCE)
    settled(ours, "ours")
    until(lambda: ours.get("/readyz")[0] == 200, PATIENCE, "it is ready")
    assert "another program keeps undoing the installation" not in ours.log.read_text()


def test_what_an_uninstall_takes_away_istios_agent_puts_back(
    both: tuple[AgentProcess, ContainedAgent], cluster: Cluster
) -> None:
    ours, istios = both
    ours.start().ready()
    istios.start()
    settled(ours, "ours")
    cluster.kubectl("delete", "daemonset", "istio-cni-node", f"--namespace={NAMESPACE}")
    assert ours.stop(within=PATIENCE) == 0
    settled(ours, "istios")
