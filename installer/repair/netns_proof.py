"""Proving which netns is a pod's, by its addresses and before any write, never by a name alone (D14, F35).

A path from a runtime or a plugin is a candidate, not a proof: `/proc/4711/ns/net` ends in `net`, and so
does what `ip netns add net` creates. The netns must hold the pod's known addresses.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from plugin import netns
from plugin.apply import ApplyError
from plugin.detect import addresses
from plugin.netns import NetnsFd

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from plugin.values import Address

MOST = 4096  # files examined at most
LINK, TARGET = "/var/run/", "/run/"  # the first is a link to the second on every node that has both

_NOT_IN_NAMES = re.compile("[\0\ud800-\udfff]")  # what JSON may say, and no file is named


class UnprovenError(Exception):
    """The pod's netns cannot be determined; the message says why."""


class HiddenError(UnprovenError):
    """The node mounted the netns where this process does not see it (F41)."""

    def __init__(self, path: str, since: float) -> None:
        """Build the error.

        `since` is when its file was created, in seconds since 1970; 0: it is unknown whether the netns is the pod's.
        """
        super().__init__(
            f"the agent cannot see its network namespace: {path} was mounted on the node after the agent's container had "
            "started, and the mount is not propagated into it. Delete the agent's pod, or set cni.mountPropagation to "
            "HostToContainer if the node's mounts are shared (`findmnt -o PROPAGATION /` on the node)"
        )
        self.since = since


class Known(NamedTuple):
    """What is known about a pod's netns.

    Attributes:
        names: the file names that runtime or plugins report for it.
        by_runtime: the file name that the runtime itself reports; empty: none.
        addresses: the pod's addresses.
        others: the file names reported for other pods.
        elsewhere: a path that runtime or plugins report for it outside the runtime's directory; empty: none.
        uid: the pod's uid.
    """

    names: tuple[str, ...]
    by_runtime: str
    addresses: tuple[Address, ...]
    others: frozenset[str]
    elsewhere: str = ""
    uid: str = ""


class NetnsFiles:
    """The runtime's directory of netns files."""

    _follow = os.O_NOFOLLOW

    def __init__(self, path: Path, mount: Path) -> None:
        """Prepare; `path` is on the node, `mount` for this process."""
        self._path = _real(os.path.normpath(path))
        self._mount = mount

    def name_of(self, path: str) -> str:
        """Return the file name of a node path in this directory; empty if the path is outside it."""
        folder, _, name = path.rpartition("/")
        is_name = name not in ("", ".", "..") and not _NOT_IN_NAMES.search(name)
        return name if is_name and _real(folder) == self._path else ""

    def began(self, name: str) -> float | None:
        """Return when a netns was created there, in seconds since 1970; None if the name does not exist."""
        try:
            return (self._mount / name).lstat().st_mtime
        except OSError:
            return None

    @contextmanager
    def proven(self, known: Known) -> Iterator[NetnsFd]:
        """Open the netns of a pod; on a worker thread.

        Raises:
            UnprovenError: if it cannot be determined.
        """
        names = [name for name in known.names if self.began(name) is not None]
        if known.names and not names:  # another pod may have its addresses by now
            raise UnprovenError(f"{self._path}/{', '.join(known.names)}, which its network's result names, is gone")
        if not names and not known.addresses:
            raise UnprovenError("neither the runtime nor the API server says which addresses it has")
        candidates = (self._open_if_proven(name, known) for name in names or self._others(known))
        matching = [fd for fd in candidates if fd is not None]
        try:
            if not matching and (hidden := self._hidden(names, known)):
                raise hidden
            if len(matching) != 1 and not _are_same(matching):
                raise UnprovenError(self._explain(known, names, len(matching)))
            yield matching[0]
        finally:
            for fd in matching:
                os.close(fd)

    def _others(self, known: Known) -> list[str]:
        """List the files that are not reported for another pod."""
        try:
            with os.scandir(self._mount) as entries:
                names = [each.name for each in entries if each.name not in known.others]
        except OSError as error:
            raise UnprovenError(f"the runtime's directory of network namespaces cannot be read: {error}") from error
        if len(names) > MOST:
            raise UnprovenError(f"{self._path} has more than {MOST} files")
        return names

    def _open_if_proven(self, name: str, known: Known) -> NetnsFd | None:
        """Open a netns if all known facts match the pod."""
        try:
            fd = NetnsFd(os.open(self._mount / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | self._follow))
        except OSError:
            return None
        matches = False
        try:
            matches = _matches(fd, name, known)
            return fd if matches else None
        finally:
            if not matches:
                os.close(fd)

    def _hidden(self, names: Collection[str], known: Known) -> HiddenError | None:
        """Find a netns of which only the empty mount-point file is visible here."""
        for name in names or self._others(known):
            with suppress(OSError):
                info = (self._mount / name).lstat()
                if stat.S_ISREG(info.st_mode) and not info.st_size and info.st_dev == self._mount.stat().st_dev:
                    return HiddenError(f"{self._path}/{name}", info.st_mtime if names else 0.0)
        return None

    def _explain(self, known: Known, names: Collection[str], matching: int) -> str:
        expected = " and ".join(map(str, known.addresses)) or "no address that is known"
        if matching:
            return f"{matching} network namespaces in {self._path} have {expected}"
        if names:
            return f"{self._path}/{', '.join(names)}, which its network's result names, does not have {expected}"
        other = f", and {known.elsewhere}, which its network's result names, is outside it" if known.elsewhere else ""
        return f"no network namespace in {self._path} has {expected}{other}"


def _matches(fd: NetnsFd, name: str, known: Known) -> bool:
    if not netns.is_network_namespace(fd) or netns.is_own(fd):
        return False
    if not known.addresses:
        return name == known.by_runtime
    try:
        present = addresses(fd)
    except ApplyError:
        return False
    expected = set(known.addresses)
    return bool(expected & present) if name in known.names else expected <= present


def _are_same(fds: Collection[NetnsFd]) -> bool:
    """Whether all are the same netns under several names."""
    return len({(info.st_dev, info.st_ino) for info in map(os.fstat, fds)}) == 1


def _real(path: str) -> str:
    return TARGET + path.removeprefix(LINK) if path.startswith(LINK) else path
