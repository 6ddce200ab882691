"""The processes of a machine of its own, by their process ids there: to find them, end them, and take memory from them."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.support.machine import Machine

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Processes:
    """All that run on a machine."""

    machine: Machine

    def all(self) -> dict[int, list[str]]:
        """List them with their arguments."""
        found = {}
        for folder in Path(self.machine.seen("/proc")).iterdir():
            with suppress(OSError):  # it has ended meanwhile
                if folder.name.isdigit():
                    found[int(folder.name)] = (folder / "cmdline").read_text(errors="replace").split("\0")[:-1]
        return found

    def running(self, command: Sequence[str]) -> list[int]:
        """List those that run a command, with all of its arguments."""
        return [pid for pid, seen in self.all().items() if seen == [*command]]

    def inside(self, netns: Path) -> list[int]:
        """List those of a network namespace."""
        found = []
        for pid in self.all():
            with suppress(OSError):
                if os.path.samestat(self._file(pid, "ns/net").stat(), netns.stat()):
                    found.append(pid)
        return found

    def kill(self, pids: Iterable[int]) -> None:
        """End some as `kill -9` does, unless they have ended meanwhile."""
        with suppress(AssertionError):
            self.machine.run(["/usr/bin/kill", "-KILL", *map(str, pids)])

    def leave_memory(self, pid: int, spare: int) -> None:
        """Have the kernel kill a container's process once it needs more memory than it has now and these bytes."""
        lines = self._file(pid, "cgroup").read_text().splitlines()
        paths = {controllers: path.lstrip("/") for _, controllers, path in (line.split(":", 2) for line in lines)}
        if "memory" in paths:
            folder, names = _CGROUPS / "memory" / paths["memory"], ("memory.usage_in_bytes", "memory.limit_in_bytes")
        else:
            folder, names = _CGROUPS / paths[""], ("memory.current", "memory.max")
        used, limit = (folder / name for name in names)
        with suppress(OSError):
            (folder / "memory.force_empty").write_text("0")  # what the kernel could take back before it kills anybody
        limit.write_text(str(int(used.read_text()) + spare))

    def _file(self, pid: int, name: str) -> Path:
        return Path(self.machine.seen(f"/proc/{pid}/{name}"))
