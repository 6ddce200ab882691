"""The reconciler applies changed settings without a restart, and counts no repair."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from installer.config.desired import DesiredState
from installer.config.settings import build_entry
from installer.fleet.state import Form
from tests.support.ondisk import PRIMARY, NodeOnDisk, replace_file, running
from tests.support.wait import eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel


def entries(path: Path) -> list[dict[str, object]]:
    return [each for each in json.loads(path.read_bytes())["plugins"] if each["type"] == "istio-cni"]


async def test_a_changed_setting_is_written_in_one_replacement(node: NodeOnDisk) -> None:
    now = [DesiredState(node.settings)]
    path = node.conf / "10-primary.conflist"
    async with running(lambda: now[0]) as run:
        await run.until(lambda state: state.installed)
        before, told = path.stat(), len(run.states)
        now[0] = DesiredState(replace(node.settings, exclude_namespaces=("other",)))
        run.reconciler.wake()
        node.settings = now[0].settings
        await eventually(lambda: node.has_entry(path.name), 15, "the new entry is written")
        after = path.stat()
        assert after.st_ino != before.st_ino, "by a rename"
        assert all(state.installed and not state.repairs for state in run.states[told:])


async def test_a_changed_file_name_moves_the_entry(node: NodeOnDisk) -> None:
    now = [DesiredState(node.settings)]
    (node.conf / "20-other.conflist").write_bytes(PRIMARY)
    async with running(lambda: now[0]) as run:
        await run.until(lambda state: state.conflist == "10-primary.conflist")
        now[0] = DesiredState(replace(node.settings, cni_conf_file_name="20-other.conflist"))
        run.reconciler.wake()
        state = await run.until(lambda state: state.conflist == "20-other.conflist")
        assert state.repairs == 0
        assert len(entries(node.conf / "20-other.conflist")) == 1
        assert not entries(node.conf / "10-primary.conflist")


async def test_a_disabled_installation_is_removed_stays_out_and_is_restored_on_demand(node: NodeOnDisk) -> None:
    now = [DesiredState(node.settings)]
    path = node.conf / "10-primary.conflist"
    async with running(lambda: now[0]) as run:
        await run.until(lambda state: state.installed)
        now[0] = DesiredState(node.settings, installed=False, reason="enabled: false")
        run.reconciler.wake()
        state = await run.until(lambda state: state.removed)
        assert (state.installed, state.reason, state.conflist) == (False, None, None)
        assert path.read_bytes() == PRIMARY
        assert not node.plugin.exists()
        replace_file(path, PRIMARY)  # is nothing to repair
        now[0] = DesiredState(node.settings)
        run.reconciler.wake()
        state = await run.until(lambda state: state.installed)
        assert (state.removed, state.repairs) == (False, 0)
        assert node.has_entry(path.name)
        assert node.plugin.exists()


async def test_files_are_found_by_mounts_and_messages_name_the_nodes_paths(node: NodeOnDisk, tmp_path: Path) -> None:
    mounts = tmp_path / "host"
    mounts.mkdir()
    (mounts / "cni-bin-dir").symlink_to(node.bin)
    (mounts / "cni-conf-dir").symlink_to(node.conf)
    elsewhere = replace(
        node.settings, mounts=mounts, cni_bin_dir=tmp_path / "node" / "bin", cni_conf_dir=tmp_path / "node" / "net.d"
    )
    async with running(elsewhere) as run:
        await run.until(lambda state: state.installed)
        plugins = json.loads((node.conf / "10-primary.conflist").read_bytes())["plugins"]
        assert plugins[-1] == build_entry(elsewhere)
        (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
        state = await run.until(lambda state: state.repairs == 1)
        assert state.last_repair is not None
        assert state.last_repair.file == str(tmp_path / "node" / "net.d" / "10-primary.conflist")
        (mounts / "cni-conf-dir").unlink()
        run.reconciler.wake()
        state = await run.until(lambda state: not state.installed)
        assert state.reason is not None
        assert state.reason.startswith(f"{tmp_path / 'node' / 'net.d'}: ")


async def test_chained_false_writes_a_standalone_configuration_and_true_deletes_it(
    node: NodeOnDisk,
) -> None:
    now = [DesiredState(node.settings)]
    path, own = node.conf / "10-primary.conflist", node.conf / "istio-cni.conf"
    async with running(lambda: now[0]) as run:
        await run.until(lambda state: state.installed)
        now[0] = DesiredState(replace(node.settings, chained=False))
        run.reconciler.wake()
        state = await run.until(lambda state: state.form is Form.STANDALONE)
        assert (state.conflist, state.repairs) == ("istio-cni.conf", 0)
        assert path.read_bytes() == PRIMARY
        written = json.loads(own.read_bytes())
        assert written == build_entry(node.settings) | {"cniVersion": "0.3.1", "name": "istio-cni"}
        own.unlink()
        await run.until(lambda state: state.repairs == 1)
        now[0] = DesiredState(replace(node.settings, chained=False, cni_conf_file_name="10-x.conflist"))
        run.reconciler.wake()
        state = await run.until(lambda state: not state.installed)
        assert "expected the name of a .conf" in str(state.reason)
        now[0] = DesiredState(node.settings)
        run.reconciler.wake()
        await run.until(lambda state: state.form is Form.CHAINED and state.installed)
        assert not own.exists()
        assert node.has_entry(path.name)


async def test_only_the_agents_own_standalone_configuration_is_deleted(node: NodeOnDisk) -> None:
    others = node.conf / "20-istio-cni.conf"
    others.write_text('{"name": "istio-cni", "type": "istio-cni", "kubernetes": {}}')
    now = [DesiredState(replace(node.settings, chained=False))]
    async with running(lambda: now[0]) as run:
        await run.until(lambda state: state.form is Form.STANDALONE)
        now[0] = DesiredState(replace(node.settings, chained=False), installed=False, reason="enabled: false")
        run.reconciler.wake()
        await run.until(lambda state: state.removed)
    assert node.files() == {"10-primary.conflist": PRIMARY, "20-istio-cni.conf": others.read_bytes()}
