"""Uninstall: everything is restored, in the right order, or reported with a reason."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from installer.cniconfig.meshes import ISTIOS_PLUGIN
from installer.host.agent_lock import lock
from installer.main import main
from tests.support.ondisk import PRIMARY, SINGLE, NodeOnDisk

pytestmark = pytest.mark.kernel


def uninstall(node: NodeOnDisk) -> Result:
    flags = ("cni_bin_dir", "cni_conf_dir", "plugin_file", "agent_socket")
    arguments = [t for name in flags for t in ("--" + name.replace("_", "-"), str(getattr(node.settings, name)))]
    return CliRunner().invoke(main, ["uninstall", *arguments])


def test_uninstall_removes_everything_and_says_so(node: NodeOnDisk) -> None:
    os.close(lock(node.settings.agent_socket))
    node.settings.agent_socket.touch()
    node.install()
    (node.conf / ".10-x.conflist.istio-cni-tmp").touch()
    (node.bin / ".istio-cni.istio-cni-tmp").touch()
    result = uninstall(node)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{node.conf}/10-primary.conflist: entry removed",
        f"{node.conf}/.10-x.conflist.istio-cni-tmp: deleted",
        f"{node.bin}/.istio-cni.istio-cni-tmp: deleted",
        f"{node.plugin}: deleted",
        f"{node.settings.agent_socket}: deleted",
        f"{node.settings.agent_socket}.lock: deleted",
    ]
    assert node.files() == {"10-primary.conflist": PRIMARY}
    assert list(node.bin.iterdir()) == []
    assert not node.settings.agent_socket.parent.exists()


def test_a_single_configuration_is_never_replaced(tmp_path: Path) -> None:
    node = NodeOnDisk.make(tmp_path)
    (node.conf / "10-primary.conf").write_bytes(SINGLE)
    before = (node.conf / "10-primary.conf").stat()
    node.install()
    assert uninstall(node).exit_code == 0
    assert node.files() == {"10-primary.conf": SINGLE}
    after = (node.conf / "10-primary.conf").stat()
    assert (after.st_ino, after.st_mode, after.st_ctime_ns) == (before.st_ino, before.st_mode, before.st_ctime_ns)


def test_uninstall_succeeds_again_and_on_an_empty_node(node: NodeOnDisk) -> None:
    node.install()
    assert uninstall(node).exit_code == 0
    again = uninstall(node)
    assert (again.exit_code, again.stdout) == (0, "nothing to remove\n")
    (node.conf / "10-primary.conflist").unlink()
    node.conf.rmdir()
    node.bin.rmdir()
    assert uninstall(node).exit_code == 0


def test_uninstall_changes_nothing_while_an_agent_runs(node: NodeOnDisk) -> None:
    node.install()
    held = lock(node.settings.agent_socket)
    try:
        result = uninstall(node)
    finally:
        os.close(held)
    assert result.exit_code == 1
    assert "saw an agent running on this node" in result.stderr
    assert node.has_entry("10-primary.conflist")
    assert node.plugin.exists()


def test_the_plugin_file_stays_if_the_entry_cannot_be_removed(node: NodeOnDisk) -> None:
    node.install()
    immutable = ["/usr/bin/chattr", "+i", str(node.conf / "10-primary.conflist")]
    subprocess.run(immutable, check=True)
    try:
        result = uninstall(node)
    finally:
        subprocess.run(["/usr/bin/chattr", "-i", immutable[2]], check=True)
    assert result.exit_code == 1
    assert f"{node.conf}/10-primary.conflist: Operation not permitted; the agent must run as root" in result.stderr
    assert node.has_entry("10-primary.conflist")
    assert node.plugin.exists()
    assert uninstall(node).exit_code == 0


def test_uninstall_cleans_earlier_directories_and_nothing_else(node: NodeOnDisk, tmp_path: Path) -> None:
    node.install()
    left = NodeOnDisk.make(tmp_path / "left")
    (left.conf / "10-primary.conf").write_bytes(SINGLE)
    left.install()
    held = lock(node.settings.agent_socket)
    node.settings.agent_socket.touch()
    try:
        result = CliRunner().invoke(main, ["uninstall", "--from", str(left.bin), "--from", str(left.conf)])
    finally:
        os.close(held)
    assert result.exit_code == 0, result.stderr
    said = [line.partition(": ") for line in result.stdout.splitlines()]
    assert [name for name, _, _ in said][-1] == str(left.plugin), (
        "the plugin file last, in whichever order they are named"
    )
    assert left.files() == {"10-primary.conf": SINGLE}
    assert list(left.bin.iterdir()) == []
    assert node.has_entry("10-primary.conflist")
    assert node.plugin.exists()
    assert node.settings.agent_socket.exists()


@pytest.mark.parametrize("name", ["run", "uninstall"])
def test_help_lists_every_setting(name: str) -> None:
    text = CliRunner().invoke(main, [name, "--help"]).stdout
    assert "--health-address HOST:PORT" in text
    assert "HEALTH_ADDRESS" in text


def test_links_stay_in_mount(tmp_path: Path) -> None:
    root = tmp_path / "host"
    left = NodeOnDisk.make(root / "var" / "data" / "1")
    (left.conf / "10-primary.conf").write_bytes(SINGLE)
    left.install()
    (root / "var" / "data" / "current").symlink_to("/var/data/1")  # absolute, as k3s has it
    (root / "etc").mkdir()
    (root / "etc" / "bin").symlink_to("../var/data/current/bin")
    result = CliRunner().invoke(main, ["uninstall", f"--root={root}", "--from=/etc/bin"])
    assert result.stdout == "/etc/bin/istio-cni: deleted\n", result.stderr
    assert not left.plugin.exists()


@pytest.mark.parametrize("link", ["/loop", "/nowhere"])
def test_a_path_that_is_no_directory_is_reported(tmp_path: Path, link: str) -> None:
    (tmp_path / "loop").symlink_to("/loop")
    result = CliRunner().invoke(main, ["uninstall", f"--root={tmp_path}", f"--from={link}"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{link}: "), result.stderr


def test_the_plugin_file_of_istios_own_agent_stays(node: NodeOnDisk) -> None:
    """That agent, beside this one, copies its plugin as soon as an entry is gone, and names it only then."""
    (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
    (node.bin / "istio-cni").write_bytes(b"\x7fELF" + bytes(1 << 20) + ISTIOS_PLUGIN)
    assert uninstall(node).exit_code == 0
    assert (node.bin / "istio-cni").exists()


def test_the_entry_of_istios_own_agent_stays_with_its_plugin_file(node: NodeOnDisk) -> None:
    entry = {"type": "istio-cni", "name": "istio-cni", "plugin_log_level": "info"}
    content = json.dumps({"cniVersion": "1.0.0", "name": "k8s", "plugins": [{"type": "bridge"}, entry]})
    (node.conf / "10-primary.conflist").write_text(content)
    plugin = node.bin / "istio-cni"
    plugin.write_bytes(b"\x7fELF" + ISTIOS_PLUGIN)
    assert uninstall(node).exit_code == 0
    assert (node.conf / "10-primary.conflist").read_text() == content
    plugin.write_bytes(b"\x7fELF")  # of another agent: with its entry Istio's own notices that its file is gone
    assert uninstall(node).exit_code == 0
    assert "istio-cni" not in (node.conf / "10-primary.conflist").read_text()
    assert not plugin.exists()


def test_a_link_in_the_plugin_files_place_is_deleted(node: NodeOnDisk) -> None:
    (node.bin / "istio-cni").symlink_to("nowhere")
    assert uninstall(node).exit_code == 0
    assert [*node.bin.iterdir()] == []
