"""Each primary CNI of the table: the plugins that the runtime runs after each of its writes, and a clean uninstall."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from installer.agent.node import Node
from installer.agent.repairs import NotNowError
from installer.cniconfig import conflist
from installer.config.desired import DesiredState
from installer.host.uninstall import uninstall
from tests.cniconfig.primaries import PRIMARIES
from tests.support.ondisk import NodeOnDisk, replace_file, settle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.cniconfig.primaries import Turn

pytestmark = pytest.mark.kernel


def take_turn(conf: Path, turn: Turn) -> dict[str, bytes]:
    """Do what the primary does; return what it wrote."""
    before = {path.name: path.read_bytes() for path in conf.iterdir()}
    written = {name: content(before) if callable(content) else content for name, content in turn.does.items()}
    for name, content in written.items():
        if content is None:
            (conf / name).unlink()
        else:
            replace_file(conf / name, content)
    return {name: content for name, content in written.items() if content is not None}


def look(node: Node, turn: Turn) -> None:
    """Run passes until there is nothing left to do."""
    try:
        settle(node)
    except NotNowError:
        assert not turn.runs


def chain(conf: Path) -> list[str]:
    """The types of the plugins of the first file by libcni's rule."""
    names = sorted(path.name for path in conf.iterdir() if path.suffix in (".conflist", ".conf", ".json"))
    if not names:
        return []
    read = json.loads((conf / names[0]).read_bytes())
    return [plugin["type"] for plugin in read.get("plugins", [read])]


@pytest.mark.parametrize("owned", ["false", "true"])
@pytest.mark.parametrize("turns", PRIMARIES.values(), ids=PRIMARIES)
def test_the_runtime_runs_the_plugin_and_uninstall_restores_the_primarys_file(
    tmp_path: Path, turns: Sequence[Turn], owned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("installer.agent.conflist_entry.SOURCE_GRACE", 0.0)
    disk = NodeOnDisk.make(tmp_path, istio_owned_cni_config=owned)
    node = Node(lambda: DesiredState(disk.settings), lambda: True)
    written: dict[str, bytes] = {}
    for turn in turns:
        written = {name: content for name, content in written.items() if name not in turn.does}
        written |= take_turn(disk.conf, turn)
        look(node, turn)
        assert chain(disk.conf) == [*turn.runs, *([turn.ours] if turn.ours and turn.runs else [])]
        if turn.runs and owned == "false":
            assert node.state.conflist == turn.entry
        if turn.runs:
            assert disk.has_entry(node.state.conflist or "")
        for name, content in written.items():
            if not name.endswith((".conflist", ".cilium_bak")) or owned == "true":
                assert (disk.conf / name).read_bytes() == without_entry(name, content)
    assert not [done for done in uninstall(disk.settings) if done.failed and "stays" not in done.text]
    assert disk.files() == {name: without_entry(name, content) for name, content in written.items()}


def without_entry(name: str, content: bytes) -> bytes:
    """The primary's own content: some write back what they read, with our entry in it. A `.conf` is never changed."""
    return conflist.remove(content) if ".conflist" in name else content


@pytest.mark.parametrize("turns", PRIMARIES.values(), ids=PRIMARIES)
def test_each_primary_writes_three_configurations(turns: Sequence[Turn]) -> None:
    assert len(turns) == 3
