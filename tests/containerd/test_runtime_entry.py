"""A container runtime that does not load the configuration with our entry: new pods reveal it, the node reports it (F23)."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from installer.repair.runtime_check import LOADED_WITHIN
from tests.support.conflict import undone
from tests.support.mesh import Mesh, rules
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.containerd

SOON = 15.0
SAYS = "the container runtime does not load the plugin's entry in"


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    """A node with a primary CNI, and our agent, which is not started yet."""
    with Mesh(tmp_path / "mesh") as mesh:
        mesh.node.write_primary()
        mesh.node.wait_network_ready()
        yield mesh


def elsewhere(mesh: Mesh, tmp_path: Path) -> Path:
    """Make the agent manage another directory with an old conflist in it; return that file."""
    old = tmp_path / "old" / "10-old.conflist"
    old.parent.mkdir()
    old.write_bytes((mesh.node.conf_dir / "10-k8s.conflist").read_bytes())
    mesh.agent.set("cni-conf-dir", old.parent)
    mesh.mount("cni-conf-dir", old.parent)
    return old


def readiness(mesh: Mesh) -> str:
    """Read the runtime's condition from /readyz."""
    return next(line for line in mesh.agent.get("/readyz")[1].splitlines() if line.startswith("runtime: "))


def log(mesh: Mesh) -> str:
    """Read the pods and the reasons from the log."""
    lines = [json.loads(line) for line in mesh.agent.log.read_text().splitlines()]
    return "\n".join(f"{line.get('pod', '')}: {line.get('reason', '')}" for line in lines)


@pytest.mark.parametrize("mode", ["redirect", "none", "delete"])
def test_the_second_pod_without_the_entry_makes_the_node_not_ready(mesh: Mesh, tmp_path: Path, mode: str) -> None:
    old = elsewhere(mesh, tmp_path)
    mesh.agent.set("repair-mode", mode)
    mesh.agent.start()
    mesh.agent.ready()
    before = mesh.create("before", injected=False)  # may have begun while the runtime had not noticed yet
    time.sleep(LOADED_WITHIN)
    first = mesh.create("first", injected=True)
    until(lambda: "first" in log(mesh) or rules(first), SOON, "the agent has seen it")
    assert readiness(mesh) == "runtime: ok"
    mesh.create("second", injected=False)  # outside the mesh, but it would have used the entry too
    until(lambda: SAYS in readiness(mesh), SOON, "the node is not ready")
    assert mesh.agent.get("/readyz")[0] == 503
    for part in (str(old), "shop/first, shop/second", "the network k8s", "cniConfDir"):
        assert part in readiness(mesh)
    assert SAYS in log(mesh)
    if mode == "delete":
        until(lambda: "is not deleted" in log(mesh), SOON, "a pod that would start without it again is not deleted")
    mesh.agent.stop()
    mesh.agent.start()
    until(lambda: SAYS in mesh.agent.get("/readyz")[1], SOON, "a restarted agent detects it too")
    before.remove()
    first.remove()
    time.sleep(3)
    assert SAYS in readiness(mesh)  # the pods are gone, and nothing is better
    shutil.copy(old, mesh.node.conf_dir / "10-k8s.conflist")  # the runtime has the entry now
    until(lambda: "istio-cni" in mesh.node.plugins_loaded(), SOON, "the runtime has loaded it")
    third = mesh.create("third", injected=False)
    until(lambda: readiness(mesh) == "runtime: ok", SOON, "a pod that went through the entry shows that it is loaded")
    assert third.ips


def test_pods_set_up_through_the_entry_or_before_it_do_not_count(mesh: Mesh) -> None:
    early = [mesh.create(f"early-{number}", injected=False) for number in range(2)]
    mesh.agent.start()
    mesh.agent.ready()
    conflist = mesh.node.conf_dir / "10-k8s.conflist"
    with undone(conflist, mesh.node.write_primary):
        until(lambda: "istio_cni_conflict 1.0" in mesh.agent.get("/metrics")[1], SOON, "they conflict")
        fought = [mesh.create(f"fought-{number}", injected=False) for number in range(3)]
    until(lambda: mesh.agent.get("/readyz")[0] == 200, 2 * SOON, "the conflict is over")
    time.sleep(LOADED_WITHIN)
    late = [mesh.create("excluded", "istio-system", injected=True), mesh.create("plain", injected=False)]
    late.append(mesh.create("meshed", injected=True))
    mesh.agent.stop()
    late.append(mesh.create("alone", injected=False))  # the agent is away: only its configuration tells
    mesh.agent.start()
    mesh.agent.ready()
    time.sleep(5)  # two checks
    assert readiness(mesh) == "runtime: ok"
    assert len([*early, *fought, *late]) == 9
