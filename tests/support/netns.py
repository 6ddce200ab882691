"""A network namespace with a name in the file system, for as long as a test needs it."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


PROC = Path("/proc")
FIRST_ID, IDS = 100_000, 65_536  # which a user namespace has as its own 0 and following, as the kubelet maps them


class Netns:
    """A network namespace kept alive by a bind mount on `path`, as container runtimes do it."""

    def __init__(self, path: Path, *, has_lo: bool = True) -> None:
        """Prepare; `has_lo`: whether `lo` is up in it, as runtimes set it up before the chain or beside it."""
        self.path = path
        self._command = ["/usr/sbin/ip", "link", "set", "lo", "up"] if has_lo else ["/bin/true"]

    @property
    def entered(self) -> list[str]:
        """How a command begins that runs in it as the pod's processes do."""
        return ["/usr/bin/nsenter", f"--net={self.path}"]

    @property
    def inode(self) -> int:
        """What /proc/PID/ns/net of a process or thread in it has for an inode."""
        return self.path.stat().st_ino

    def rules(self) -> str:
        """List its rules, as nft writes them."""
        command = ["/usr/bin/nsenter", f"--net={self.path}", "/usr/sbin/nft", "list", "ruleset"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def __enter__(self) -> Self:
        self.path.touch()
        subprocess.run(["/usr/bin/unshare", f"--net={self.path}", *self._command], check=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Lazily, as runtimes do it: whoever was asked about it may have it open for a moment yet.
        subprocess.run(["/bin/umount", "--lazy", str(self.path)], check=True)
        self.path.unlink()


class UserNetns(Netns):
    """One that a user namespace of its own owns, as that of a pod with `hostUsers: false`."""

    def __init__(self, path: Path, first: int = 0, *, at_once: bool = False) -> None:
        """Prepare.

        Args:
            path: for the network namespace.
            first: the first id that the user namespace has; with 1 it has no root.
            at_once: whether both are made before the user namespace has ids: some of the kernel's files are then nobody's.
        """
        super().__init__(path)
        self.user = path.with_name(f"{path.name}-user")
        self._first = first
        self._at_once = at_once

    @property
    def entered(self) -> list[str]:
        return ["/usr/bin/nsenter", f"--user={self.user}", f"--net={self.path}"]

    def __enter__(self) -> Self:
        both = ["--net"] if self._at_once else []
        with _held(["/usr/bin/unshare", "--user", *both]) as holder:
            for name in ("uid_map", "gid_map"):
                (holder / name).write_text(f"{self._first} {FIRST_ID} {IDS}")
            _pin(holder / "ns" / "user", self.user)
            if self._at_once:
                _pin(holder / "ns" / "net", self.path)
        if not self._at_once:
            with _held(["/usr/bin/nsenter", f"--user={self.user}", "/usr/bin/unshare", "--net"]) as holder:
                _pin(holder / "ns" / "net", self.path)
        subprocess.run(["/usr/bin/nsenter", f"--net={self.path}", *self._command], check=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["/bin/umount", "--lazy", str(self.user)], check=True)
        self.user.unlink()
        super().__exit__(kind, error, trace)


@contextmanager
def _held(command: list[str]) -> Iterator[Path]:
    """Have a process wait in what a command enters or makes: its directory in /proc."""
    waiting = [*command, "/bin/sh", "-c", "echo made; read ended"]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"made\n"
        try:
            yield PROC / str(holder.pid)
        finally:
            holder.communicate(b"")


def _pin(namespace: Path, path: Path) -> None:
    path.touch()
    subprocess.run(["/bin/mount", "--bind", str(namespace), str(path)], check=True)
