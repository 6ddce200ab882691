"""Scenes that need file systems of their own, each run as a process in a mount namespace of its own.

`unshare --mount --propagation private python -m tests.installer.mounted SCENE ROOT`; what is mounted goes with it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.installer.node import PLUGIN_BYTES, PRIMARY, NodeOnDisk, names, running

if TYPE_CHECKING:
    from installer.nodestate import NodeState


def installed(state: NodeState) -> bool:
    return state.installed


def mount(path: Path, options: str) -> None:
    """Mount an empty file system."""
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)


def remount(path: Path, options: str) -> None:
    """Change how it is mounted."""
    subprocess.run(["/bin/mount", "-o", f"remount,{options}", str(path)], check=True)


def fill(path: Path) -> Path:
    """Leave no byte free."""
    filler = path / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return filler


async def full_conf_dir(node: NodeOnDisk) -> None:
    """The configuration's file system is full: the primary's file stays whole, and is repaired when there is space."""
    mount(node.conf, "size=64k")
    (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
    filler = fill(node.conf)
    async with running(node.settings) as run:
        state = await run.until(lambda state: "No space left on device; free some space" in (state.reason or ""))
        assert str(node.conf / "10-primary.conflist") in (state.reason or ""), state
        assert (node.conf / "10-primary.conflist").read_bytes() == PRIMARY
        filler.unlink()
        await run.until(installed)
    assert names(node.conf) == ["10-primary.conflist"]
    assert node.has_entry("10-primary.conflist")


async def full_bin_dir(node: NodeOnDisk) -> None:
    """The plugin's file system is full: no half plugin file, and no entry without it."""
    mount(node.bin, f"size={len(PLUGIN_BYTES) // 2}")
    (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
    async with running(node.settings) as run:
        await run.until(lambda state: "istio-cni: No space left on device" in (state.reason or ""))
        assert names(node.bin) == []
        assert node.files() == {"10-primary.conflist": PRIMARY}
        remount(node.bin, f"size={4 * len(PLUGIN_BYTES)}")
        await run.until(installed)
    assert node.plugin.read_bytes() == PLUGIN_BYTES


async def read_only(node: NodeOnDisk) -> None:
    """The configuration's file system is read-only, and becomes writable without any event."""
    mount(node.conf, "size=64k")
    (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
    remount(node.conf, "ro")
    async with running(node.settings) as run:
        await run.until(lambda state: "Read-only file system; mount it writable" in (state.reason or ""))
        remount(node.conf, "rw")
        await run.until(installed)
    assert node.has_entry("10-primary.conflist")


async def mounted_over(node: NodeOnDisk) -> None:
    """A file system is mounted over the directory: the next look, whatever its reason, sees and watches that one."""
    (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
    async with running(node.settings) as run:
        await run.until(installed)
        mount(node.conf, "size=64k")
        (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
        run.reconciler.wake()
        await run.until(lambda state: state.installed and state.repairs == 1)
        (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
        await run.until(lambda state: state.installed and state.repairs == 2)
    assert node.has_entry("10-primary.conflist")


SCENES = {scene.__name__: scene for scene in (full_conf_dir, full_bin_dir, read_only, mounted_over)}

if __name__ == "__main__":
    asyncio.run(SCENES[sys.argv[1]](NodeOnDisk.make(Path(sys.argv[2]))))
