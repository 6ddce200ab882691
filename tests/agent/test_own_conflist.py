"""A single configuration stays its owner's; our own list is made from it and follows it (F2, F9, F11)."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from installer.agent import conflist_entry
from installer.agent.node import Node
from installer.agent.repairs import NotNowError
from installer.cniconfig import conflist
from installer.config.desired import DesiredState
from installer.config.settings import build_entry
from installer.fleet.state import Form
from installer.host import exchange
from installer.host.uninstall import uninstall
from installer.ratelimit.limiter import REPAIRS
from tests.support.ondisk import PRIMARY, SINGLE, NodeOnDisk, names, replace_file, running, settle
from tests.support.wait import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.kernel

NAME, OWN = "10-primary.conf", "10-primary-istio-cni.conflist"
OWNED = "02-istio-cni.conflist"
OTHER = SINGLE.replace(b"bridge", b"ptp")


@pytest.fixture
def single(tmp_path: Path) -> NodeOnDisk:
    node = NodeOnDisk.make(tmp_path)
    (node.conf / NAME).write_bytes(SINGLE)
    return node


@pytest.fixture
def owned(tmp_path: Path) -> NodeOnDisk:
    node = NodeOnDisk.make(tmp_path, istio_owned_cni_config="true")
    (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
    return node


def first(node: NodeOnDisk, name: str = OWN) -> str:
    """The type of the first plugin of our list; empty if there is no list."""
    path = node.conf / name
    return str(json.loads(path.read_bytes())["plugins"][0]["type"]) if path.exists() else ""


def in_place(path: Path) -> None:
    path.write_bytes(OTHER)


def by_rename(path: Path) -> None:
    replace_file(path, OTHER)


def deleted_and_made(path: Path) -> None:
    path.unlink()
    path.write_bytes(OTHER)


def moved_away_and_made(path: Path) -> None:
    path.rename(path.with_name("10-primary.conf.cilium_bak"))
    path.write_bytes(OTHER)


@pytest.mark.parametrize("write", [in_place, by_rename, deleted_and_made, moved_away_and_made])
async def test_it_follows_each_change_of_its_source_without_counting_a_repair(
    single: NodeOnDisk, write: Callable[[Path], None]
) -> None:
    async with running(single.settings) as run:
        await run.until(lambda state: state.installed and state.form is Form.OWNED)
        write(single.conf / NAME)
        await eventually(lambda: first(single) == "ptp", 10, "the list follows")
        state = await run.until(lambda state: state.installed)
    assert (single.conf / NAME).read_bytes() == OTHER
    assert single.has_entry(OWN)
    assert state.conflist == OWN
    assert state.repairs == 0 or write in (deleted_and_made, moved_away_and_made)


async def test_it_is_deleted_and_restored_with_its_source(single: NodeOnDisk) -> None:
    async with running(single.settings) as run:
        await run.until(lambda state: state.installed)
        (single.conf / NAME).unlink()
        await eventually(lambda: names(single.conf) == [], 10, "nothing is left of a dead network")
        state = await run.until(lambda state: not state.installed)
        assert state.reason
        assert "configuration files: saw none" in state.reason
        (single.conf / NAME).write_bytes(SINGLE)
        await run.until(lambda state: state.installed)
    assert single.has_entry(OWN)


async def test_it_is_deleted_when_a_list_replaces_its_source(single: NodeOnDisk) -> None:
    """As Flannel, Calico and OVN did when they moved to lists, deleting the old file at once or never."""
    listed = single.conf / "10-primary.conflist"
    async with running(single.settings) as run:
        await run.until(lambda state: state.installed)
        listed.write_bytes(PRIMARY)
        (single.conf / NAME).unlink()
        await run.until(lambda state: state.installed and state.conflist == listed.name)
        await eventually(lambda: names(single.conf) == [listed.name], 10, "our list is gone")
        (single.conf / "05-new.conflist").write_bytes(PRIMARY)
        await run.until(lambda state: state.installed and state.conflist == "05-new.conflist")
    assert conflist.remove(listed.read_bytes()) == listed.read_bytes() == PRIMARY


@pytest.mark.parametrize("damage", ["deleted", "entry taken out", "emptied", "changed"])
async def test_changes_by_other_programs_are_repaired(single: NodeOnDisk, damage: str) -> None:
    async with running(single.settings) as run:
        await run.until(lambda state: state.installed)
        path = single.conf / OWN
        right = path.read_bytes()
        if damage == "deleted":
            path.unlink()
        else:
            path.write_bytes(
                {"entry taken out": conflist.remove(right), "emptied": b"", "changed": right.replace(b"k8s", b"k9s")}[
                    damage
                ]
            )
        await run.until(lambda state: state.installed and state.repairs == 1)
        assert path.read_bytes() == right


async def test_it_holds_the_last_of_several_contents_within_milliseconds(single: NodeOnDisk) -> None:
    """As with a list (F33): 60 rounds of two writes, alternately in place and by rename."""
    path = single.conf / NAME
    async with running(single.settings) as run:
        await run.until(lambda state: state.installed)
        for number in range(60):
            path.write_bytes(SINGLE.replace(b'"bridge"', b'"bridge", "written": "%d-0"' % number))
            await asyncio.sleep((number % 13) / 1000)
            replace_file(path, SINGLE.replace(b'"bridge"', b'"bridge", "written": "%d-1"' % number))
        await eventually(lambda: b'"59-1"' in (single.conf / OWN).read_bytes(), 20, "the list has the last content")
        state = await run.until(lambda state: state.installed)
    assert b'"59-1"' in path.read_bytes()
    assert state.repairs == 0


async def test_a_source_written_in_a_loop_is_followed_slowly_up_to_the_last_write(single: NodeOnDisk) -> None:
    path, inodes = single.conf / NAME, set()
    async with running(single.settings) as run:
        await run.until(lambda state: state.installed)
        for number in range(200):
            path.write_bytes(SINGLE.replace(b'"bridge"', b'"bridge", "written": %d' % number))
            await asyncio.sleep(0.005)
            inodes.add((single.conf / OWN).stat().st_ctime_ns)
            assert all(state.installed for state in run.states[1:])
        await eventually(
            lambda: b'"written": 199' in (single.conf / OWN).read_bytes(), 20, "the list has the last content"
        )
    assert len(inodes) <= 2 + REPAIRS.burst + 5 * REPAIRS.sustained  # the burst, and what the clock allowed meanwhile


def test_a_restarted_agent_recognises_it_and_changes_nothing(single: NodeOnDisk) -> None:
    single.install()
    before = {path: path.stat() for path in single.conf.iterdir()}
    assert Node(lambda: DesiredState(single.settings), lambda: True).reconcile_once(full=True) is False
    assert {path: path.stat() for path in single.conf.iterdir()} == before


@pytest.mark.parametrize("kept", [[], ["99-other.conflist"], [NAME]])
def test_a_restarted_agent_deletes_it_if_its_source_is_gone(single: NodeOnDisk, kept: list[str]) -> None:
    single.install()
    (single.conf / "99-other.conflist").write_bytes(PRIMARY)
    for name in (NAME, "99-other.conflist"):
        if name not in kept:
            (single.conf / name).unlink()
    if kept:
        single.install()
    else:
        with pytest.raises(NotNowError, match="saw none"):
            single.install()
    assert ((single.conf / OWN).exists(), sorted({NAME, "99-other.conflist"} & set(names(single.conf)))) == (
        NAME in kept,
        kept,
    )


@pytest.mark.parametrize(
    "change", [{"chained": False}, {"cni_conf_file_name": "20-b.conflist"}, {"agent_socket": None}]
)
def test_changed_settings_update_or_delete_it(single: NodeOnDisk, change: dict[str, object]) -> None:
    (single.conf / "20-b.conflist").write_bytes(PRIMARY)
    now = [DesiredState(single.settings)]
    node = Node(lambda: now[0], lambda: True)
    settle(node)
    assert single.has_entry(OWN)
    if "agent_socket" in change:
        change = {"agent_socket": single.root / "run" / "other.sock"}
    now[0] = DesiredState(replace(single.settings, **change))  # type: ignore[arg-type]
    state = settle(node)
    assert (single.conf / OWN).exists() is ("agent_socket" in change)
    assert (single.conf / NAME).read_bytes() == SINGLE
    if "agent_socket" in change:
        assert json.loads((single.conf / OWN).read_bytes())["plugins"][-1] == build_entry(now[0].settings)
    assert state.repairs == 0
    now[0] = DesiredState(now[0].settings, installed=False, reason="enabled: false")
    settle(node)
    assert single.files() == {NAME: SINGLE, "20-b.conflist": PRIMARY}


def test_it_is_not_written_if_its_source_changes_meanwhile(single: NodeOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the source right before the name appears, when the new file is already on the disk."""
    node = Node(lambda: DesiredState(single.settings), lambda: True)
    rename = os.rename

    def raced(*args: object, **kwargs: object) -> None:
        rename(*args, **kwargs)  # type: ignore[arg-type]
        (single.conf / NAME).unlink(missing_ok=True)

    monkeypatch.setattr(os, "rename", raced)
    with pytest.raises(exchange.OutdatedError):
        node.reconcile_once(full=True)
    assert names(single.conf) == []


@pytest.mark.parametrize("name", ["!a.conf", "00-a.json", "~.conf", "10-é.conf"])
def test_it_sorts_before_its_source_whatever_the_name(tmp_path: Path, name: str) -> None:
    node = NodeOnDisk.make(tmp_path)
    (node.conf / name).write_bytes(SINGLE)
    state = node.install().state
    assert min(names(node.conf), key=os.fsencode) == state.conflist
    assert state.form is Form.OWNED


def test_a_file_in_its_place_is_reported(single: NodeOnDisk) -> None:
    (single.conf / OWN).symlink_to("nowhere")
    with pytest.raises(NotNowError, match=f"cannot create {OWN}, the conflist with {NAME} .*move them out"):
        single.install()
    assert (single.conf / OWN).is_symlink()


async def test_a_network_that_rewrites_its_list_without_us_does_not_drop_us(owned: NodeOnDisk) -> None:
    """The primary CNI rewrites its list while no agent runs, as at a reboot: the runtime takes ours (F2)."""
    owned.install()
    assert owned.files()["10-primary.conflist"] == PRIMARY
    (owned.conf / "10-primary.conflist").write_bytes(PRIMARY.replace(b"1400", b"9000"))
    assert owned.has_entry(OWNED), "before any agent runs"
    async with running(owned.settings) as run:
        await run.until(lambda state: state.installed and state.conflist == OWNED)
        await eventually(lambda: b"9000" in (owned.conf / OWNED).read_bytes(), 10, "it follows")
    assert b"istio-cni" not in (owned.conf / "10-primary.conflist").read_bytes()


async def test_the_list_of_a_deleted_network_is_deleted_after_a_delay(
    owned: NodeOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = owned.conf / "10-primary.conflist"
    async with running(owned.settings) as run:
        await run.until(lambda state: state.installed)
        path.unlink()
        (owned.conf / "99-loopback.conf").write_bytes(SINGLE.replace(b"bridge", b"loopback"))
        (owned.conf / "20-kick.conf").write_bytes(b"")
        await run.until(lambda state: [name for name, _ in state.skipped] == ["20-kick.conf"])
        assert run.reconciler.state.installed
        assert first(owned, OWNED) == "bridge"
        path.write_bytes(PRIMARY.replace(b"1400", b"9000"))
        await eventually(lambda: b"9000" in (owned.conf / OWNED).read_bytes(), 10, "it follows the restored source")
        (owned.conf / "99-loopback.conf").unlink()
        (owned.conf / "20-kick.conf").unlink()
        monkeypatch.setattr(conflist_entry, "SOURCE_GRACE", 0.3)
        path.unlink()
        await eventually(lambda: names(owned.conf) == [], 10, "nothing is left of a dead network")
        await run.until(lambda state: not state.installed)


def test_the_networks_list_gets_the_entry_when_our_own_list_is_not_wanted(owned: NodeOnDisk) -> None:
    now = [DesiredState(owned.settings)]
    node = Node(lambda: now[0], lambda: True)
    settle(node)
    for wanted, listed in ((False, ["10-primary.conflist"]), (True, [OWNED, "10-primary.conflist"])):
        now[0] = DesiredState(replace(owned.settings, istio_owned_cni_config=wanted))
        assert settle(node).repairs == 0
        assert names(owned.conf) == listed
        assert owned.has_entry(listed[0])
    assert not [done for done in uninstall(owned.settings) if done.failed]
    assert owned.files() == {"10-primary.conflist": PRIMARY}


def test_updates_and_deletion_are_logged(single: NodeOnDisk, caplog: pytest.LogCaptureFixture) -> None:
    node = single.install()
    with caplog.at_level(logging.INFO):
        (single.conf / NAME).write_bytes(OTHER)
        settle(node)
        (single.conf / NAME).unlink()
        with pytest.raises(NotNowError):
            settle(node)
    told = [record.message for record in caplog.records]
    assert told == [
        "updated the plugin's own configuration from its source",
        "deleted the plugin's own configuration: its source is gone",
    ]
