"""containerd's own choice after each write of the primary CNIs of the table, once our agent is done."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest

from installer.agent.node import Node as Reconciled
from installer.config.desired import DesiredState
from installer.host.uninstall import uninstall
from tests.agent.test_primaries import look, take_turn
from tests.cniconfig.primaries import PRIMARIES
from tests.support.containerd import Node
from tests.support.mesh import Mesh, rules
from tests.support.ondisk import NodeOnDisk
from tests.support.wait import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.cniconfig.primaries import Turn

pytestmark = pytest.mark.containerd

SOON = 15.0


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(tmp_path_factory.mktemp("node") / "node") as node:
        yield node


def has_loaded(node: Node, types: list[str]) -> bool:
    return node.plugins_loaded() == types


@pytest.mark.parametrize("turns", PRIMARIES.values(), ids=PRIMARIES)
def test_containerd_loads_the_primary_and_the_plugin(node: Node, tmp_path: Path, turns: Sequence[Turn]) -> None:
    disk = NodeOnDisk.make(tmp_path, cni_conf_dir=str(node.conf_dir))
    agent = Reconciled(lambda: DesiredState(disk.settings), lambda: True)
    for turn in turns:
        take_turn(node.conf_dir, turn)
        look(agent, turn)
        expected = [*turn.runs, *([turn.ours] if turn.ours and turn.runs else [])]
        if turn.runs:
            until(partial(has_loaded, node, expected), SOON, f"containerd has loaded {expected}")
    [*uninstall(disk.settings)]
    until(lambda: node.plugins_loaded() == list(turns[-1].runs), SOON, "containerd runs what the primary has left")
    for path in node.conf_dir.iterdir():
        path.unlink()


def test_pods_of_a_network_with_a_single_configuration_are_redirected(tmp_path: Path) -> None:
    """The owner's file stays unchanged; a pod that starts after its deletion and return is redirected too."""
    with Mesh(tmp_path / "mesh") as mesh:
        listed = mesh.node.write_primary()
        read = json.loads(listed.read_text())
        content = json.dumps({"cniVersion": read["cniVersion"], "name": read["name"], **read["plugins"][0]})
        path = listed.with_name("10-k8s.conf")
        path.write_text(content)
        listed.unlink()
        mesh.node.wait_network_ready()
        mesh.agent.start()
        mesh.agent.ready()
        until(lambda: mesh.node.plugins_loaded() == ["bridge", "istio-cni"], SOON, "the runtime takes our list")
        first = mesh.create("first", injected=True)
        assert "REDIRECT" in rules(first) or "redirect" in rules(first)
        path.unlink()
        until(lambda: not mesh.node.network_ready()[0] or not mesh.node.plugins_loaded(), SOON, "no network is left")
        path.write_text(content)
        until(lambda: mesh.node.plugins_loaded() == ["bridge", "istio-cni"], SOON, "the runtime takes our list again")
        second = mesh.create("second", injected=True)
        assert "redirect" in rules(second).lower()
        assert path.read_text() == content
        mesh.agent.stop()
        assert path.read_text() == content
