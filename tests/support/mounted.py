"""Scenes that need file systems of their own, each run as a process in a mount namespace of its own.

`unshare --mount --propagation private python -m tests.support.mounted SCENE ROOT`; what is mounted goes with it. Those of
limits are run with `--user --map-root-user`: the limits are that namespace's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from installer.agent import reconciler
from installer.config.desired import DesiredState
from installer.host import checkpoint
from installer.host.checkpoint import checkpoint_file
from tests.support.agent import AgentProcess
from tests.support.filling import fill
from tests.support.ondisk import PLUGIN_BYTES, PRIMARY, SLOWEST, NodeOnDisk, names, running
from tests.support.wait import eventually, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from installer.fleet.state import NodeState


def installed(state: NodeState) -> bool:
    return state.installed


def mount(path: Path, options: str) -> None:
    """Mount an empty file system."""
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)


def remount(path: Path, options: str) -> None:
    """Change how it is mounted."""
    subprocess.run(["/bin/mount", "-o", f"remount,{options}", str(path)], check=True)


def unmount(path: Path) -> None:
    """Take the last one that was mounted there away, as soon as no look has it open."""
    until(lambda: subprocess.run(["/bin/umount", str(path)], check=False).returncode == 0, SLOWEST, "it is not busy")


def share(path: Path, mounted: Path) -> None:
    """Mount a directory as a container's runtime does that was told HostToContainer."""
    for command in (
        ["--make-shared", str(path.parent)],
        ["--bind", str(path), str(mounted)],
        ["--make-slave", str(mounted)],
    ):
        subprocess.run(["/bin/mount", *command], check=True)


def call(*command: str) -> None:
    """Run a program."""
    subprocess.run(command, check=True)


def allow(limit: str, number: int) -> None:
    """Change a limit of this user namespace alone."""
    Path("/proc/sys/user", limit).write_text(str(number))


def chattr(change: str, path: Path) -> None:
    """Set or take away a file's attributes."""
    subprocess.run(["/usr/bin/chattr", change, str(path)], check=True)


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
    """The configuration's file system is read-only, and becomes writable: that is noticed, not only retried."""
    mount(node.conf, "size=64k")
    (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
    remount(node.conf, "ro")
    reconciler.FIRST_RETRY = reconciler.LONGEST_RETRY
    async with running(node.settings) as run:
        await run.until(lambda state: "Read-only file system; mount it writable" in (state.reason or ""))
        remount(node.conf, "rw")
        await run.until(installed)
    assert node.has_entry("10-primary.conflist")


async def no_inodes(node: NodeOnDisk) -> None:
    """There is space, but for no further file."""
    mount(node.conf, "nr_inodes=2")
    (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
    async with running(node.settings) as run:
        await run.until(lambda state: "No space left on device; free some space" in (state.reason or ""))
        assert node.files() == {"10-primary.conflist": PRIMARY}
        remount(node.conf, "nr_inodes=100")
        await run.until(installed)
    assert names(node.conf) == ["10-primary.conflist"]


async def immutable(node: NodeOnDisk) -> None:
    """Files, and then directories, may not be changed (chattr +i): reported, nothing left behind, repaired when they may."""
    for path in (node.conf, node.bin):
        mount(path, "size=8m")
    conflist = node.conf / "10-primary.conflist"
    for what in (conflist, node.plugin, node.conf, node.bin):
        conflist.write_bytes(PRIMARY)
        node.plugin.unlink(missing_ok=True)
        if what == node.plugin:
            what.write_bytes(b"half")
        chattr("+i", what)
        before = node.files(), names(node.bin)
        async with running(node.settings) as run:
            await run.until(lambda state: "must not be immutable (lsattr)" in (state.reason or ""))
            saw = str(conflist if what in (conflist, node.conf) else node.plugin)
            assert saw in (run.states[-1].reason or ""), run.states[-1]
            assert (node.files(), names(node.bin)) == (before[0], before[1] or names(node.bin))
            chattr("-i", what)
            await run.until(installed)
        assert names(node.conf) == ["10-primary.conflist"]
        assert names(node.bin) == ["istio-cni"]
        assert node.has_entry("10-primary.conflist")


async def disk_errors(node: NodeOnDisk) -> None:
    """The disk with the configuration's directory returns no block that is not cached, and then all of them again."""
    image = node.root / "image"
    with image.open("wb") as file:
        file.truncate(4 << 20)
    call("/usr/sbin/mkfs.ext4", "-q", "-O", "^has_journal", str(image))
    call("/bin/mount", "-o", "loop", str(image), str(node.conf))
    (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
    unmount(node.conf)
    content = image.read_bytes()
    call("/bin/mount", "-o", "loop", str(image), str(node.conf))
    os.truncate(image, 4096)
    async with running(node.settings) as run:
        await run.until(lambda state: "Input/output error" in (state.reason or ""))
        assert str(node.conf) in (run.states[-1].reason or ""), run.states[-1]
        with image.open("r+b") as file:
            file.write(content)
        await run.until(installed)
        node.plugin.unlink()
        await run.until(lambda state: state.installed and state.repairs == 1)
    assert "lost+found" in names(node.conf)
    assert node.has_entry("10-primary.conflist")


async def unreadable_conflist(node: NodeOnDisk) -> None:
    """A conflist cannot be read while the agent runs, as on a disk that fails: not ready, and nothing is written."""
    conflist, other = node.conf / "10-primary.conflist", node.conf / "20-other.conflist"
    for path in (conflist, other):
        path.write_bytes(PRIMARY)
    async with running(node.settings) as run:
        await run.until(installed)
        complete = conflist.read_bytes()
        fail_to_read(conflist)
        run.reconciler.wake()
        await run.until(lambda state: not state.installed)
        assert f"{conflist}: Input/output error; the node's disk fails" in (run.states[-1].reason or ""), run.states[-1]
        assert other.read_bytes() == PRIMARY, "the entry has not moved"
        unmount(conflist)
        run.reconciler.wake()
        await run.until(installed)
        assert conflist.read_bytes() == complete
        fail_to_read(node.plugin)
        run.reconciler.wake()
        await run.until(lambda state: str(node.plugin) in (state.reason or ""))
        unmount(node.plugin)
        run.reconciler.wake()
        await run.until(installed)
    assert node.has_entry("10-primary.conflist")
    assert other.read_bytes() == PRIMARY


async def unreadable_checkpoint(node: NodeOnDisk) -> None:
    """The checkpoint beside the socket cannot be read: the chart's settings are in force, and the next one takes its place."""
    path, told = checkpoint_file(node.settings.agent_socket), Told("installer.host.checkpoint")
    removed = DesiredState(node.settings, installed=False, reason="why")
    checkpoint.save(removed)
    fail_to_read(path)
    assert checkpoint.load(node.settings) == DesiredState(node.settings)
    checkpoint.save(removed)  # which cannot take the place of what is mounted there
    assert [each.partition(" the checkpoint")[0] for each in told.lines] == ["cannot read", "cannot write"]
    unmount(path)
    assert checkpoint.load(node.settings) == removed


def fail_to_read(path: Path) -> None:
    """Have the kernel answer EIO to whoever reads a file, as a broken disk does: nothing of a process is at address 0."""
    subprocess.run(["/bin/mount", "--bind", f"/proc/{os.getpid()}/mem", str(path)], check=True)


async def full_socket_dir(node: NodeOnDisk) -> None:
    """No byte is free beside the socket, as what is in /run is memory: a socket and a lock need none, and pods are served."""
    agent = _beside(node)
    fill(agent.socket.parents[1])
    with agent:
        assert agent.ready()
        agent.socket.unlink()
        until(lambda: agent.socket.exists() and agent.get("/readyz")[0] == 200, SLOWEST, "it is served again")


async def no_inodes_for_the_socket(node: NodeOnDisk) -> None:
    """There is no room for a further file."""

    def use_up(path: Path) -> None:
        with suppress(OSError):
            for number in range(100):
                (path / f"filler{number}").touch()

    def give_back(path: Path) -> None:
        for each in path.glob("filler*"):
            each.unlink()

    await _cannot_serve(node, use_up, give_back, "No space left on device; free some space")


async def read_only_socket_dir(node: NodeOnDisk) -> None:
    """The file system of the socket is mounted read-only."""

    def over(path: Path) -> None:  # not in place of what the agent has open for writing, which is refused
        subprocess.run(["/bin/mount", "--bind", str(path), str(path)], check=True)
        remount(path, "bind,ro")

    def away(path: Path) -> None:
        subprocess.run(["/bin/umount", "--lazy", str(path)], check=True)

    await _cannot_serve(node, over, away, "mount it writable")


async def immutable_socket_dir(node: NodeOnDisk) -> None:
    """Nothing may be made in the socket's directory (chattr +i)."""

    def change(path: Path, how: str) -> None:
        chattr(how, path / "run")

    await _cannot_serve(node, partial(change, how="+i"), partial(change, how="-i"), "must not be immutable (lsattr)")


def _beside(node: NodeOnDisk) -> AgentProcess:
    """Prepare a real agent whose socket is on a small file system of its own."""
    state = node.root / "state"
    state.mkdir()
    mount(state, "size=16k,nr_inodes=10")
    (state / "run").mkdir(mode=0o700)
    (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
    (node.root / "pods").mkdir()
    options: dict[str, str | Path] = {"pods-from": node.root / "pods", "agent-socket": state / "run" / "agent.sock"}
    agent = AgentProcess(node.root, conf_dir=node.conf, bin_dir=node.bin, options=options)
    agent.socket = state / "run" / "agent.sock"
    return agent


async def _cannot_serve(
    node: NodeOnDisk, spoil: Callable[[Path], object], mend: Callable[[Path], object], reason: str
) -> None:
    """Spoil the file system of the socket before an agent starts, and under one that runs as its socket goes."""
    agent = _beside(node)
    directory = agent.socket.parent
    spoil(directory.parent)
    with agent:
        assert agent.process is not None
        until(lambda: reason in agent.log.read_text(), SLOWEST, "it says why it does not begin")
        mend(directory.parent)
        assert agent.ready()
        agent.process.send_signal(signal.SIGSTOP)
        agent.socket.unlink()
        spoil(directory.parent)
        agent.process.send_signal(signal.SIGCONT)
        until(lambda: reason in agent.get("/readyz")[1], SLOWEST, "it is not ready, and says why")
        mend(directory.parent)
        until(lambda: agent.get("/readyz")[0] == 200, SLOWEST, "it is ready again")
    assert not directory.exists()


async def mounted_over(node: NodeOnDisk) -> None:
    """File systems are mounted over the directories and taken away: each is seen at once, looked at and watched."""
    (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
    async with running(node.settings) as run:
        await run.until(installed)
        mount(node.conf, "size=64k")
        await run.until(lambda state: "saw none" in (state.reason or ""))
        (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
        await run.until(lambda state: state.installed and state.repairs == 1)
        (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
        await run.until(lambda state: state.installed and state.repairs == 2)
        mount(node.bin, f"size={4 * len(PLUGIN_BYTES)}")
        await run.until(lambda state: state.installed and state.repairs == 3)
        assert node.plugin.read_bytes() == PLUGIN_BYTES
        unmount(node.conf)  # nothing of ours keeps it busy
        (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
        await run.until(lambda state: state.installed and state.repairs == 4)
    assert node.has_entry("10-primary.conflist")


async def mounted_over_above(node: NodeOnDisk) -> None:
    """A file system is mounted over a directory above, in which there is none yet."""
    (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
    async with running(node.settings) as run:
        await run.until(installed)
        mount(node.root, "size=16m")
        await run.until(lambda state: "No such file or directory" in (state.reason or ""))
        node.bin.mkdir()
        node.conf.mkdir()
        (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
        await run.until(lambda state: "image-plugin" in (state.reason or ""))
        (node.root / "image-plugin").write_bytes(PLUGIN_BYTES)
        run.reconciler.wake()
        await run.until(installed)


async def mounted_over_on_the_host(node: NodeOnDisk) -> None:
    """As in a container: what the node mounts over the directory comes into the container's own mount of it."""
    host, mounts = node.root / "host", node.root / "mounts"
    host.mkdir()
    mount(host, "size=64k")
    (host / "net.d").mkdir()
    (host / "net.d" / "10-primary.conflist").write_bytes(PRIMARY)
    for name in ("cni-conf-dir", "cni-bin-dir"):
        (mounts / name).mkdir(parents=True)
    share(host / "net.d", mounts / "cni-conf-dir")
    there = NodeOnDisk.open(node.root, cni_conf_dir=str(host / "net.d"), mounts=str(mounts))
    async with running(there.settings) as run:
        await run.until(installed)
        mount(host / "net.d", "size=64k")
        await run.until(lambda state: "saw none" in (state.reason or ""))
        (host / "net.d" / "20-other.conflist").write_bytes(PRIMARY)
        await run.until(lambda state: state.conflist == "20-other.conflist")
    assert there.has_entry("20-other.conflist")


async def noexec_bin_dir(node: NodeOnDisk) -> None:
    """Nothing can be executed in cniBinDir: not ready, and no entry, until it can."""
    (node.conf / "10-primary.conflist").write_bytes(PRIMARY)
    mount(node.bin, "noexec")
    async with running(node.settings) as run:
        await run.until(lambda state: f"{node.bin} is mounted noexec" in (state.reason or ""))
        assert node.plugin.read_bytes() == PLUGIN_BYTES
        assert node.files() == {"10-primary.conflist": PRIMARY}
        remount(node.bin, "exec")
        await run.until(installed)
        assert node.has_entry("10-primary.conflist")
        mount(node.bin, "noexec")
        await run.until(lambda state: f"{node.bin} is mounted noexec" in (state.reason or ""))
        assert node.files() == {"10-primary.conflist": PRIMARY}, "with the entry no pod would start"
        unmount(node.bin)
        await run.until(installed)
    assert node.has_entry("10-primary.conflist")


async def noexec_on_the_host(node: NodeOnDisk) -> None:
    """As in a container: its mount of cniBinDir has the flags that the node's mount has when it is made."""
    host, mounts = node.root / "host", node.root / "mounts"
    host.mkdir()
    mount(host, "noexec")
    for name in ("bin", "net.d"):
        (host / name).mkdir()
    (host / "net.d" / "10-primary.conflist").write_bytes(PRIMARY)
    for name, where in (("cni-conf-dir", "net.d"), ("cni-bin-dir", "bin")):
        (mounts / name).mkdir(parents=True)
        share(host / where, mounts / name)
    paths = {"cni_conf_dir": str(host / "net.d"), "cni_bin_dir": str(host / "bin"), "mounts": str(mounts)}
    there = NodeOnDisk.open(node.root, **paths)
    async with running(there.settings) as run:
        await run.until(lambda state: f"{host / 'bin'} is mounted noexec" in (state.reason or ""))
        assert there.files() == {"10-primary.conflist": PRIMARY}


async def no_inotify(node: NodeOnDisk) -> None:
    """The node's inotify instances are used up when the agent starts; then there is room again."""
    await _exhausted(node, "max_inotify_instances", 0)


async def no_inotify_watches(node: NodeOnDisk) -> None:
    """The node's inotify watches are."""
    await _exhausted(node, "max_inotify_watches", 2)


async def _exhausted(node: NodeOnDisk, limit: str, low: int) -> None:
    path, told = node.conf / "10-primary.conflist", Told("installer.host.inotify")
    path.write_bytes(PRIMARY)
    allow(limit, low)
    async with running(node.settings) as run:
        await run.until(installed)
        path.write_bytes(PRIMARY)
        await run.until(lambda state: state.installed and state.repairs == 1)
        allow(limit, 1000)
        await eventually(lambda: len(told.lines) == 2, SLOWEST, "it says that it watches again")
        reconciler.UNWATCHED_RESYNC = reconciler.RESYNC
        path.write_bytes(PRIMARY)
        await run.until(lambda state: state.installed and state.repairs == 2)
    assert "cannot watch the node for changes" in told.lines[0]
    assert "watching the node for changes again" in told.lines[1]


class Told(logging.Handler):
    """The lines that a module has logged."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.lines: list[str] = []
        logging.getLogger(name).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


SCENES = {
    scene.__name__: scene
    for scene in (
        full_conf_dir,
        full_bin_dir,
        no_inodes,
        read_only,
        immutable,
        disk_errors,
        unreadable_conflist,
        unreadable_checkpoint,
        full_socket_dir,
        no_inodes_for_the_socket,
        read_only_socket_dir,
        immutable_socket_dir,
        mounted_over,
        mounted_over_above,
        mounted_over_on_the_host,
        noexec_bin_dir,
        noexec_on_the_host,
        no_inotify,
        no_inotify_watches,
    )
}

if __name__ == "__main__":
    asyncio.run(SCENES[sys.argv[1]](NodeOnDisk.make(Path(sys.argv[2]))))
