"""The count of redirected pods: each agent counts from its start what the netns hold, whoever wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.containerd.test_pod_repair import OF_ANOTHER, SOON
from tests.containerd.test_unredirected import count
from tests.repair.test_families import OF_ISTIO
from tests.support.mesh import Mesh
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.containerd


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    """A node with the plugin."""
    with Mesh(tmp_path) as mesh:
        mesh.node.write_primary()
        mesh.node.wait_network_ready()
        yield mesh


@pytest.mark.parametrize("mode", ["none", "redirect"])
def test_a_new_agent_counts_existing_redirects(mesh: Mesh, mode: str) -> None:
    for name, variant in (("of-iptables", "nft"), ("of-legacy", "legacy")):
        pod = mesh.create(name, injected=True)
        for command in ("iptables", "ip6tables"):
            pod.inside([f"/usr/sbin/{command}-{variant}-restore", "--noflush"], stdin=OF_ANOTHER)
    by_nft = mesh.create("of-nft", injected=True)
    by_nft.inside(["/usr/sbin/nft", "-f", "-"], stdin=OF_ISTIO)
    mesh.create("plain", injected=False)
    mesh.create("excluded", "istio-system", injected=True)
    mesh.agent.set("repair-mode", mode)
    mesh.agent.start()
    mesh.agent.ready()
    until(lambda: mesh.node.plugins_loaded()[-1:] == ["istio-cni"], SOON, "the runtime has loaded the entry")
    until(lambda: count(mesh, "redirected") == "3.0", SOON, "those of another's are counted")
    pods = [mesh.create(f"ours-{number}", injected=True) for number in range(2)]
    until(lambda: count(mesh, "redirected") == "5.0", SOON, "those of ours are counted")
    mesh.agent.stop()
    mesh.agent.start()
    mesh.agent.ready()
    until(lambda: count(mesh, "redirected") == "5.0", SOON, "the next agent counts them")
    pods[0].inside(["/usr/sbin/nft", "flush", "ruleset"])
    mesh.agent.stop()
    mesh.agent.set("repair-mode", "none")
    mesh.agent.start()
    mesh.agent.ready()
    until(lambda: count(mesh, "redirected") == "4.0", SOON, "what a netns holds counts, not what was decided")
    assert count(mesh) == "1.0"
