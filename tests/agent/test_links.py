"""A configuration that is a symbolic link stays one: its target is edited, or our own list precedes it (F41)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from installer.agent.node import Node
from installer.agent.repairs import NotNowError
from installer.cniconfig import conflist
from installer.config.desired import DesiredState
from installer.fleet.state import Form
from installer.host import exchange
from installer.host.uninstall import uninstall
from tests.support.ondisk import PRIMARY, SINGLE, NodeOnDisk, names, replace_file, running, settle
from tests.support.wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.kernel

LINK = "10-primary.conflist"
OWN = "10-primary-istio-cni.conflist"


@pytest.fixture
def node(tmp_path: Path) -> NodeOnDisk:
    return NodeOnDisk.make(tmp_path)


def link(node: NodeOnDisk, target: str, name: str = LINK) -> None:
    (node.conf / name).symlink_to(target)


def links(node: NodeOnDisk) -> dict[str, str]:
    return {path.name: os.readlink(path) for path in node.conf.iterdir() if path.is_symlink()}  # noqa: PTH115


def check(node: NodeOnDisk, edited: str | None) -> None:
    """Install and uninstall: the link never changes, and finally every byte is the same.

    Args:
        node: with its files.
        edited: the file that gets the entry; None: no file of the node.
    """
    before, was = node.files(), links(node)
    state = node.install().state
    assert links(node) == was
    if edited:
        assert (state.conflist, state.form) == (LINK, Form.CHAINED)
        assert node.has_entry(edited)
        assert node.has_entry(LINK)
        assert OWN not in names(node.conf)
    else:
        assert (state.conflist, state.form) == (OWN, Form.OWNED)
        assert node.has_entry(OWN)
        assert {name: content for name, content in node.files().items() if name != OWN} == before
    assert Node(lambda: DesiredState(node.settings), lambda: True).reconcile_once(full=True) is False
    assert not [done for done in uninstall(node.settings) if done.failed]
    assert (node.files(), links(node)) == (before, was)


@pytest.mark.parametrize("target", ["primary.real", "20-b.conflist", "./primary.real", "{conf}/primary.real"])
def test_the_target_in_the_same_directory_is_edited(node: NodeOnDisk, target: str) -> None:
    target = target.format(conf=node.conf)
    link(node, target)
    name = target.rpartition("/")[2]
    (node.conf / name).write_bytes(PRIMARY)
    check(node, name)


def test_a_chain_of_links_is_edited_at_its_final_target(node: NodeOnDisk) -> None:
    link(node, "20-b.conflist")
    link(node, str(node.conf / "real"), "20-b.conflist")
    (node.conf / "real").write_bytes(PRIMARY)
    check(node, "real")


@pytest.mark.parametrize("target", ["{root}/outside", "../outside", "..data/real", "20-b.conf"])
def test_a_target_elsewhere_is_left_alone_and_our_own_list_precedes_it(node: NodeOnDisk, target: str) -> None:
    """Outside the directory; as in a ConfigMap's volume; the name of another owner's single configuration."""
    (node.conf / "..2026").mkdir()
    link(node, "..2026", "..data")
    target = target.format(root=node.root)
    link(node, target)
    real = (node.conf / LINK).resolve()
    real.write_bytes(PRIMARY)
    check(node, None)
    assert real.read_bytes() == PRIMARY


def test_our_own_list_precedes_a_single_configuration_that_is_a_link(node: NodeOnDisk) -> None:
    link(node, "real", "10-primary.conf")
    (node.conf / "real").write_bytes(SINGLE)
    check(node, None)


def test_other_hard_links_of_an_edited_file_keep_the_old_content(node: NodeOnDisk) -> None:
    (node.root / "other").write_bytes(PRIMARY)
    (node.conf / LINK).hardlink_to(node.root / "other")
    check(node, LINK)
    assert (node.root / "other").read_bytes() == PRIMARY


@pytest.mark.parametrize("target", ["nowhere", LINK, "loop"])
def test_dangling_and_circular_links_are_skipped(node: NodeOnDisk, target: str) -> None:
    link(node, "loop", "loop")
    link(node, target)
    (node.conf / "20-b.conflist").write_bytes(PRIMARY)
    before = links(node)
    assert node.install().state.conflist == "20-b.conflist"
    assert links(node) == before


async def test_a_write_to_the_target_is_noticed_and_the_entry_restored(node: NodeOnDisk) -> None:
    link(node, "real")
    real = node.conf / "real"
    real.write_bytes(PRIMARY)
    async with running(node.settings) as run:
        await run.until(lambda state: state.installed)
        replace_file(real, PRIMARY.replace(b"1400", b"9000"))
        await eventually(
            lambda: b"9000" in real.read_bytes() and node.has_entry("real"), 10, "the entry in the new content"
        )
        await run.until(lambda state: state.installed and state.repairs == 1)
    assert conflist.remove(real.read_bytes()) == PRIMARY.replace(b"1400", b"9000")


async def test_a_link_that_is_replaced_by_another_or_by_a_file_is_followed(node: NodeOnDisk) -> None:
    for name in ("real", "newer"):
        (node.conf / name).write_bytes(PRIMARY)
    link(node, "real")
    async with running(node.settings) as run:
        await run.until(lambda state: state.installed)
        (node.conf / "beside").symlink_to("newer")
        (node.conf / "beside").rename(node.conf / LINK)
        await eventually(lambda: node.has_entry("newer"), 10, "the entry in the new target")
        replace_file(node.conf / LINK, PRIMARY)
        await eventually(
            lambda: not (node.conf / LINK).is_symlink() and node.has_entry(LINK), 10, "the entry in the file"
        )
        await run.until(lambda state: state.installed)


@pytest.mark.parametrize("moment", ["before the exchange", "before it is opened"])
def test_a_link_that_replaces_the_file_during_a_write_is_never_written_through(
    node: NodeOnDisk, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    outside = node.root / "outside"
    outside.write_bytes(PRIMARY)
    path = node.conf / LINK
    path.write_bytes(PRIMARY)

    def swap() -> None:
        if not path.is_symlink():
            (node.conf / "beside").symlink_to(outside)
            (node.conf / "beside").rename(path)

    def after_swap(call: Callable[..., Any]) -> Callable[..., Any]:
        def swapped(*args: Any, **kwargs: Any) -> Any:
            swap()
            return call(*args, **kwargs)

        return swapped

    agent = Node(lambda: DesiredState(node.settings), lambda: True)
    name = "renameat2" if moment == "before the exchange" else "_open_expected"
    monkeypatch.setattr(exchange, name, after_swap(getattr(exchange, name)))
    with pytest.raises(exchange.OutdatedError):
        agent.reconcile_once(full=True)
    monkeypatch.undo()
    assert path.readlink() == outside
    assert outside.read_bytes() == PRIMARY
    settle(agent)
    assert names(node.conf) == [OWN, LINK]
    assert outside.read_bytes() == PRIMARY


def mounted(node: NodeOnDisk) -> NodeOnDisk:
    """The node as seen from a container: cniConfDir at another path, and nothing else of the host."""
    mounts = node.root / "host"
    mounts.mkdir()
    (mounts / "cni-bin-dir").symlink_to(node.bin)
    node.conf.rename(mounts / "cni-conf-dir")
    texts = {"mounts": str(mounts), "cni_conf_dir": "/etc/cni/net.d-of-the-node"}
    return NodeOnDisk.open(node.root, **texts)


def test_absolute_links_resolve_in_a_container_as_on_the_node(node: NodeOnDisk) -> None:
    link(node, "/etc/cni/net.d-of-the-node/real")
    (node.conf / "real").write_bytes(PRIMARY)
    there = mounted(node)
    assert there.install().state.conflist == LINK
    conf = there.settings.conf_dir_mount
    assert b"istio-cni" in (conf / "real").read_bytes()
    assert not [done for done in uninstall(there.settings) if done.failed]
    assert (conf / "real").read_bytes() == PRIMARY


@pytest.mark.parametrize("target", ["/opt/network/real", "../real", "{root}/real", "sub/../../real"])
def test_a_link_that_the_container_cannot_resolve_is_reported(node: NodeOnDisk, target: str) -> None:
    (node.root / "real").write_bytes(PRIMARY)  # where the link leads in this container: not the node's file
    (node.root / "host-real").write_bytes(PRIMARY)
    link(node, target.format(root=node.root))
    (node.conf / "sub").mkdir()
    (node.conf / "20-b.conflist").write_bytes(PRIMARY)
    there = mounted(node)
    (there.settings.conf_dir_mount.parent / "real").write_bytes(PRIMARY)
    with pytest.raises(
        NotNowError, match=r"10-primary.conflist: .*leads out of the directory, to .* does not see: point it at"
    ):
        there.install()
    conf = there.settings.conf_dir_mount
    assert names(conf) == [LINK, "20-b.conflist", "sub"]
    assert (conf / "20-b.conflist").read_bytes() == PRIMARY
