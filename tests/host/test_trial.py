"""A plugin file with the right bytes that cannot be executed: the node is not ready, and no entry names it (F41)."""

from __future__ import annotations

import contextlib
import os
import struct
from typing import TYPE_CHECKING

import pytest

from installer.agent.node import Node, UnusableError
from installer.config.desired import DesiredState
from installer.host import trial
from installer.host.directory import Directory
from tests.support.call import FROZEN
from tests.support.ondisk import PLUGIN_BYTES, PRIMARY, VERSIONS, NodeOnDisk, settle

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from installer.host.files import Access

pytestmark = pytest.mark.kernel


def for_another_machine() -> bytes:
    """The real plugin, marked as built for another architecture."""
    content = bytearray(FROZEN.read_bytes())
    struct.pack_into("<H", content, 18, 62 if os.uname().machine == "aarch64" else 183)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (for_another_machine(), f"Exec format error, expected a program for {os.uname().machine}"),
        (FROZEN.read_bytes()[:100], "Exec format error"),
        (b"#!/nowhere/sh\n", "No such file or directory, expected a program for"),
        (b"#!/bin/sh\nexit 3\n", "saw exit status 3 and no output for VERSION"),
        (b"#!/bin/sh\necho hello\n", "saw exit status 0 and b'hello"),
        (b"#!/bin/sh\nkill -ILL $$\n", "saw its end by signal 4 (SIGILL) for VERSION"),
        (b"#!/bin/sh\nkill -SYS $$\n", "saw its end by signal 31 (SIGSYS) for VERSION"),
    ],
    ids=["architecture", "truncated", "interpreter", "fails", "no plugin", "instruction", "system call"],
)
def test_a_plugin_that_cannot_be_executed_is_reported_and_gets_no_entry(
    node: NodeOnDisk, content: bytes, reason: str
) -> None:
    installed = node.install()
    node.settings.plugin_file.write_bytes(content)
    for _ in range(2):
        with pytest.raises(UnusableError, match="istio-cni ") as seen:
            installed.reconcile_once(full=True)
        assert reason in str(seen.value)
        assert node.files() == {"10-primary.conflist": PRIMARY}, "with the entry no pod would start"
    node.settings.plugin_file.write_bytes(PLUGIN_BYTES)
    settle(installed)
    assert node.has_entry("10-primary.conflist")


def test_the_real_plugin_passes(node: NodeOnDisk) -> None:
    node.settings.plugin_file.write_bytes(FROZEN.read_bytes())
    node.install()
    assert node.has_entry("10-primary.conflist")


@pytest.mark.parametrize("doing", [b"sleep 60", b"kill -KILL $$", b"kill -SEGV $$", b"kill -BUS $$", b"kill -40 $$"])
def test_a_transient_failure_removes_no_entry(node: NodeOnDisk, monkeypatch: pytest.MonkeyPatch, doing: bytes) -> None:
    installed = node.install()
    monkeypatch.setattr(trial, "PATIENCE", 2.0)
    node.settings.plugin_file.write_bytes(b"#!/bin/sh\n" + doing + b"\n")
    with pytest.raises(OSError, match="VERSION") as seen:
        installed.reconcile_once(full=True)
    assert ("signal 9 (SIGKILL), as the kernel does for want of memory" in str(seen.value)) == (b"KILL" in doing)
    assert node.has_entry("10-primary.conflist")
    with pytest.raises(OSError, match="VERSION"):
        installed.reconcile_once(full=False)
    node.settings.plugin_file.write_bytes(PLUGIN_BYTES)
    settle(installed)


def test_an_unchanged_plugin_file_is_run_once(node: NodeOnDisk, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.touch()
    counting = b"#!/bin/sh\necho run >>" + os.fsencode(runs) + b"\n"
    node.settings.plugin_file.write_bytes(counting + VERSIONS)
    installed = node.install()
    for _ in range(5):
        installed.reconcile_once(full=True)
    assert runs.read_text().count("run") == 1
    os.utime(node.plugin)
    installed.reconcile_once(full=False)
    assert runs.read_text().count("run") == 2
    node.settings.plugin_file.write_bytes(counting + b"exit 1\n")
    count = []
    for full in (True, False, False, True):
        _look(installed, full=full)
        count.append(runs.read_text().count("run"))
    assert count == [3, 3, 3, 4], "what failed is tried again with each resync, not with each event"


def test_a_file_system_without_permissions_is_reported_and_not_rewritten_repeatedly(
    node: NodeOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Directory.write, []

    def as_vfat_does(folder: Directory, name: str, content: Iterable[bytes], access: Access) -> None:
        write(folder, name, content, access)
        os.chmod(name, 0o644, dir_fd=folder.fd)
        written.append(name)

    monkeypatch.setattr(Directory, "write", as_vfat_does)
    reconciled = Node(lambda: DesiredState(node.settings), lambda: True)
    for _ in range(5):
        with pytest.raises(UnusableError, match="saw mode 644 of 0:0 after it was written, expected 755"):
            reconciled.reconcile_once(full=False)
    assert written == ["istio-cni"]
    assert node.files() == {"10-primary.conflist": PRIMARY}


def _look(node: Node, *, full: bool) -> None:
    with contextlib.suppress(UnusableError):
        node.reconcile_once(full=full)
