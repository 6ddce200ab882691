"""Single passes over a real disk: what the agent observes and changes."""

import json
import logging
import os
from pathlib import Path

import pytest

from installer.agent.node import Node
from installer.agent.repairs import NotNowError
from installer.config.desired import DesiredState
from installer.fleet.state import Form
from installer.host.files import explain
from tests.support.ondisk import PLUGIN_BYTES, PRIMARY, SINGLE, NodeOnDisk, names, settle

pytestmark = pytest.mark.kernel


def test_the_agent_installs_the_plugin_file_and_the_entry(node: NodeOnDisk) -> None:
    state = node.install().state
    assert (state.installed, state.reason, state.conflist, state.repairs) == (True, None, "10-primary.conflist", 0)
    assert node.plugin.read_bytes() == PLUGIN_BYTES
    seen = node.plugin.stat()
    assert (seen.st_mode & 0o7777, seen.st_uid, seen.st_gid) == (0o755, 0, 0)
    assert node.has_entry("10-primary.conflist")


def test_a_second_agent_changes_nothing(node: NodeOnDisk) -> None:
    node.install()
    before = {path: path.stat() for path in (node.plugin, node.conf / "10-primary.conflist")}
    assert Node(lambda: DesiredState(node.settings), lambda: True).reconcile_once(full=True) is False
    assert {path: path.stat().st_ino for path in before} == {path: seen.st_ino for path, seen in before.items()}


def test_the_entry_is_written_only_once_the_agent_serves_unlike_the_plugin_file(node: NodeOnDisk) -> None:
    with pytest.raises(NotNowError, match="does not serve"):
        node.install(serving=False)
    assert node.plugin.read_bytes() == PLUGIN_BYTES
    assert node.files() == {"10-primary.conflist": PRIMARY}


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_a_conflist_keeps_its_mode_and_owner(node: NodeOnDisk, mode: int) -> None:
    path = node.conf / "10-primary.conflist"
    path.chmod(mode)
    os.chown(path, 12, 34)
    node.install()
    seen = path.stat()
    assert (seen.st_mode & 0o7777, seen.st_uid, seen.st_gid) == (mode, 12, 34)


def test_a_list_converted_from_a_single_configuration_keeps_its_name_version_and_mode(tmp_path: Path) -> None:
    node = NodeOnDisk.make(tmp_path)
    (node.conf / "10-primary.conf").write_bytes(SINGLE)
    (node.conf / "10-primary.conf").chmod(0o640)
    state = node.install().state
    made = node.conf / "10-primary-istio-cni.conflist"
    assert (state.conflist, state.form) == (made.name, Form.OWNED)
    assert node.files() == {made.name: made.read_bytes(), "10-primary.conf": SINGLE}
    assert node.has_entry(made.name)
    assert made.stat().st_mode & 0o7777 == 0o640
    parsed = json.loads(made.read_bytes())
    assert (parsed["name"], parsed["cniVersion"], parsed["plugins"][0]) == ("k8s", "0.3.1", json.loads(SINGLE))


def test_the_entry_goes_into_the_file_that_the_setting_names(tmp_path: Path) -> None:
    node = NodeOnDisk.make(tmp_path, cni_conf_file_name="20-b.conflist")
    (node.conf / "10-a.conflist").write_bytes(PRIMARY)
    with pytest.raises(NotNowError, match="20-b"):
        node.install()
    (node.conf / "20-b.conflist").write_bytes(PRIMARY)
    assert node.install().state.conflist == "20-b.conflist"
    assert node.files()["10-a.conflist"] == PRIMARY


@pytest.mark.parametrize("damage", ["truncated", "replaced", "same size", "mode", "owner", "link", "gone"])
def test_a_damaged_plugin_file_is_replaced(node: NodeOnDisk, damage: str) -> None:
    reconciler = node.install()
    match damage:
        case "truncated":
            os.truncate(node.plugin, 100)
        case "replaced":
            node.plugin.unlink()
            node.plugin.write_bytes(b"#!/bin/sh\n")
        case "same size":
            with node.plugin.open("r+b") as file:
                file.write(b"#!/bin/no\n")
        case "mode":
            node.plugin.chmod(0o600)
        case "owner":
            os.chown(node.plugin, 12, 34)
        case "link":
            node.plugin.unlink()
            node.plugin.symlink_to(node.settings.plugin_file)
        case "gone":
            node.plugin.unlink()
    assert reconciler.reconcile_once(full=False) is True
    assert reconciler.reconcile_once(full=False) is False
    assert not node.plugin.is_symlink()
    seen = node.plugin.stat()
    assert (seen.st_mode & 0o7777, seen.st_uid, seen.st_gid) == (0o755, 0, 0)
    assert node.plugin.read_bytes() == PLUGIN_BYTES
    assert reconciler.state.repairs == 1


def test_a_full_pass_detects_changed_content_of_an_unchanged_inode(
    node: NodeOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciler = node.install()
    verified = reconciler._plugin._verified
    monkeypatch.setattr("installer.host.binary._stamp", lambda _: verified)  # a clock that stands still
    with node.plugin.open("r+b") as file:
        file.write(b"#!/bin/no\n")
    assert reconciler.reconcile_once(full=False) is False
    assert reconciler.reconcile_once(full=True) is True
    assert node.plugin.read_bytes() == PLUGIN_BYTES


def test_a_new_release_replaces_the_plugin_file_by_a_rename(node: NodeOnDisk) -> None:
    node.install()
    with node.plugin.open("rb") as in_use:
        node.settings.plugin_file.write_bytes(PLUGIN_BYTES + b"the next release")
        node.install()
        assert in_use.read() == PLUGIN_BYTES
    assert node.plugin.read_bytes() == PLUGIN_BYTES + b"the next release"


def test_leftovers_of_a_killed_agent_are_deleted(node: NodeOnDisk) -> None:
    for folder in (node.bin, node.conf):
        (folder / ".x.istio-cni-tmp").touch()
    node.install()
    assert names(node.bin) + names(node.conf) == ["istio-cni", "10-primary.conflist"]


def test_files_that_no_runtime_reads_are_skipped_with_one_warning_each(
    node: NodeOnDisk, caplog: pytest.LogCaptureFixture
) -> None:
    (node.conf / "00-empty.conflist").touch()
    (node.conf / "01-broken.conflist").write_bytes(b'{"name": ')
    (node.conf / "02-binary.conf").write_bytes(bytes(range(256)))
    (node.conf / "03-foreign.json").write_bytes(b"[1, 2]")
    os.mkfifo(node.conf / "04-fifo.conflist")
    (node.conf / "05-dangling.conflist").symlink_to("nowhere")
    (node.conf / "README").write_text("not for runtimes")
    with caplog.at_level(logging.WARNING):
        reconciler = node.install()
        settle(reconciler)
    assert [name[:2] for name, _ in reconciler.state.skipped] == ["00", "01", "02", "03", "04", "05"]
    assert all(reason for _, reason in reconciler.state.skipped)
    warned = [record.__dict__["file"] for record in caplog.records if record.message.startswith("skipped")]
    assert warned == [str(node.conf / name) for name, _ in reconciler.state.skipped]
    assert node.has_entry("10-primary.conflist")

    caplog.clear()
    with caplog.at_level(logging.WARNING):
        (node.conf / "00-empty.conflist").unlink()
        settle(reconciler)
        (node.conf / "00-empty.conflist").touch()
        settle(reconciler)
    assert [record.__dict__["file"] for record in caplog.records] == [str(node.conf / "00-empty.conflist")]


@pytest.mark.parametrize("missing", ["bin", "conf", "image-plugin"])
def test_missing_requirements_are_reported_with_a_remedy(node: NodeOnDisk, missing: str) -> None:
    (node.root / missing).rename(node.root / "away")
    with pytest.raises(FileNotFoundError) as error:
        node.install()
    assert explain(error.value).startswith(f"{node.root / missing}: No such file or directory; create it, or correct")
