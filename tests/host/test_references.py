"""The plugin file stays while a file in cniConfDir names it, however others copied our entry (F34)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from installer.agent.node import Node
from installer.config.desired import DesiredState
from installer.config.settings import build_entry
from installer.host.directory import Directory
from installer.host.references import DEPTH, MOST_NAMES, names_plugin, references
from tests.host.test_uninstall import uninstall
from tests.support.ondisk import PRIMARY, NodeOnDisk, settle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.kernel

OURS = {"type": "istio-cni", "agentSocket": "/var/run/istio-cni/agent.sock"}
LIST = {"cniVersion": "1.0.0", "name": "k8s", "plugins": [{"type": "bridge"}, OURS]}
MULTUS = {"cniVersion": "1.0.0", "name": "multus", "type": "multus", "delegates": [LIST]}
ESCAPED = json.dumps(MULTUS).replace("istio-cni", r"istio\u002dcni")


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(MULTUS),
        json.dumps({"a": [[{"b": {"c": [OURS]}}]]}),
        json.dumps(MULTUS | {"delegates": [{"config": json.dumps(LIST)}]}),
        json.dumps(MULTUS | {"delegates": [{"config": ESCAPED}]}),
        json.dumps({"type": "meta", "chain": ["bridge", "istio-cni"]}),
        json.dumps({"type": "meta", "exec": "/opt/cni/bin/istio-cni"}),
        '{"type": "istio-cni", "type": "bridge"}',
        ESCAPED,
        json.dumps(MULTUS)[:-1],
        ESCAPED[:-1],
        "// Multus\n" + json.dumps(MULTUS),
        '{"x": "\\ud800", "type": "istio-cni"}',
        "\ufeff" + json.dumps(MULTUS),
        '{"type": "istio-cni", "x": ' + "[" * 100_000,
        '{"x":' * 500 + json.dumps(OURS) + "}" * 500,
        '{"x":' * 100_000 + json.dumps(OURS) + "}" * 100_000,
    ],
)
def test_a_reference_is_found_anywhere_in_the_file(content: str) -> None:
    assert names_plugin(content.encode("utf-8"))


@pytest.mark.parametrize(
    "content",
    [
        PRIMARY.decode(),
        "",
        "{",
        json.dumps({"name": "istio-cni", "type": "bridge"}),
        json.dumps({"type": "bridge", "comment": "before istio-cni came", "other": "not-istio-cni"}),
        json.dumps({"type": "istio-cni-other"}),
        json.dumps({"type": "bridge", "text": "[no JSON]", "istio-cni": 1}),
    ],
)
def test_a_file_that_does_not_name_the_plugin_is_no_reference(content: str) -> None:
    assert not names_plugin(content.encode("utf-8"))


def found(folder: Path) -> list[str]:
    with Directory(folder) as opened:
        return [each.file for each in references(opened)]


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("00-multus.conf", True),
        ("00-multus.json", True),
        ("99-z.conflist", True),
        (".hidden.conf", True),
        ("k8s/50-more.conf", True),
        ("multus.d/daemon.json", True),
        ("a/b/c/d/e.conf", True),
        ("10-x.conflist.cilium_bak", False),
        ("README", False),
    ],
)
def test_all_files_read_by_a_runtime_or_meta_plugin_are_searched(tmp_path: Path, name: str, holds: bool) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(json.dumps(MULTUS))
    assert found(tmp_path) == ([name] if holds else [])


def a_link_out(folder: Path) -> None:
    (folder / "x.conf").symlink_to("/nowhere/x.conf")


def a_large_file(folder: Path) -> None:
    (folder / "x.conf").write_bytes(b" " * (2 << 20))


def a_fifo(folder: Path) -> None:
    os.mkfifo(folder / "x.conf")


def a_link_to_itself(folder: Path) -> None:
    (folder / "x.conf").symlink_to("x.conf")


@pytest.mark.parametrize("make", [a_link_out, a_large_file, a_fifo, a_link_to_itself])
def test_an_unreadable_file_counts_as_a_reference(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    with Directory(tmp_path) as opened:
        (only,) = references(opened)
    assert only.file == "x.conf"
    assert only.doubt


def test_the_search_of_a_huge_directory_is_bounded_and_reported(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    assert found(tmp_path) == []
    deep = tmp_path / "deep"
    for number in range(DEPTH + 1):
        deep = deep / str(number)
    deep.mkdir(parents=True)
    assert found(tmp_path) == ["deep/0/1/2/3/"]
    many = tmp_path / "many"
    many.mkdir()
    for number in range(MOST_NAMES + 1):
        (many / str(number)).symlink_to("x")
    assert found(many) == [str(many)]


def copied(node: NodeOnDisk) -> Path:
    """Do as Multus does: copy the spliced list into an own configuration."""
    spliced = json.loads((node.conf / "10-primary.conflist").read_bytes())
    own = node.conf / "multus.d" / "00-multus.conf"
    own.parent.mkdir()
    own.write_text(json.dumps(MULTUS | {"delegates": [spliced]}))
    return own


def test_uninstall_leaves_a_referenced_plugin_file_says_why_and_deletes_it_later(node: NodeOnDisk) -> None:
    node.install()
    own = copied(node)
    result = uninstall(node)
    assert result.exit_code == 1
    assert f"{node.plugin} stays, as it is named in {own}: " in result.stderr
    assert "Multus" in result.stderr
    assert (node.conf / "10-primary.conflist").read_bytes() == PRIMARY
    assert node.plugin.exists()
    own.write_bytes(PRIMARY)
    assert uninstall(node).exit_code == 0
    assert not node.plugin.exists()


def test_an_agent_that_uninstalls_deletes_the_plugin_file_once_unreferenced(node: NodeOnDisk) -> None:
    orders = [DesiredState(node.settings)]
    reconciled = Node(lambda: orders[-1], lambda: True)
    settle(reconciled)
    own = copied(node)
    orders.append(DesiredState(node.settings, installed=False, reason="spec.cni.enabled is false"))
    state = settle(reconciled)
    assert (state.removed, state.reason) == (True, None)
    assert str(own) in state.stays
    assert node.plugin.exists()
    own.unlink()
    assert settle(reconciled).stays == ""
    assert not node.plugin.exists()
    own.write_text(json.dumps(MULTUS))
    assert settle(reconciled).stays == "", "a deleted file is not reported to stay"


def test_entries_in_the_agents_own_files_are_no_references(node: NodeOnDisk) -> None:
    node.install()
    other = json.loads(PRIMARY)
    (node.conf / "20-b.conflist").write_text(
        json.dumps(other | {"plugins": [*other["plugins"], build_entry(node.settings)]})
    )
    assert uninstall(node).exit_code == 0
    assert not node.plugin.exists()
