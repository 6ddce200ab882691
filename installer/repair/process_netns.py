"""The network namespaces of the node's processes, where the runtime's directory of them is not mounted (Istio's own chart).

Every user may create a network namespace and give it any address, so an address alone proves nothing here: the namespace must
also be that of a process in the pod's cgroup, whose name the kubelet makes of the pod's uid and no pod can change.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from installer.repair.netns_proof import MOST, NetnsFiles, UnprovenError

if TYPE_CHECKING:
    from pathlib import Path

    from installer.repair.netns_proof import HiddenError, Known
    from plugin.netns import NetnsFd

FRESH = 1.0  # seconds that one look at the processes counts for
LARGEST = 65536  # bytes of a process's list of cgroups
_POD = re.compile(rb"[/-]pod([0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12})\b")  # systemd's names have no dashes


class ProcessNetns(NetnsFiles):
    """The node's processes, in a mount of its /proc."""

    _follow = 0  # /proc/PID/ns/net is a link

    def __init__(self, proc: Path) -> None:
        """Prepare; `proc` is the mount."""
        super().__init__(proc, proc)
        self._read_at = float("-inf")
        self._names: dict[str, list[str]] = {}

    def _others(self, known: Known) -> list[str]:
        """List the network namespaces of the pod's processes, each once."""
        if time.monotonic() >= self._read_at + FRESH:
            self._names, self._read_at = self._read_processes(), time.monotonic()
        found: dict[tuple[int, int], str] = {}
        for name in self._names.get(known.uid, ()):
            with suppress(OSError):
                info = (self._mount / name).stat()
                found.setdefault((info.st_dev, info.st_ino), name)
        if len(found) > MOST:
            raise UnprovenError(f"its processes have more than {MOST} network namespaces")
        return [*found.values()]

    def _read_processes(self) -> dict[str, list[str]]:
        """Read which processes are whose: file names of their network namespaces by the uids of pods."""
        names: dict[str, list[str]] = {}
        try:
            with os.scandir(self._mount) as entries:
                processes = [each.name for each in entries if each.name.isdecimal()]
        except OSError as error:
            raise UnprovenError(f"the node's processes cannot be read: {error}") from error
        for process in processes:
            if uid := self._pod_of(process):
                names.setdefault(uid, []).append(f"{process}/ns/net")
        return names

    def _pod_of(self, process: str) -> str:
        """Return the uid of the pod that a process belongs to; empty if it has ended, or belongs to none."""
        with suppress(OSError), (self._mount / process / "cgroup").open("rb") as file:
            if pod := _POD.search(file.read(LARGEST)):
                return pod[1].decode().replace("_", "-")
        return ""

    def _open_if_proven(self, name: str, known: Known) -> NetnsFd | None:
        """Open a netns as for files, and see that the process is still the pod's: its number may have gone to another."""
        fd = super()._open_if_proven(name, known)
        if fd is None or self._pod_of(name.partition("/")[0]) == known.uid:
            return fd
        os.close(fd)
        return None

    def _hidden(self, names: object, known: Known) -> HiddenError | None:  # noqa: ARG002 - every process is seen
        return None
