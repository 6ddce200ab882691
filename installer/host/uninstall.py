"""Uninstalling from the node: the conflist entry first, the plugin file last (D7, F6).

In that order, and stopping at a failed step: with an entry but no plugin file no pod could start or stop. For the
same reason the plugin file stays if another configuration names it (F34). What Istio's own agent has put in this one's
place stays.
"""

import contextlib
import errno
import os
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from installer.cniconfig import plan
from installer.cniconfig.meshes import is_istios_plugin
from installer.config.settings import PLUGIN, Settings
from installer.host import conf_dir
from installer.host.agent_lock import AlreadyRunningError, lock, lock_file
from installer.host.directory import Directory
from installer.host.exchange import OutdatedError, settle
from installer.host.files import explain, within
from installer.host.references import Reference, references, why_it_stays
from installer.host.socket_dir import files_beside

_ATTEMPTS = 10  # plans, when other programs change the directory concurrently
_PAUSE = 0.1  # seconds between two of them


class Done(NamedTuple):
    """One line about what was done or could not be done."""

    text: str
    failed: bool = False


class Step(NamedTuple):
    """What was done to a file; `stays`: nothing, and the text holds reason and remedy."""

    path: Path
    text: str
    stays: bool = False


def uninstall(settings: Settings) -> Iterator[Done]:
    """Remove everything the agent installed, and yield what was done; the first failure is the last step.

    It needs no agent, may run again, and tolerates missing parts.
    """
    yield from _report(_remove_all(settings))


def uninstall_from(root: Path, directories: Collection[Path]) -> Iterator[Done]:
    """Remove leftovers in directories that no agent manages any more, and nothing else; an agent may run.

    `root` is the mount of the node's file system; `directories` are cniConfDir, cniBinDir or both, of any earlier agent. It
    yields as `uninstall` does.
    """
    yield from _report(_remove_leftovers(root, directories))


def _remove_leftovers(root: Path, directories: Collection[Path]) -> Iterator[Step]:
    mounts = {each: within(root, each) for each in directories}
    for path, mount in mounts.items():
        if not mount.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    for path, mount in mounts.items():
        yield from _entry(path, mount)
    for path, mount in mounts.items():
        yield from _plugin(path, mount, mounts)


def _report(steps: Iterator[Step]) -> Iterator[Done]:
    try:
        done = False
        for step in steps:
            done = True
            yield Done(step.text if step.stays else f"{step.path}: {step.text}", failed=step.stays)
        if not done:
            yield Done("nothing to remove")
    except AlreadyRunningError as error:
        yield Done(f"nothing was removed: {error}", failed=True)
    except OSError as error:
        yield Done(explain(error), failed=True)
    except OutdatedError as error:
        yield Done(f"{error}, repeatedly: stop that program first", failed=True)


def _remove_all(settings: Settings) -> Iterator[Step]:
    lock_fd = None
    try:
        if lock_file(settings.agent_socket).exists():
            lock_fd = lock(settings.agent_socket)  # a running agent would restore what we remove
        yield from remove_installed(settings)
        yield from _socket(settings.agent_socket)
    finally:
        if lock_fd is not None:
            os.close(lock_fd)


def remove_installed(settings: Settings) -> Iterator[Step]:
    """Remove the conflist entry and the plugin file; a running agent needs neither.

    Yields:
        Each changed file, as it is changed, and the change; also the plugin file if it stays.

    Raises:
        OutdatedError: if another program keeps changing cniConfDir.
        OSError: if a file could not be changed.
    """
    keeps_istios = _has_istios_plugin(settings)
    yield from _entry(settings.cni_conf_dir, settings.conf_dir_mount, keeps_istios=keeps_istios)
    yield from _plugin(settings.cni_bin_dir, settings.bin_dir_mount, {settings.cni_conf_dir: settings.conf_dir_mount})


def remove_entry(settings: Settings) -> Iterator[Step]:
    """Remove only the conflist entry; otherwise as `remove_installed`."""
    yield from _entry(settings.cni_conf_dir, settings.conf_dir_mount)


def _has_istios_plugin(settings: Settings) -> bool:
    try:
        with Directory(settings.cni_bin_dir, settings.bin_dir_mount) as folder:
            return _is_istios(folder)
    except FileNotFoundError:
        return False


def _entry(path: Path, mount: Path, *, keeps_istios: bool = False) -> Iterator[Step]:
    try:
        folder = Directory(path, mount)
    except FileNotFoundError:
        return
    with folder:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                settle(folder)
                found = conf_dir.listing(folder)
                for step in plan.removal(found, conf_dir.links(folder, found), keeps_istios=keeps_istios):
                    conf_dir.carry_out(folder, [step], patient=attempt < _ATTEMPTS)
                    yield Step(path / step.name, _describe(step))
                break
            except OutdatedError:
                if attempt == _ATTEMPTS:
                    raise
                time.sleep(_PAUSE)
        for name in conf_dir.sweep(folder, patient=False):
            yield Step(path / name, "deleted")


def _describe(step: plan.Step) -> str:
    if isinstance(step, plan.Delete):
        return "deleted"
    return "restored" if step.expected is None else "entry removed"


def _plugin(path: Path, mount: Path, configurations: Mapping[Path, Path]) -> Iterator[Step]:
    """Delete the plugin file, if no configuration names it and it is not that of Istio's own agent, which may be about to.

    `path` is cniBinDir on the node, `mount` its path for this process; `configurations` maps cniConfDir likewise.
    """
    try:
        folder = Directory(path, mount)
    except FileNotFoundError:
        return
    with folder:
        for name in folder.sweep():
            yield Step(path / name, "deleted")
        seen = folder.stat(PLUGIN)
        if seen is None or _is_istios(folder):
            return
        for where, mounted in configurations.items():
            if found := _references(where, mounted):
                yield Step(path / PLUGIN, why_it_stays(path / PLUGIN, where, found), stays=True)
                return
        now = folder.stat(PLUGIN)  # Istio's agent may have replaced it meanwhile
        if now and os.path.samestat(seen, now) and folder.delete(PLUGIN):
            yield Step(path / PLUGIN, "deleted")


def _is_istios(folder: Directory) -> bool:
    with contextlib.suppress(OSError):  # a link, or unreadable
        return is_istios_plugin(folder.pieces(PLUGIN))
    return False


def _references(path: Path, mount: Path) -> list[Reference]:
    try:
        with Directory(path, mount) as folder:
            return references(folder)
    except FileNotFoundError:
        return []


def _socket(socket: Path) -> Iterator[Step]:
    """Delete what agents leave in the directory of their socket: what the next one reads, and all of one that was killed."""
    found = False
    for path in (socket, *files_beside(socket)):
        if path.exists():
            found = True
            path.unlink(missing_ok=True)
            yield Step(path, "deleted")
    if found:  # a directory without traces of an agent is not ours
        with contextlib.suppress(OSError):  # shared with others, or a mount
            socket.parent.rmdir()
